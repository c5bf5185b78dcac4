use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_inventory::{Asker, Decision, Duid, Identifier, Place, Sighting, Snapshot};
use kiln_ipxe::Endpoints;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::classify::mac;
use super::encode::{Reply, ReplyKind};
use super::engine::{Outcome, View, respond, silent};
use super::ledger::{Ledger, send};
use super::note::Note;
use super::subnet::Subnet;
use super::table::LeaseTable;
use super::wire::{Kind, Request};
use crate::dhcp::Timestamp;
use crate::dhcp::classify::class_text;
use crate::dhcp::flood::{FLOOD, Flood};

/// Hears of every request. Must not block: it is called between two packets.
pub trait Observer: Send + Sync + 'static {
    /// A machine asked, and this is what it gets. `fresh` when it has just begun to ask.
    fn seen(
        &self,
        sighting: &Sighting,
        decision: Option<&Decision>,
        fresh: bool,
        address: Option<Ipv6Addr>,
    );

    /// A machine that nobody has added wants to boot, and this is where it is.
    fn unknown(&self, sighting: &Sighting, place: Place) {
        let _ = (sighting, place);
    }

    /// A packet came, and this became of it.
    fn counted(&self, what: Counted) {
        let _ = what;
    }
}

/// What became of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It was looked at.
    Answered {
        /// What was asked.
        asked: Kind,
        /// What is sent, if anything.
        reply: Option<ReplyKind>,
        /// Why.
        note: Note,
    },
    /// It makes no sense.
    Malformed,
    /// Its sender sends too many.
    Flood,
}

/// One subnet with the way that its machines reach us.
#[derive(Clone, Debug)]
pub struct Site {
    /// The subnet.
    pub subnet: Subnet,
    /// Where its machines reach us.
    pub endpoints: Endpoints,
}

/// Everything that one interface is served with.
#[derive(Debug)]
pub struct Service<O> {
    /// The interface.
    pub interface: String,
    /// The subnets that are reached by it.
    pub sites: Vec<Site>,
    /// What we call ourselves.
    pub server: Duid,
    /// The inventory, replaced when it changes.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The leases.
    pub ledger: Ledger,
    /// Who hears of the requests.
    pub observer: O,
}

/// The server cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Serve6Error {
    /// The socket is of no use.
    #[error("the DHCPv6 socket of {interface} cannot be used")]
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

/// Serves one interface until the token is cancelled. Leases on their way are then still written and told, by the
/// task of the [`Ledger`].
///
/// # Errors
///
/// Returns an error when the socket cannot be used at all or the writer of leases has died. A network that is down
/// and a full disk are no reasons to end.
pub async fn serve<O: Observer>(
    socket: StdUdpSocket,
    service: Arc<Service<O>>,
    token: CancellationToken,
) -> Result<(), Serve6Error> {
    let interface = &service.interface;
    let socket = UdpSocket::from_std(socket)
        .map_err(|source| Serve6Error::Socket { interface: interface.clone(), source })?;
    let socket = Arc::new(socket);
    let mut flood = Flood::default();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let received = tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = service.ledger.closed() => return Err(Serve6Error::Writer),
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok((length, SocketAddr::V6(from))) => (length, from),
            Ok((_, SocketAddr::V4(_))) => continue,
            Err(error) => {
                warn!(iface = interface, %error, "could not receive DHCPv6 packets; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let request = match Request::decode(buffer.get(..length).unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => {
                debug!(peer = %from, %error, "packet dropped");
                service.observer.counted(Counted::Malformed);
                continue;
            }
        };
        // Who sent it first: behind one relay there are many.
        let last = *from.ip();
        let sender = request.relays.last().map_or(last, |relay| relay.peer);
        if !flood.admits(sender, Timestamp::now()) {
            debug!(peer = %from, "packet dropped: more than {FLOOD} in a second");
            service.observer.counted(Counted::Flood);
            continue;
        }
        if let Some(reply) = service.decide(&request, from, &socket) {
            send(&socket, &reply).await;
        }
    }
}

