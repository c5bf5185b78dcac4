//! Two servers on one PostgreSQL, which share a pool: no address is given twice, whatever becomes of one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln::dhcp::v6::server_id;
use kiln::lab::{BRIDGE, Lab, Neighbour};
use kiln_inventory::{Lease6, Store};
use kiln_types::Mac;
use tokio::time::Instant;

use super::leases::{Witness, ip};
use super::leases6::has_link_local;
use crate::rig::{Case, Load6, Need, Serving, kiln, owners};

/// Exchanges with each server, unless `KILN_EXCHANGES` says otherwise.
const EXCHANGES: u32 = 2500;
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) fn cases() -> Vec<Case> {
    let needs = [
        Need::Root,
        Need::Program,
        Need::Tool("perfdhcp", "kea-admin"),
        Need::Tool("pg_lsclusters", "postgresql"),
    ];
    let needs6 = [Need::Root, Need::Program, Need::Tool("pg_lsclusters", "postgresql")];
    vec![
        Case::new(
            "shared::two_servers_on_one_database_give_no_address_twice_when_one_is_killed",
            &needs,
            two,
        ),
        Case::new(
            "shared::two_servers_on_one_database_give_no_address_of_ipv6_twice_when_one_is_killed",
            &needs6,
            two_of_ipv6,
        ),
    ]
}

/// Clients of DHCPv6 hear both servers and take now the one, now the other.
fn two_of_ipv6() -> anyhow::Result<()> {
    const CLIENTS: u8 = 24;
    let (database, _postgres) = postgres()?;
    let folder = tempfile::Builder::new().prefix("shared6-").tempdir()?;
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut lab = Lab::enter(folder.path())?;
    let beside = lab.add_neighbour(&[(BRIDGE, "10.77.0.3/24")])?;
    let host = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
    let address = ["addr", "add", "fd77::3/64", "dev", "p0", "nodad"];
    ensure!(
        beside.command("ip").args(address).status()?.success(),
        "the other server has no address"
    );
    has_link_local(&beside, "p0")?;
    Load6::prepare(&host, CLIENTS)?;
    let settings = |interface: &str, last: u8| {
        let at = format!("interface = \"{interface}\"\n");
        format!(
            "network = \"10.77.0.0/24\"\n{at}address = \"10.77.0.{last}\"\ndhcp = \"off\"\n\
             [[subnet6]]\nnetwork = \"fd77::/64\"\n{at}address = \"fd77::{last}\"\nlease-time = \"1h\"\n\
             pool = [\"fd77::1:0-fd77::1:ffff\"]\n[inventory]\ndatabase = \"{database}\"\n"
        )
    };
    let first = || Serving::start(&one, &settings(BRIDGE, 1));
    let server = first()?;
    server.is_ready()?;
    let other = Serving::start_by(beside.command("setpriv"), &two, &settings("p0", 3))?;
    other.is_ready()?;
    let (ended, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = Load6 { host: &host, clients: CLIENTS, two: true, ended: &ended, count: &count };
    let grows = |by: u32, what: &str| {
        let before = count.load(Ordering::Relaxed);
        until(what, || Ok(count.load(Ordering::Relaxed) >= before + by))
    };
    let work = || -> anyhow::Result<()> {
        grows(200, "the servers give no addresses")?;
        // One dies in the middle of it, and comes back with what it knew.
        drop(server);
        grows(100, "the other server gives no addresses")?;
        let again = first()?;
        again.is_ready()?;
        grows(200, "no addresses are given any more")?;
        drop((again, other));
        Ok(())
    };
    let told = std::thread::scope(|scope| {
        let asking = scope.spawn(|| load.run());
        let worked = work();
        ended.store(true, Ordering::Relaxed);
        let told = asking.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?;
        worked.and(told)
    })?;

    let owners = owners(&told)?;
    let servers: BTreeSet<&[u8]> = told.iter().map(|told| told.server.as_slice()).collect();
    ensure!(servers.len() == 2, "the clients heard of the servers {servers:x?}");
    let (mut known, mut of_each) = (BTreeMap::new(), Vec::new());
    for folder in [&one, &two] {
        let leases = leases6(&database, &folder.join("data"))?;
        of_each.push(leases.len());
        for lease in leases {
            let twice = known.insert(lease.address, lease.duid.as_bytes().to_vec());
            ensure!(twice.is_none(), "{} is in the leases of both", lease.address);
        }
    }
    let is_known = |(address, duid): &(&Ipv6Addr, &&[u8])| {
        known.get(*address).is_some_and(|known| known.as_slice() == **duid)
    };
    let lost = owners.iter().filter(|lease| !is_known(lease)).count();
    ensure!(lost == 0, "{lost} of {} leases are known to neither", owners.len());
    eprintln!("{} addresses of IPv6 given by two servers, {of_each:?} by each", owners.len());
    Ok(())
}

/// Returns the leases of IPv6 that the server with this folder has in the database.
fn leases6(database: &str, data: &Path) -> anyhow::Result<Vec<Lease6>> {
    let identity = server_id(&data.join("server-id"))?.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::connect(&database.parse()?).await?;
        let (leases, damaged) = store.serving(&identity, "read", &[]).await?.leases6().await?;
        ensure!(damaged == 0, "{damaged} leases make no sense");
        Ok(leases)
    })
}

