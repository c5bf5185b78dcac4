use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_inventory::{Decision, Lease, Sighting, Snapshot};
use kiln_ipxe::Endpoints;
use kiln_types::Mac;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::engine::{Change, Note, Outcome, View, respond};
use super::leases::{LeaseTable, Timestamp};
use super::subnet::Subnet;
use super::wire::Request;
use super::{Reply, ReplyKind};
use crate::net::send_from;

/// Any error, for traits that others implement.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes leases durable.
pub trait LeaseLog: Send + Sync + 'static {
    /// Writes the leases; once it returns, they survive a loss of power.
    fn commit(&self, leases: &[Lease]) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Hears of every request. Must not block: it is called between two packets.
pub trait Observer: Send + Sync + 'static {
    /// A machine asked, and this is what it gets.
    fn seen(&self, sighting: &Sighting, decision: Option<&Decision>, event: DhcpEvent);
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpEvent {
    /// What is sent, if anything.
    pub kind: Option<ReplyKind>,
    /// Address that the machine gets or has.
    pub address: Option<Ipv4Addr>,
    /// Why.
    pub note: Note,
}

/// Everything that one subnet is served with.
#[derive(Debug)]
pub struct Service<L, O> {
    /// The subnet.
    pub subnet: Subnet,
    /// Where its machines reach us.
    pub endpoints: Endpoints,
    /// The inventory, replaced when it changes.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The leases that were kept.
    pub leases: Vec<Lease>,
    /// Where new ones are kept.
    pub log: L,
    /// Who hears of the requests.
    pub observer: O,
}

/// The server cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket is of no use.
    #[error("the DHCP socket of {interface} cannot be used")]
    Socket {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The task that writes leases has ended.
    #[error("the task that writes leases has died")]
    Writer(#[source] Option<tokio::task::JoinError>),
}

/// Longest packet that is read; what is longer is cut, and its options end there.
const MAX_PACKET: usize = 4096;
/// Replies that may wait for the disk. More requests are dropped, and their clients ask again.
const QUEUE: usize = 256;
/// Packets that one hardware address may send in a second.
const FLOOD: u32 = 20;
/// Hardware addresses that are counted in one second.
const FLOOD_TABLE: usize = 4096;
/// How long to wait when the socket fails, for example while its interface is down.
const RETRY: Duration = Duration::from_millis(500);

/// A lease on its way to disk, and the packet that leaves after it.
struct Pending {
    lease: Lease,
    reply: Option<Reply>,
}

/// Serves one subnet on a bound socket until the token is cancelled. Leases on their way are then still written
/// and acknowledged.
///
/// # Errors
///
/// Returns an error when the socket cannot be used at all or the writer of leases has died. A network that is down
/// and a full disk are no reasons to end.
pub async fn serve<L: LeaseLog, O: Observer>(
    socket: StdUdpSocket,
    service: Service<L, O>,
    token: CancellationToken,
) -> Result<(), ServeError> {
    let Service { subnet, endpoints, snapshot, mut leases, log, observer } = service;
    // A machine may have had another lease in another subnet of the same inventory.
    leases.retain(|lease| subnet.network.contains(lease.address));
    let socket = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket));
    let socket = socket
        .map_err(|source| ServeError::Socket { interface: subnet.interface.clone(), source })?;
    let socket = Arc::new(socket);
    let (queue, waiting) = mpsc::channel(QUEUE);
    let mut writer = tokio::spawn(write_leases(waiting, log, Arc::clone(&socket), subnet.address));
    let mut table = LeaseTable::new(leases);
    let mut flood = Flood::default();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let received = tokio::select! {
            () = token.cancelled() => break,
            ended = &mut writer => return Err(ServeError::Writer(ended.err())),
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                warn!(iface = subnet.interface, %error, "could not receive DHCP packets; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let request = match Request::decode(buffer.get(..length).unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => {
                debug!(%from, %error, "packet dropped");
                continue;
            }
        };
        let now = Timestamp::now();
        if !flood.admits(request.mac, now) {
            debug!(mac = %request.mac, "packet dropped: more than {FLOOD} in a second");
            continue;
        }
        let snapshot = snapshot.load();
        let view =
            View { subnet: &subnet, snapshot: &snapshot, leases: &table, endpoints: &endpoints };
        let outcome = respond(&request, &view, now);
        note(&request, &outcome, &observer);
        match outcome.change {
            Some(Change::Hold(address)) => table.hold(address, request.mac, now),
            Some(Change::DropHold) => table.drop_hold(request.mac),
            Some(Change::Quarantine(address)) => table.quarantine(address, now),
            None => {}
        }
        match (outcome.lease, outcome.reply) {
            (Some(lease), reply) => {
                // Into memory only when it is on its way to disk: a dropped request leaves no trace.
                if queue.try_send(Pending { lease: lease.clone(), reply }).is_ok() {
                    table.insert(lease);
                } else {
                    warn!(mac = %request.mac, "request dropped: {QUEUE} leases wait for the disk");
                }
            }
            (None, Some(reply)) => send(&socket, &reply, subnet.address).await,
            (None, None) => {}
        }
    }
    drop(queue);
    writer.await.map_err(|error| ServeError::Writer(Some(error)))
}

