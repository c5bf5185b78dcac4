//! Leases that outlive the server: what clients were told is compared with what the server knows after it was killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln::lab::{BRIDGE, Lab};
use kiln_inventory::Lease;
use kiln_types::Mac;
use socket2::{Domain, Protocol, Socket, Type};

use crate::rig::{Case, Need, Serving};

/// Kills of one run, unless `KILN_KILLS` says otherwise.
const KILLS: u32 = 20;

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Program, Need::Tool("perfdhcp", "kea-admin")];
    vec![Case::new(
        "leases::no_acknowledged_lease_is_lost_when_the_server_is_killed",
        &needs,
        killed,
    )]
}

/// Kills the server again and again while perfdhcp asks for addresses.
fn killed() -> anyhow::Result<()> {
    let kills = std::env::var("KILN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::Builder::new().prefix("leases-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    ip(&format!("addr add 10.80.0.1/16 dev {BRIDGE}"))?;
    let clients = lab.add_neighbour(&[(BRIDGE, "10.80.0.2/16")])?;
    let subnet = format!(
        "network = \"10.80.0.0/16\"\ninterface = \"{BRIDGE}\"\naddress = \"10.80.0.1\"\n\
         pool = [\"10.80.1.0-10.80.250.255\"]\n"
    );
    let start = || Serving::start(folder.path(), &subnet);
    let server = start()?;
    server.is_ready()?;

    // Everything that the server sends, as it leaves the bridge.
    let ended = Arc::new(AtomicBool::new(false));
    let witness = Witness::start(Arc::clone(&ended))?;
    let mut load = clients
        .command("setpriv")
        .args(["--pdeathsig", "KILL", "--", "perfdhcp"])
        .args(["-4", "-r", "300", "-R", "20000", "-p", "3600", "-l", "p0", "10.80.0.1"])
        .stdin(Stdio::null())
        .stdout(File::create(folder.path().join("perfdhcp"))?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perfdhcp")?;
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
    drop(load.kill());
    drop(load.wait());
    // Killed once more, so that only what is on disk counts.
    drop(server.take());
    ended.store(true, Ordering::Relaxed);
    let seen = witness.join()?;
    let server = start()?;
    server.is_ready()?;
    compare(&seen, server.leases()?, kills)
}

/// Compares what was acknowledged with what the server knows.
fn compare(seen: &[(Ipv4Addr, Mac)], known: Vec<Lease>, kills: u32) -> anyhow::Result<()> {
    let mut owner: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
    for (address, mac) in seen {
        let first = owner.entry(*address).or_insert(*mac);
        ensure!(first == mac, "{address} was given to {first} and to {mac}");
    }
    let known: BTreeMap<Ipv4Addr, Mac> =
        known.into_iter().map(|lease| (lease.address, lease.mac)).collect();
    let lost: Vec<_> =
        owner.iter().filter(|(address, mac)| known.get(address) != Some(mac)).collect();
    ensure!(lost.is_empty(), "{} of {} leases are lost: {lost:?}", lost.len(), owner.len());
    ensure!(owner.len() > 50, "only {} leases were given; perfdhcp did not get far", owner.len());
    eprintln!("{kills} kills, {} acknowledgements of {} leases", seen.len(), owner.len());
    Ok(())
}

pub(super) fn ip(line: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(line.split(' ')).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "`ip {line}` failed");
    Ok(())
}

/// Reads the acknowledgements on the network, apart from all that the server says of itself.
pub(super) struct Witness(std::thread::JoinHandle<anyhow::Result<Vec<(Ipv4Addr, Mac)>>>);

impl Witness {
    pub(super) fn start(ended: Arc<AtomicBool>) -> anyhow::Result<Self> {
        // Every protocol: only so does a packet socket hear what its own host sends.
        let every = i32::from(0x0003_u16.to_be());
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(every)))?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self(std::thread::spawn(move || watch(&socket, &ended))))
    }

    pub(super) fn join(self) -> anyhow::Result<Vec<(Ipv4Addr, Mac)>> {
        self.0.join().map_err(|_| anyhow::anyhow!("the witness panicked"))?
    }
}

fn watch(mut socket: &Socket, ended: &AtomicBool) -> anyhow::Result<Vec<(Ipv4Addr, Mac)>> {
    let mut seen = Vec::new();
    let mut buffer = [0; 2048];
    while !ended.load(Ordering::Relaxed) {
        match socket.read(&mut buffer) {
            Ok(length) => seen.extend(acknowledged(&buffer[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(seen)
}

/// Returns what a packet acknowledges: IPv4 without options, UDP from port 67, DHCP whose first option is 53.
fn acknowledged(packet: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let dhcp = packet.get(28..)?;
    let from = packet.get(20..22)?;
    if packet.first() != Some(&0x45) || packet.get(9) != Some(&17) || from != [0, 67] {
        return None;
    }
    if dhcp.first() != Some(&2) || dhcp.get(240..243)? != [53, 1, 5] {
        return None;
    }
    let address: [u8; 4] = *dhcp.get(16..20)?.first_chunk()?;
    Some((address.into(), Mac::new(*dhcp.get(28..34)?.first_chunk()?)))
}
