use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_inventory::{Decision, Sighting, Snapshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::engine::{Change, Note, Outcome, View, respond, silent};
use super::flood::{FLOOD, Flood};
use super::leases::Timestamp;
use super::ledger::Ledger;
use super::proxy::respond_4011;
use super::select::{Known, Site, select};
use super::transport::Transport;
use super::wire::Request;
use super::{Reply, ReplyKind};

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

/// Which port a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 67: addresses and boot files.
    Dhcp,
    /// 4011: boot files for machines that another server has given an address.
    BootServer,
}

/// Everything that one interface is served with.
#[derive(Debug)]
pub struct Service<O> {
    /// The interface.
    pub interface: String,
    /// The subnets that are reached by it.
    pub sites: Vec<Site>,
    /// The inventory, replaced when it changes.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The leases.
    pub ledger: Ledger,
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
    Writer,
}

/// Longest packet that is read; what is longer is cut, and its options end there.
const MAX_PACKET: usize = 4096;
/// How long to wait when the socket fails, for example while its interface is down.
const RETRY: Duration = Duration::from_millis(500);

/// Serves one port of one interface until the token is cancelled. Leases on their way are then still written and
/// acknowledged, by the task of the [`Ledger`].
///
/// # Errors
///
/// Returns an error when the socket cannot be used at all or the writer of leases has died. A network that is down
/// and a full disk are no reasons to end.
pub async fn serve<O: Observer>(
    socket: StdUdpSocket,
    port: Port,
    service: Arc<Service<O>>,
    token: CancellationToken,
) -> Result<(), ServeError> {
    let interface = &service.interface;
    let transport = Transport::new(socket, interface)
        .map_err(|source| ServeError::Socket { interface: interface.clone(), source })?;
    let transport = Arc::new(transport);
    let mut flood = Flood::default();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let received = tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = service.ledger.closed() => return Err(ServeError::Writer),
            received = transport.socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok((length, SocketAddr::V4(from))) => (length, from),
            Ok((_, SocketAddr::V6(_))) => continue,
            Err(error) => {
                warn!(iface = interface, %error, "could not receive DHCP packets; trying again");
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
        let reply = service.decide(&request, from, port, &transport, now);
        if let Some(reply) = reply {
            transport.send(&reply).await;
        }
    }
}

impl<O: Observer> Service<O> {
    /// Settles one request, and returns the reply that can leave at once. One that needs a lease leaves by itself,
    /// after the lease is on disk.
    fn decide(
        &self,
        request: &Request,
        from: SocketAddrV4,
        port: Port,
        transport: &Arc<Transport>,
        now: Timestamp,
    ) -> Option<Reply> {
        let snapshot = self.snapshot.load();
        let (outcome, reply) = self.ledger.with(|table| {
            let known = Known { snapshot: &snapshot, leases: table, now };
            let mut outcome = match select(&self.sites, request, *from.ip(), known) {
                Ok(Site { subnet, endpoints }) => {
                    let view = View { subnet, snapshot: &snapshot, leases: table, endpoints };
                    match port {
                        Port::Dhcp => respond(request, &view, now),
                        Port::BootServer => respond_4011(request, &view, from),
                    }
                }
                Err(note) => silent(note),
            };
            match outcome.change {
                Some(Change::Hold(address)) => table.hold(address, request.mac, now),
                Some(Change::DropHold) => table.drop_hold(request.mac),
                Some(Change::Quarantine(address)) => table.quarantine(address, now),
                None => {}
            }
            let reply = outcome.reply.clone();
            let Some(lease) = outcome.lease.take() else { return (outcome, reply) };
            let after = reply.map(|reply| (reply, Arc::clone(transport)));
            // Into memory only when it is on its way to disk: a dropped request leaves no trace.
            if !self.ledger.enter(table, lease, after) {
                warn!(mac = %request.mac, "request dropped: too many leases wait for the disk");
            }
            (outcome, None)
        });
        self.note(request, &outcome);
        reply
    }

    fn note(&self, request: &Request, outcome: &Outcome) {
        let told = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
        let reply = outcome.reply.as_ref();
        let given = reply.and_then(|reply| told(reply.yiaddr)).or_else(|| told(request.ciaddr));
        // Who takes another server's address says which one it is about to have.
        let taken = || request.requested().filter(|_| outcome.note == Note::OtherServer);
        let event = DhcpEvent {
            kind: reply.map(|reply| reply.kind),
            address: given.or_else(taken),
            note: outcome.note,
        };
        debug!(mac = %request.mac, xid = request.xid, kind = ?request.kind, reply = ?event.kind,
            address = ?event.address, "{}", event.note);
        if outcome.note == Note::PoolExhausted {
            warn!(mac = %request.mac, "no address left; widen the pool of the subnet");
        }
        if let Some(sighting) = &outcome.sighting {
            self.observer.seen(sighting, outcome.decision.as_ref(), event);
        }
    }
}