impl<O: Observer> Service<O> {
    /// Settles one request, and returns the reply that can leave at once. One that needs a lease leaves by itself,
    /// after the lease is on disk.
    fn decide(
        &self,
        request: &Request,
        from: SocketAddrV6,
        socket: &Arc<UdpSocket>,
    ) -> Option<Reply> {
        let snapshot = self.snapshot.load();
        let (outcome, reply, network) = self.ledger.with(|table, now| {
            let site = select(&self.sites, request, *from.ip(), &snapshot, table);
            let network = site.map(|site| (site.subnet.network, site.subnet.prefix));
            let mut outcome = match site {
                Some(Site { subnet, endpoints }) => {
                    let view = View {
                        subnet,
                        snapshot: &snapshot,
                        leases: table,
                        endpoints,
                        server: &self.server,
                        source: from,
                    };
                    respond(request, &view, now)
                }
                None => silent(Note::OtherNetwork),
            };
            for (address, who) in outcome.holds.drain(..) {
                table.hold(address, who, now);
            }
            if let Some(network) = outcome.full {
                table.ours.note_full(network, now);
            }
            let reply = outcome.reply.clone();
            let leases = std::mem::take(&mut outcome.leases);
            let quarantine = std::mem::take(&mut outcome.quarantine);
            let reply = if leases.is_empty() {
                reply
            } else {
                let after = reply.map(|reply| (reply, Arc::clone(socket)));
                // Into memory only when it is on its way to disk: a dropped request leaves no trace.
                if !self.ledger.enter(table, leases, after) {
                    warn!(peer = %from, "request dropped: too many leases wait for the disk");
                }
                None
            };
            quarantine.into_iter().for_each(|address| table.quarantine(address, now));
            (outcome, reply, network)
        });
        self.note(request, from, &outcome, network);
        reply
    }

    fn note(
        &self,
        request: &Request,
        from: SocketAddrV6,
        outcome: &Outcome,
        network: Option<(Ipv6Addr, u8)>,
    ) {
        let sent = outcome.reply.as_ref().map(|reply| reply.kind);
        debug!(peer = %from, mac = ?mac(request, *from.ip()), kind = ?request.kind, reply = ?sent,
            address = ?outcome.address, "{}", outcome.note);
        let (asked, note) = (request.kind, outcome.note);
        self.observer.counted(Counted::Answered { asked, reply: sent, note });
        let gives = self.sites.iter().any(|site| !site.subnet.pool.is_empty());
        if outcome.note == Note::NoAddress && gives {
            warn!(peer = %from, "no address of IPv6 left; widen the pool of the subnet");
        }
        if let Some(sighting) = &outcome.sighting {
            let fresh = sent == Some(ReplyKind::Advertise)
                || (request.kind == Kind::Solicit && sent.is_some());
            self.observer.seen(sighting, outcome.decision.as_ref(), fresh, outcome.address);
            let unknown = outcome.decision.as_ref().is_some_and(|decision| {
                decision.machine.as_ref().is_none_or(|machine| machine.id.is_unknown())
            });
            if unknown && sighting.asker != Asker::System {
                let place = place(request, from, network, outcome.address);
                self.observer.unknown(sighting, place);
            }
        }
    }
}

/// Returns all that a request tells of where a machine is, and what it is.
fn place(
    request: &Request,
    from: SocketAddrV6,
    network: Option<(Ipv6Addr, u8)>,
    address: Option<Ipv6Addr>,
) -> Place {
    let nearest = request.relays.last();
    Place {
        subnet: network.map(|(network, prefix)| format!("{network}/{prefix}")),
        relay: nearest.map(|_| IpAddr::V6(*from.ip())),
        circuit_id: nearest
            .and_then(|relay| relay.interface_id.as_deref())
            .and_then(Identifier::from_bytes),
        address: address.map(IpAddr::V6),
        hostname: None,
        vendor_class: request.vendor_class.as_deref().and_then(class_text),
        duid: request.client.clone(),
    }
}

