//! Leases of IPv6 that outlive the server, and such that come by a relay.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::Ipv6Addr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use dhcproto::Decodable as _;
use dhcproto::v6::{DhcpOption, Message, MessageType};
use kiln::lab::{BRIDGE, Lab, Neighbour};
use kiln_inventory::{Lease6, Store};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

use crate::rig::{Case, Dnsmasq, Need, Serving};

/// Kills of one run, unless `KILN_KILLS` says otherwise.
const KILLS: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(90);
/// The bridge behind the relay.
const FAR: &str = "kiln1";

pub(super) fn cases() -> Vec<Case> {
    let killing = [Need::Root, Need::Program, Need::Tool("perfdhcp", "kea-admin")];
    let relaying = [
        Need::Root,
        Need::Program,
        Need::Tool("dnsmasq", "dnsmasq-base"),
        Need::Tool("dhclient", "isc-dhcp-client"),
    ];
    vec![
        Case::new(
            "leases::no_told_lease_of_ipv6_is_lost_when_the_server_is_killed",
            &killing,
            killed,
        ),
        Case::new("leases::a_client_behind_a_relay_of_dhcpv6_has_its_address", &relaying, relayed),
    ]
}

/// Kills the server again and again while perfdhcp asks for addresses of IPv6.
fn killed() -> anyhow::Result<()> {
    let kills = std::env::var("KILN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::Builder::new().prefix("leases6-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    let clients = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
    let settings = settings(
        "[[subnet6]]\nnetwork = \"fd77::/64\"\naddress = \"fd77::1\"\n\
         pool = [\"fd77::1:0-fd77::1:ffff\"]\n",
    );
    let start = || Serving::start(folder.path(), &settings);
    let server = start()?;
    server.is_ready()?;
    has_link_local(&clients, "p0")?;
    let ended = Arc::new(AtomicBool::new(false));
    let witness = Witness::start(Arc::clone(&ended))?;
    let load = clients
        .command("setpriv")
        .args(["--pdeathsig", "KILL", "--", "perfdhcp"])
        .args(["-6", "-r", "200", "-R", "20000", "-p", "3600", "-l", "p0"])
        .stdin(Stdio::null())
        .stdout(File::create(folder.path().join("perfdhcp"))?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perfdhcp")?;
    let load = Ended(load);
    let mut server = Some(server);
    for kill in 0..kills {
        // At moments all over the work, the first of them while the server starts.
        std::thread::sleep(Duration::from_millis(u64::from((kill * 37) % 23) * 20));
        drop(server.take());
        server = Some(start()?);
        if kill % 4 != 3 {
            server.as_ref().context("no server")?.is_ready()?;
        }
    }
    server.as_ref().context("no server")?.is_ready()?;
    std::thread::sleep(Duration::from_millis(500));
    drop(load);
    // Killed once more, so that only what is on disk counts.
    drop(server.take());
    ended.store(true, Ordering::Relaxed);
    let seen = witness.join()?;
    let server = start()?;
    server.is_ready()?;
    compare(&seen, &known(folder.path())?, kills)
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

/// Compares what was told with what the server knows.
fn compare(seen: &[(Ipv6Addr, Vec<u8>)], known: &[Lease6], kills: u32) -> anyhow::Result<()> {
    let mut owner: BTreeMap<Ipv6Addr, &[u8]> = BTreeMap::new();
    for (address, duid) in seen {
        let first = owner.entry(*address).or_insert(duid);
        ensure!(*first == duid.as_slice(), "{address} was given to {first:?} and to {duid:?}");
    }
    let known: BTreeMap<Ipv6Addr, &[u8]> =
        known.iter().map(|lease| (lease.address, lease.duid.as_bytes())).collect();
    let lost = owner.iter().filter(|(address, duid)| known.get(address) != Some(duid)).count();
    ensure!(lost == 0, "{lost} of {} leases are lost", owner.len());
    ensure!(owner.len() > 50, "only {} leases were given; perfdhcp did not get far", owner.len());
    eprintln!("{kills} kills, {} replies for {} leases", seen.len(), owner.len());
    Ok(())
}

/// Addresses, each with the DUID that was told of it.
type Told = Vec<(Ipv6Addr, Vec<u8>)>;

/// Reads what the server tells, on the network, apart from all that it says of itself, and by another's reader.
struct Witness(std::thread::JoinHandle<anyhow::Result<Told>>);

impl Witness {
    fn start(ended: Arc<AtomicBool>) -> anyhow::Result<Self> {
        // Every protocol: only so does a packet socket hear what its own host sends.
        let every = i32::from(0x0003_u16.to_be());
        let mut socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(every)))?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self(std::thread::spawn(move || {
            let (mut seen, mut buffer) = (Vec::new(), [0; 2048]);
            while !ended.load(Ordering::Relaxed) {
                match socket.read(&mut buffer) {
                    Ok(length) => seen.extend(told(&buffer[..length])),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(seen)
        })))
    }

    fn join(self) -> anyhow::Result<Told> {
        self.0.join().map_err(|_| anyhow::anyhow!("the witness panicked"))?
    }
}

/// Returns which address a packet gives to whom: IPv6, UDP from port 547, a Reply.
fn told(packet: &[u8]) -> Option<(Ipv6Addr, Vec<u8>)> {
    let is_ours = packet.first()? >> 4 == 6 && packet.get(6) == Some(&17);
    if !is_ours || packet.get(40..42) != Some(&[2, 0x23]) || packet.get(48) != Some(&7) {
        return None;
    }
    let message = Message::from_bytes(packet.get(48..)?).ok()?;
    let (mut client, mut address) = (None, None);
    for option in message.opts().iter() {
        match option {
            DhcpOption::ClientId(duid) => client = Some(duid.clone()),
            DhcpOption::IANA(association) => {
                address = association.opts.iter().find_map(|option| match option {
                    DhcpOption::IAAddr(given) if given.valid_life > 0 => Some(given.addr),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (message.msg_type() == MessageType::Reply).then_some(())?;
    Some((address?, client?))
}

fn has_link_local(host: &Neighbour, port: &str) -> anyhow::Result<()> {
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
