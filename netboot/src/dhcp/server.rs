use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_inventory::{Asker, Decision, Identifier, Place, Sighting, Snapshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::classify::class_text;
use super::engine::{Change, Note, Outcome, View, respond, silent};
use super::flood::{FLOOD, Flood};
use super::leases::Timestamp;
use super::ledger::Ledger;
use super::option;
use super::probe::{Begun, Probes, Waiting};
use super::proxy::respond_4011;
use super::rival::rival;
use super::seldom::Seldom;
use super::select::{Known, Site, select};
use super::subnet::{Network, Role, Subnet};
use super::transport::Transport;
use super::wire::{Kind, Request};
use super::{Reply, ReplyKind};
use crate::net::{ArpSocket, Heard};
use crate::observe::COUNTS;

/// Hears of every request. Must not block: it is called between two packets.
pub trait Observer: Send + Sync + 'static {
    /// A machine asked, and this is what it gets.
    fn seen(&self, sighting: &Sighting, decision: Option<&Decision>, event: DhcpEvent);

    /// A machine that nobody has added wants to boot, and this is where it is.
    fn unknown(&self, sighting: &Sighting, place: Place) {
        let _ = (sighting, place);
    }
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpEvent {
    /// What was asked.
    pub asked: Kind,
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
    /// Tells of requests that find no room on their way to the disk.
    full: Mutex<Seldom>,
}

/// What becomes of one request.
#[derive(Debug)]
struct Settled {
    /// What is answered, at once or after a lease is on disk, and with which address.
    said: Option<(ReplyKind, Ipv4Addr)>,
    /// The answer that can leave at once.
    reply: Option<Reply>,
    probe: Option<Ipv4Addr>,
    sighting: Option<Sighting>,
    decision: Option<Decision>,
    network: Option<Network>,
    note: Note,
    /// Another server that it has chosen, where there should be none.
    rival: Option<Ipv4Addr>,
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

/// Packets that are taken at a time, before anything else is looked at.
const BATCH: usize = 64;

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
    let mut wire = Wire {
        port,
        transport: Arc::new(transport),
        arp: service.arp(port),
        probes: Probes::default(),
        service: &service,
    };
    let mut flood = Flood::default();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let end = wire.probes.next_end();
        let ready = tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = service.ledger.closed() => return Err(ServeError::Writer),
            heard = wire.heard() => { wire.in_use(heard); continue }
            () = tokio::time::sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                wire.over();
                continue;
            }
            ready = wire.transport.socket.readable() => ready,
        };
        if let Err(error) = ready.and_then(|()| wire.take(&mut buffer, &mut flood)) {
            warn!(iface = interface, %error, "could not receive DHCP packets; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// One port of one interface, while it is served.
struct Wire<'a, O> {
    port: Port,
    transport: Arc<Transport>,
    /// To see who uses an address. Without it offers are made without a look.
    arp: Option<ArpSocket>,
    probes: Probes,
    service: &'a Service<O>,
}

impl<O: Observer> Wire<'_, O> {
    /// Takes and answers the packets that are there.
    fn take(&mut self, buffer: &mut [u8], flood: &mut Flood) -> io::Result<()> {
        for _ in 0..BATCH {
            let (length, from) = match self.transport.socket.try_recv_from(buffer) {
                Ok((length, SocketAddr::V4(from))) => (length, from),
                Ok((_, SocketAddr::V6(_))) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let request = match Request::decode(buffer.get(..length).unwrap_or_default()) {
                Ok(request) => request,
                Err(error) => {
                    COUNTS.dhcp_malformed.add(1);
                    debug!(peer = %from, %error, "packet dropped");
                    continue;
                }
            };
            if flood.admits(request.mac, Timestamp::now()) {
                self.answer(Waiting::new(request, from), true);
            } else {
                COUNTS.dhcp_flood.add(1);
                debug!(mac = %request.mac, "packet dropped: more than {FLOOD} in a second");
            }
        }
        Ok(())
    }

    /// Answers a request at once, or lets it wait until it is known whether someone uses the address.
    fn answer(&mut self, waiting: Waiting, look: bool) {
        let outcome =
            self.service.decide(&waiting.request, waiting.from, self.port, &self.transport);
        let probe = outcome.probe.filter(|_| look).zip(self.arp.as_ref());
        let Some((address, arp)) = probe else {
            self.send(&waiting, &outcome);
            return;
        };
        match self.probes.begin(address, waiting, Instant::now()) {
            Begun::Already => {}
            Begun::Ask => {
                if let Err(error) = arp.ask(address) {
                    debug!(%address, %error, "could not ask whether an address is in use");
                }
            }
            Begun::Full(waiting) => self.send(&waiting, &outcome),
        }
    }

    fn send(&self, waiting: &Waiting, outcome: &Settled) {
        if let Some(reply) = &outcome.reply {
            self.transport.send(reply);
            if reply.kind == ReplyKind::Offer {
                COUNTS.offer.observe(waiting.since.elapsed());
            }
        }
        self.service.note(&waiting.request, outcome);
    }

    /// Waits for a host that tells its address.
    async fn heard(&self) -> io::Result<Heard> {
        match &self.arp {
            Some(arp) => arp.heard().await,
            None => std::future::pending().await,
        }
    }

    /// Takes in that a host has an address.
    fn in_use(&mut self, heard: io::Result<Heard>) {
        let Heard { address, mac } = match heard {
            Ok(heard) => heard,
            Err(error) => {
                // Down for a moment, perhaps; offers do not wait for it.
                debug!(iface = self.service.interface, %error, "could not hear ARP");
                return;
            }
        };
        // Who has it already may be offered it.
        let other = self.probes.waits_for(address).is_some_and(|w| w.request.mac != mac);
        let Some(mut waiting) = other.then(|| self.probes.in_use(address)).flatten() else {
            return;
        };
        warn!(%address, by = %mac, mac = %waiting.request.mac,
            "address is in use without a lease; it is offered to no one for ten minutes");
        self.service.ledger.with(|table, now| {
            table.drop_hold(waiting.request.mac);
            table.quarantine(address, now);
        });
        if waiting.tries_again() {
            self.answer(waiting, true);
        }
    }

    /// Answers those that have waited long enough.
    fn over(&mut self) {
        while let Some((address, waiting)) = self.probes.over(Instant::now()) {
            let mac = waiting.request.mac;
            self.service.ledger.with(|table, _| table.note_probed(address, mac));
            self.answer(waiting, false);
        }
    }
}

impl<O: Observer> Service<O> {
    /// Puts together what one interface is served with.
    pub fn new(
        interface: String,
        sites: Vec<Site>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        ledger: Ledger,
        observer: O,
    ) -> Self {
        Self { interface, sites, snapshot, ledger, observer, full: Mutex::default() }
    }

    /// Opens what offers are made with after a look at the wire.
    fn arp(&self, port: Port) -> Option<ArpSocket> {
        let wanted = |site: &Site| {
            let Subnet { role, relayed, rules, .. } = &site.subnet;
            *role == Role::Server && !relayed && rules.probe
        };
        if port != Port::Dhcp || !self.sites.iter().any(wanted) {
            return None;
        }
        let said = "no ARP: addresses are offered without a look whether they are in use";
        ArpSocket::open(&self.interface)
            .inspect_err(|error| warn!(iface = self.interface, %error, "{said}"))
            .ok()
    }

    /// Settles one request. A reply that needs a lease leaves by itself, after the lease is on disk.
    fn decide(
        &self,
        request: &Request,
        from: SocketAddrV4,
        port: Port,
        transport: &Arc<Transport>,
    ) -> Settled {
        let snapshot = self.snapshot.load();
        self.ledger.with(|table, now| {
            let known = Known { snapshot: &snapshot, leases: table, now };
            let (mut network, mut here) = (None, None);
            let outcome = match select(&self.sites, request, *from.ip(), known) {
                Ok(Site { subnet, endpoints }) => {
                    network = Some(subnet.network);
                    here = Some(subnet);
                    let view = View { subnet, snapshot: &snapshot, leases: table, endpoints };
                    match port {
                        Port::Dhcp => respond(request, &view, now),
                        Port::BootServer => respond_4011(request, &view, from),
                    }
                }
                Err(note) => silent(note),
            };
            let Outcome { mut reply, lease, change, probe, sighting, decision, note } = outcome;
            let own = |server: &Ipv4Addr| self.sites.iter().any(|it| it.subnet.address == *server);
            let rival = here
                .and_then(|subnet| rival(request, note, subnet, table, &snapshot))
                .filter(|server| !own(server));
            match change {
                Some(Change::Hold(address)) => table.hold(address, request.mac, now),
                Some(Change::DropHold) => table.drop_hold(request.mac),
                Some(Change::Quarantine(address)) => table.quarantine(address, now),
                Some(Change::Full(network)) => table.ours.note_full(network.to_bits(), now),
                None => {}
            }
            let said = reply.as_ref().map(|reply| (reply.kind, reply.yiaddr));
            if let Some(lease) = lease {
                let after = reply.take().map(|reply| (reply, Arc::clone(transport)));
                // Into memory only when it is on its way to disk: a dropped request leaves no trace.
                if !self.ledger.enter(table, lease, after) {
                    let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(requests) = full.tell(Instant::now()) {
                        warn!(requests, "requests dropped: too many leases wait for the disk");
                    }
                }
            }
            Settled { said, reply, probe, sighting, decision, network, note, rival }
        })
    }

    fn note(&self, request: &Request, outcome: &Settled) {
        let told = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
        let (kind, yiaddr) = outcome.said.unzip();
        let given = yiaddr.and_then(told).or_else(|| told(request.ciaddr));
        // Who takes another server's address says which one it is about to have.
        let taken = || request.requested().filter(|_| outcome.note == Note::OtherServer);
        let event = DhcpEvent {
            asked: request.kind,
            kind,
            address: given.or_else(taken),
            note: outcome.note,
        };
        COUNTS.packet(&event);
        debug!(mac = %request.mac, xid = request.xid, kind = ?request.kind, reply = ?event.kind,
            address = ?event.address, "{}", event.note);
        if let Some(server) = outcome.rival.filter(|it| COUNTS.rivals.chosen(*it, Instant::now())) {
            warn!(%server, iface = self.interface, "another DHCP server gives addresses here: stop it, or serve beside \
                it (`dhcp = \"proxy\"` of the [[subnet]])");
        }
        if outcome.note == Note::PoolExhausted {
            warn!(mac = %request.mac, "no address left; widen the pool of the subnet");
        }
        if let Some(sighting) = &outcome.sighting {
            self.observer.seen(sighting, outcome.decision.as_ref(), event);
            let unknown = outcome.decision.as_ref().is_some_and(|decision| {
                decision.machine.as_ref().is_none_or(|machine| machine.id.is_unknown())
            });
            if unknown && sighting.asker != Asker::System {
                let place = Place {
                    subnet: outcome.network.map(|network| network.to_string()),
                    relay: told(request.giaddr).map(Into::into),
                    circuit_id: request.circuit_id().and_then(Identifier::from_bytes),
                    address: event.address.map(Into::into),
                    hostname: request.hostname(),
                    vendor_class: request.option(option::VENDOR_CLASS).and_then(class_text),
                    duid: None,
                };
                self.observer.unknown(sighting, place);
            }
        }
    }
}