/// Finds the subnet that a request belongs to.
///
/// A relay names its link; of several relays the one nearest to the client that does counts. Who sends to us directly
/// is on the link of the interface, where several subnets may be: then the one counts that has something for the
/// client already, or of which it names an address, or else the first. Who asks whether its addresses are right for the
/// link is told of those (RFC 8415 §18.3.3). A sender from elsewhere has no business here without a relay.
fn select<'a>(
    sites: &'a [Site],
    request: &Request,
    from: Ipv6Addr,
    snapshot: &Snapshot,
    leases: &LeaseTable,
) -> Option<&'a Site> {
    let on_link =
        |address: &Ipv6Addr| !address.is_unspecified() && !address.is_unicast_link_local();
    if !request.relays.is_empty() {
        let link = request.relays.iter().rev().map(|relay| relay.link).find(on_link)?;
        return sites.iter().find(|site| site.subnet.contains(link));
    }
    let here = || sites.iter().filter(|site| !site.subnet.relayed);
    if !from.is_unicast_link_local() {
        return here().find(|site| site.subnet.contains(from));
    }
    let client = request.client.as_ref();
    let machine = mac(request, from).and_then(|mac| snapshot.machine_by_mac(mac));
    let reserved = machine.and_then(|machine| machine.spec.address6);
    let leased = || {
        let iaid = request.associations.first()?.iaid;
        leases.of(client?, iaid).map(|lease| lease.address)
    };
    let has = |address: Ipv6Addr| here().find(|site| site.subnet.contains(address));
    let named = || request.associations.iter().flat_map(|ia| &ia.addresses).find_map(|it| has(*it));
    let known = || reserved.and_then(has).or_else(|| leased().and_then(has));
    let first = || here().next();
    match request.kind {
        Kind::Confirm => named().or_else(first),
        _ => known().or_else(named).or_else(first),
    }
}

#[cfg(test)]
mod tests {
    use super::super::option;
    use super::super::wire::Relay;
    use super::super::wire::tests::{ia, message};
    use super::super::world::World;
    use super::*;

    #[test]
    fn of_several_subnets_on_a_link_the_one_counts_whose_address_a_client_names() {
        let World { subnet, snapshot, leases, endpoints, .. } = World::new();
        let other = Subnet { network: "fd78::".parse().unwrap(), ..subnet.clone() };
        let sites = [subnet, other].map(|subnet| Site { subnet, endpoints });
        let from = "fe80::5054:ff:fe77:2".parse().unwrap();
        let chosen = |kind: u8, address: Option<&str>| {
            let duid = [0, 4, 9];
            let server = (option::SERVER_ID, &[0, 4, 0xaa, 0xbb][..]);
            let association = ia(1, address);
            let mut all = vec![(option::CLIENT_ID, &duid[..]), (option::IA_NA, &association)];
            all.extend((kind == 5).then_some(server));
            let request = Request::decode(&message(kind, &all)).unwrap();
            let site = |from| select(&sites, &request, from, &snapshot, &leases);
            // The first has an address reserved for its machine.
            let known = site(from).map(|site| site.subnet.network.segments()[0]);
            let stranger = site("fe80::1".parse().unwrap());
            (stranger.map(|site| site.subnet.network.segments()[0]), known)
        };
        let (first, second) = (Some(0xfd77), Some(0xfd78));
        assert_eq!(chosen(1, None), (first, first));
        for kind in [1, 5, 6] {
            assert_eq!(chosen(kind, Some("fd78::5")), (second, first), "{kind}");
        }
        assert_eq!(chosen(4, Some("fd78::5")), (second, second), "is it right for the link?");
        assert_eq!(chosen(4, Some("fd79::5")), (first, first));
    }

    #[test]
    fn what_a_packet_tells_of_an_unknown_machine_is_passed_on() {
        let from = SocketAddrV6::new("fd00::53".parse().unwrap(), 547, 0, 0);
        let mut request = Request {
            kind: Kind::Solicit,
            xid: [1, 2, 3],
            client: Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 9]),
            server: None,
            associations: Vec::new(),
            others: Vec::new(),
            rapid_commit: false,
            user_classes: Vec::new(),
            vendor_class: Some(b"PXEClient:Arch:00007\x1b[2J\xff".to_vec()),
            architecture: Some(7),
            relays: Vec::new(),
        };
        let network = Some(("fd00::".parse().unwrap(), 64));
        let address = "fd00::9".parse().ok();
        let near = place(&request, from, network, address);
        assert_eq!(near.subnet.as_deref(), Some("fd00::/64"));
        assert_eq!((near.relay, near.circuit_id), (None, None));
        assert_eq!(near.vendor_class.as_deref(), Some("PXEClient:Arch:00007[2J"));
        assert_eq!((near.duid, near.address), (request.client.clone(), address.map(IpAddr::V6)));
        request.relays.push(Relay {
            hops: 0,
            link: "fd00::1".parse().unwrap(),
            peer: "fe80::9".parse().unwrap(),
            interface_id: Some(b"eth7".to_vec()),
            mac: None,
        });
        let far = place(&request, from, None, None);
        assert_eq!(far.relay, Some(IpAddr::V6(*from.ip())));
        assert_eq!((far.circuit_id, far.subnet), ("eth7".parse().ok(), None));
    }
}