fn two() -> anyhow::Result<()> {
    let exchanges: u32 =
        std::env::var("KILN_EXCHANGES").ok().and_then(|n| n.parse().ok()).unwrap_or(EXCHANGES);
    let (database, postgres) = postgres()?;
    let folder = tempfile::Builder::new().prefix("shared-").tempdir()?;
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut lab = Lab::enter(folder.path())?;
    ip(&format!("addr add 10.80.0.1/16 dev {BRIDGE}"))?;
    let beside = lab.add_neighbour(&[(BRIDGE, "10.80.0.3/16")])?;
    let clients = [
        lab.add_neighbour(&[(BRIDGE, "10.80.0.2/16")])?,
        lab.add_neighbour(&[(BRIDGE, "10.80.0.4/16")])?,
    ];
    let settings = |interface: &str, address: &str| {
        format!(
            "network = \"10.80.0.0/16\"\ninterface = \"{interface}\"\naddress = \"{address}\"\n\
             pool = [\"10.80.1.0-10.80.40.255\"]\nlease-time = \"1h\"\n[inventory]\ndatabase = \"{database}\"\n"
        )
    };
    let first = || Serving::start(&one, &settings(BRIDGE, "10.80.0.1"));
    let mut server = Some(first()?);
    let command = beside.command("setpriv");
    let other = Serving::start_by(command, &two, &settings("p0", "10.80.0.3"))?;
    server.as_ref().context("no server")?.is_ready()?;
    other.is_ready()?;

    // What an operator tells one of them, the other one knows.
    let socket = |folder: &Path| folder.join("kiln.sock").display().to_string();
    let added =
        kiln(&["machine", "add", "n1", "--mac", "52:54:00:00:00:01", "--socket", &socket(&one)])?;
    ensure!(added.code == Some(0), "{}", added.stderr);
    until("the other server does not hear of the machine", || {
        let told = kiln(&["machine", "explain", "52:54:00:00:00:01", "--socket", &socket(&two)])?;
        Ok(told.stdout.contains("n1"))
    })?;

    let ended = Arc::new(AtomicBool::new(false));
    let witness = Witness::start(Arc::clone(&ended))?;
    let log = |name: &str| folder.path().join(name);
    let mut killed = load(&clients[0], "02:aa", "10.80.0.1", exchanges, &log("load-one"))?;
    let mut lasting = load(&clients[1], "02:bb", "10.80.0.3", exchanges, &log("load-two"))?;
    // One dies in the middle of it.
    until("the first server gives no addresses", || {
        Ok(server.as_ref().context("no server")?.leases()?.len() > 50)
    })?;
    drop(server.take());
    let before = other.leases()?.len();
    until("the other server gives no more addresses", || Ok(other.leases()?.len() > before))?;
    // It comes back with what it knew, and goes on.
    let again = first()?;
    again.is_ready()?;
    let (back, meanwhile) = (again.leases()?.len(), other.leases()?.len());
    killed.wait()?;
    lasting.wait()?;
    let mut third = load(&clients[0], "02:cc", "10.80.0.1", 50, &log("load-three"))?;
    third.wait()?;
    ensure!(again.leases()?.len() > back, "the server that came back gives no addresses");

    // Without their database both give what they have claimed.
    drop(postgres);
    let (had, theirs) = (again.leases()?.len(), other.leases()?.len());
    let mut fourth = load(&clients[0], "02:dd", "10.80.0.1", 50, &log("load-four"))?;
    let mut fifth = load(&clients[1], "02:ee", "10.80.0.3", 50, &log("load-five"))?;
    fourth.wait()?;
    fifth.wait()?;
    // What is acknowledged late, on a busy computer, is seen before the servers are asked what they know.
    ended.store(true, Ordering::Relaxed);
    let seen = witness.join()?;
    let (now, then) = (again.leases()?, other.leases()?);
    ensure!(now.len() > had && then.len() > theirs, "without a database there are no addresses");

    let mut owner: BTreeMap<Ipv4Addr, BTreeSet<Mac>> = BTreeMap::new();
    for (address, mac) in &seen {
        owner.entry(*address).or_default().insert(*mac);
    }
    let twice: Vec<_> = owner.iter().filter(|(_, macs)| macs.len() > 1).collect();
    ensure!(twice.is_empty(), "given twice: {twice:?}");
    let known: BTreeSet<_> =
        now.iter().chain(&then).map(|lease| (lease.address, lease.mac)).collect();
    let lost: Vec<_> = seen.iter().filter(|lease| !known.contains(lease)).collect();
    let of_clients: Vec<_> = lost
        .iter()
        .take(5)
        .map(|(address, mac)| {
            let known = known.iter().filter(|lease| lease.0 == *address || lease.1 == *mac);
            format!("{mac} has {address}, and known is {:?}", known.collect::<Vec<_>>())
        })
        .collect();
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledgements are known to neither: {of_clients:?}",
        lost.len(),
        seen.len()
    );
    let both: BTreeSet<_> = now.iter().map(|lease| lease.address).collect();
    let shared = then.iter().filter(|lease| both.contains(&lease.address)).count();
    ensure!(shared == 0, "{shared} addresses are in the leases of both");
    eprintln!(
        "{} addresses given by two servers, {} by the first, {} by the other, which had {meanwhile} when it came back",
        owner.len(),
        now.len(),
        then.len()
    );
    Ok(())
}

/// Starts a PostgreSQL, which goes away with the pipe to it.
pub(super) fn postgres() -> anyhow::Result<(String, ChildStdin)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("postgres.sh");
    let mut child = Command::new(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", script.display()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut line = String::new();
    BufReader::new(stdout.context("no output")?).read_line(&mut line)?;
    let socket = line.trim();
    ensure!(socket.starts_with('/'), "{} failed", script.display());
    let database = format!("postgres:///postgres?host={socket}&user=kiln");
    Ok((database, stdin.context("no input")?))
}

/// Has so many clients ask a server for an address each, by way of a relay.
fn load(
    from: &Neighbour,
    macs: &str,
    server: &str,
    count: u32,
    log: &Path,
) -> anyhow::Result<Child> {
    let (count, mac) = (count.to_string(), format!("mac={macs}:00:00:00:00"));
    from.command("setpriv")
        .args(["--pdeathsig", "KILL", "--", "perfdhcp", "-4", "-r", "50", "-R"])
        .args([&count, "-n", &count, "-b", &mac, "-W", "2000000", "-l", "p0", server])
        .stdin(Stdio::null())
        .stdout(File::create(log)?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perfdhcp")
}

fn until(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
