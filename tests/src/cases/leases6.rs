//! Leases of IPv6 that outlive the server, and such that come by a relay.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln::lab::{BRIDGE, Lab, Neighbour};
use kiln_inventory::{Lease6, Store};
use tokio::time::Instant;

use crate::rig::{Case, Dnsmasq, Load6, Need, Serving, Told, owners};

/// Kills of one run, unless `KILN_KILLS` says otherwise.
const KILLS: u32 = 10;
/// Clients that ask at a time.
const CLIENTS: u8 = 32;
const PATIENCE: Duration = Duration::from_secs(90);
/// The bridge behind the relay.
const FAR: &str = "kiln1";

pub(super) fn cases() -> Vec<Case> {
    let relaying = [
        Need::Root,
        Need::Program,
        Need::Tool("dnsmasq", "dnsmasq-base"),
        Need::Tool("dhclient", "isc-dhcp-client"),
    ];
    vec![
        Case::new(
            "leases::no_acknowledged_lease_of_ipv6_is_lost_when_the_server_is_killed",
            &[Need::Root, Need::Program],
            killed,
        ),
        Case::new("leases::a_client_behind_a_relay_of_dhcpv6_has_its_address", &relaying, relayed),
    ]
}

/// Kills the server again and again while clients ask for addresses, and compares what they were told with what it has.
fn killed() -> anyhow::Result<()> {
    let kills = std::env::var("KILN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::Builder::new().prefix("leases6-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    let host = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
    has_link_local(&host, "p0")?;
    Load6::prepare(&host, CLIENTS)?;
    let settings = settings(
        "[[subnet6]]\nnetwork = \"fd77::/64\"\naddress = \"fd77::1\"\n\
         pool = [\"fd77::1:0-fd77::1:ffff\"]\n",
    );
    let start = || Serving::start(folder.path(), &settings);
    let server = start()?;
    server.is_ready()?;
    let (ended, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = Load6 { host: &host, clients: CLIENTS, two: false, ended: &ended, count: &count };
    let told = std::thread::scope(|scope| {
        let asking = scope.spawn(|| load.run());
        let killing = kill_often(server, kills, &count, start);
        ended.store(true, Ordering::Relaxed);
        let told = asking.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?;
        killing.and(told)
    })?;
    compare(&told, &known(folder.path())?, kills)
}

/// Kills a server at moments all over its work, some of them while it starts, and at the end once more, so that only
/// what is on disk counts.
fn kill_often(
    server: Serving,
    kills: u32,
    count: &AtomicU32,
    start: impl Fn() -> anyhow::Result<Serving>,
) -> anyhow::Result<()> {
    let mut server = Some(server);
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(u64::from((kill * 37) % 23) * 20));
        drop(server.take());
        let again = server.insert(start()?);
        if kill % 4 != 3 {
            again.is_ready()?;
            // Every kill but those of a server that starts is in the middle of work.
            let (deadline, before) = (Instant::now() + PATIENCE, count.load(Ordering::Relaxed));
            while count.load(Ordering::Relaxed) < before + u32::from(CLIENTS) {
                ensure!(Instant::now() < deadline, "no lease after a kill: {}", again.log()?);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    drop(server.take());
    Ok(())
}

/// Compares what clients were told with what the server knows.
fn compare(told: &[Told], known: &[Lease6], kills: u32) -> anyhow::Result<()> {
    let owners = owners(told)?;
    let known: BTreeMap<_, _> =
        known.iter().map(|lease| (lease.address, lease.duid.as_bytes())).collect();
    let lost: Vec<_> =
        owners.iter().filter(|(address, duid)| known.get(address) != Some(duid)).collect();
    ensure!(lost.is_empty(), "{} of {} leases are lost: {lost:x?}", lost.len(), owners.len());
    ensure!(owners.len() > 50, "only {} leases were given", owners.len());
    eprintln!("{kills} kills, {} replies for {} leases", told.len(), owners.len());
    Ok(())
}

fn settings(subnets6: &str) -> String {
    let at = format!("interface = \"{BRIDGE}\"\n");
    let six = subnets6.replace("[[subnet6]]\n", &format!("[[subnet6]]\n{at}"));
    format!("network = \"10.77.0.0/24\"\n{at}address = \"10.77.0.1\"\ndhcp = \"off\"\n{six}")
}

/// Returns what the server has on disk.
fn known(folder: &std::path::Path) -> anyhow::Result<Vec<Lease6>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&folder.join("data/inventory.db")).await?;
        Ok(store.leases6().await?.0)
    })
}

pub(super) fn has_link_local(host: &Neighbour, port: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = host.command("ip").args(["-6", "address", "show", "dev", port]).output()?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        if shown.contains("fe80::") && !shown.contains("tentative") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{port} has no address of its link:\n{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// ISC's client asks on a network where only dnsmasq is, as a relay.
fn relayed() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("relay6-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    lab.add_bridge(FAR)?;
    let relay = lab.add_neighbour(&[(BRIDGE, "fd77::2/64"), (FAR, "fd78::2/64")])?;
    let client = lab.add_neighbour(&[(FAR, "192.0.2.1/32")])?;
    lab.ip(&["-6", "route", "add", "fd78::/64", "via", "fd77::2"])?;
    let server = Serving::start(
        folder.path(),
        &settings(
            "[[subnet6]]\nnetwork = \"fd77::/64\"\naddress = \"fd77::1\"\n\
             [[subnet6]]\nnetwork = \"fd78::/64\"\naddress = \"fd77::1\"\nrelay = true\n\
             pool = [\"fd78::1:0-fd78::1:ff\"]\n",
        ),
    )?;
    server.is_ready()?;
    has_link_local(&relay, "p0")?;
    has_link_local(&relay, "p1")?;
    has_link_local(&client, "p0")?;
    let _dnsmasq = Dnsmasq::at(&relay, folder.path(), "dhcp-relay=fd78::2,fd77::1\n")?;
    let [leases, pid] = ["client.leases", "client.pid"].map(|name| folder.path().join(name));
    let dhclient = client
        .command("setpriv")
        .args(["--pdeathsig", "KILL", "--", "dhclient"])
        .args(["-6", "-d", "-cf", "/dev/null", "-sf", "/bin/true", "-lf"])
        .arg(&leases)
        .arg("-pf")
        .arg(&pid)
        .arg("p0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.path().join("dhclient"))?)
        .spawn()
        .context("cannot run dhclient")?;
    let _dhclient = Ended(dhclient);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = known(folder.path())?;
        if let [lease] = found.as_slice() {
            let segments = lease.address.segments();
            ensure!((segments[0], segments[6]) == (0xfd78, 1), "not of its network: {lease:?}");
            break;
        }
        let said = std::fs::read_to_string(folder.path().join("dhclient")).unwrap_or_default();
        ensure!(Instant::now() < deadline, "no lease: {}\n{said}", server.log()?);
        std::thread::sleep(Duration::from_millis(200));
    }
    // What the client was told is what the server has.
    loop {
        let text = std::fs::read_to_string(&leases).unwrap_or_default();
        if text.contains("iaaddr fd78::1:") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the client has not heard of it:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A program that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