fn note<O: Observer>(request: &Request, outcome: &Outcome, observer: &O) {
    let reply = outcome.reply.as_ref();
    let given = reply.map(|reply| reply.yiaddr).filter(|address| !address.is_unspecified());
    let had = Some(request.ciaddr).filter(|address| !address.is_unspecified());
    let event = DhcpEvent {
        kind: reply.map(|reply| reply.kind),
        address: given.or(had),
        note: outcome.note,
    };
    debug!(mac = %request.mac, xid = request.xid, kind = ?request.kind, reply = ?event.kind,
        address = ?event.address, "{}", event.note);
    if outcome.note == Note::PoolExhausted {
        warn!(mac = %request.mac, "no address left; widen the pool of the subnet");
    }
    if let Some(sighting) = &outcome.sighting {
        observer.seen(sighting, outcome.decision.as_ref(), event);
    }
}

/// Writes leases, all that wait in one go, and sends each acknowledgement after its lease is on disk.
async fn write_leases<L: LeaseLog>(
    mut waiting: mpsc::Receiver<Pending>,
    log: L,
    socket: Arc<UdpSocket>,
    from: Ipv4Addr,
) {
    let mut batch = Vec::with_capacity(QUEUE);
    while waiting.recv_many(&mut batch, QUEUE).await > 0 {
        let leases: Vec<Lease> = batch.iter().map(|pending| pending.lease.clone()).collect();
        match log.commit(&leases).await {
            Ok(()) => {
                for reply in batch.drain(..).filter_map(|pending| pending.reply) {
                    send(&socket, &reply, from).await;
                }
            }
            // Without an acknowledgement the clients ask again; by then there may be room on the disk.
            Err(error) => {
                let count = leases.len();
                warn!(%error, count, "leases could not be written; their requests are not answered");
                batch.clear();
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &Reply, from: Ipv4Addr) {
    match reply.encode() {
        Ok(bytes) => {
            if let Err(error) = send_from(socket, &bytes, reply.to, from).await {
                warn!(mac = %reply.mac, to = %reply.to, %error, "could not send a DHCP reply");
            }
        }
        Err(error) => warn!(mac = %reply.mac, %error, "no DHCP reply"),
    }
}

/// Counts packets by hardware address, afresh each second.
#[derive(Debug, Default)]
struct Flood {
    second: i64,
    counts: HashMap<Mac, u32>,
}

impl Flood {
    fn admits(&mut self, mac: Mac, now: Timestamp) -> bool {
        if self.second != now.0 {
            self.second = now.0;
            self.counts.clear();
        }
        if self.counts.len() >= FLOOD_TABLE && !self.counts.contains_key(&mac) {
            return true;
        }
        let count = self.counts.entry(mac).or_insert(0);
        *count = count.saturating_add(1);
        *count <= FLOOD
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn one_noisy_machine_does_not_take_the_turn_of_others() {
        let mut flood = Flood::default();
        let (noisy, quiet) = (Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 2]));
        let now = Timestamp(5);
        let admitted = (0..100).filter(|_| flood.admits(noisy, now)).count();
        assert_eq!(admitted, 20);
        assert!(flood.admits(quiet, now));
        assert!(flood.admits(noisy, Timestamp(6)));
    }

    /// Counts the leases of each commit. Fails when told, and when a packet has already left.
    struct Disk {
        full: bool,
        client: Arc<UdpSocket>,
        commits: Arc<Mutex<Vec<usize>>>,
    }

    impl LeaseLog for Disk {
        async fn commit(&self, leases: &[Lease]) -> Result<(), BoxError> {
            self.commits.lock().unwrap().push(leases.len());
            assert!(self.client.try_recv(&mut [0; 8]).is_err(), "nothing leaves before the commit");
            if self.full { Err("no space left".into()) } else { Ok(()) }
        }
    }

    async fn written(full: bool) -> (Vec<usize>, usize) {
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let client = Arc::new(UdpSocket::bind(local).await.unwrap());
        let server = Arc::new(UdpSocket::bind(local).await.unwrap());
        let std::net::SocketAddr::V4(to) = client.local_addr().unwrap() else { unreachable!() };
        let (queue, waiting) = mpsc::channel(QUEUE);
        for last in 1..=3 {
            let (mac, address) = (Mac::new([2, 0, 0, 0, 0, last]), [10, 0, 0, last].into());
            let none = Ipv4Addr::UNSPECIFIED;
            let reply = Reply {
                kind: ReplyKind::Ack,
                xid: 1,
                flags: 0,
                ciaddr: none,
                yiaddr: address,
                siaddr: none,
                giaddr: none,
                mac,
                file: String::new(),
                options: vec![],
                relay_agent: vec![],
                max_size: None,
                to,
            };
            let lease = Lease { address, mac, expires: 1, hostname: None };
            queue.try_send(Pending { lease, reply: Some(reply) }).ok().unwrap();
        }
        drop(queue);
        let commits = Arc::new(Mutex::new(vec![]));
        let disk = Disk { full, client: Arc::clone(&client), commits: Arc::clone(&commits) };
        write_leases(waiting, disk, server, Ipv4Addr::LOCALHOST).await;
        let mut arrived = 0;
        let mut buffer = [0; 600];
        while arrived < 3 && !full {
            let (length, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((length, from.ip()), (300, Ipv4Addr::LOCALHOST.into()));
            arrived += 1;
        }
        assert!(client.try_recv(&mut buffer).is_err());
        let commits = commits.lock().unwrap().clone();
        (commits, arrived)
    }

    #[tokio::test]
    async fn leases_that_wait_are_written_at_once_and_then_acknowledged() {
        assert_eq!(written(false).await, (vec![3], 3));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_not_acknowledged() {
        assert_eq!(written(true).await, (vec![3], 0));
    }
}
