use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use kiln_inventory::{Asker, Decision, Duid, Lease6, Plan, Sighting, Snapshot, decide};
use kiln_ipxe::{BootFile, Endpoints, boot_file};

use super::address::choose;
use super::classify::{HTTP_CLIENT, classify, is_http, mac};
use super::encode::{Options, Reply, ReplyKind, status};
use super::note::Note;
use super::option;
use super::subnet::{Mode, Subnet};
use super::table::{Holder, LeaseTable};
use super::wire::{Association, Kind, OtherKind, Request};
use crate::dhcp::Timestamp;

/// Ports of clients and of servers and relays (RFC 8415 §7.2).
const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// Whose vendor class HTTP Boot is: Intel's number, as UEFI has it.
const UEFI_ENTERPRISE: u32 = 343;
/// What is said of an association with `NoBinding`.
const UNKNOWN: &str = "not an association that is known here";
/// How long what a client without a lease was told is good.
const REFRESH: u32 = 3600;

/// Everything that a reply depends on besides the request and the time.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The network the request came from.
    pub subnet: &'a Subnet,
    /// The inventory.
    pub snapshot: &'a Snapshot,
    /// Who has which address.
    pub leases: &'a LeaseTable,
    /// Where machines of the network reach us.
    pub endpoints: &'a Endpoints,
    /// What we call ourselves.
    pub server: &'a Duid,
    /// Where the packet came from.
    pub source: SocketAddrV6,
}

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is sent. When there are leases, only after they are on disk.
    pub reply: Option<Reply>,
    /// Leases that were given, renewed or ended.
    pub leases: Vec<Lease6>,
    /// Addresses that are kept for who asks.
    pub holds: Vec<(Ipv6Addr, Holder)>,
    /// Addresses that someone uses without a lease.
    pub quarantine: Vec<Ipv6Addr>,
    /// The network, when it has no address left.
    pub full: Option<Ipv6Addr>,
    /// First address that the client gets.
    pub address: Option<Ipv6Addr>,
    /// Who asked, when it asked for something and its hardware address is known.
    pub sighting: Option<Sighting>,
    /// What it gets.
    pub decision: Option<Decision>,
    /// Why the reply is what it is.
    pub note: Note,
}

/// Returns what is to be done about a request. Pure: no I/O, no clock, and nothing is changed.
pub fn respond(request: &Request, view: &View<'_>, now: Timestamp) -> Outcome {
    if request.server.as_deref().is_some_and(|server| server != view.server.as_bytes()) {
        return silent(Note::OtherServer);
    }
    let turn = Turn { request, view, now, mac: mac(request, *view.source.ip()) };
    match request.kind {
        Kind::Release => return turn.release(),
        Kind::Decline => return turn.decline(),
        Kind::Confirm => return turn.confirm(),
        // One that names an association is not to be answered (RFC 8415 §16.12).
        Kind::Inform if !request.associations.is_empty() || !request.others.is_empty() => {
            return silent(Note::NotItsAddress);
        }
        Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind | Kind::Inform => {}
    }
    let sighting = classify(request, *view.source.ip(), view.snapshot);
    let decision = sighting.as_ref().map(|sighting| decide(view.snapshot, sighting));
    if decision.as_ref().is_some_and(|decision| matches!(decision.plan, Plan::Ignore)) {
        return Outcome { sighting, decision, ..silent(Note::Ignored) };
    }
    let boot = match (&sighting, &decision) {
        (Some(sighting), Some(decision)) => boot_file(decision, sighting, view.endpoints),
        _ => BootFile::None,
    };
    let firmware = sighting.as_ref().is_some_and(|s| s.asker == Asker::Firmware);
    let mut rest = Options::default();
    turn.rest(&boot, firmware, &mut rest);
    let outcome = match request.kind {
        Kind::Inform => {
            rest.put(option::REFRESH_TIME, &REFRESH.to_be_bytes());
            let reply = Some(turn.reply(ReplyKind::Reply, rest));
            Outcome { reply, ..silent(Note::Informed) }
        }
        Kind::Solicit => turn.solicit(rest),
        _ => turn.give(rest),
    };
    Outcome { sighting, decision, ..outcome }
}

pub(super) const fn silent(note: Note) -> Outcome {
    Outcome {
        reply: None,
        leases: Vec::new(),
        holds: Vec::new(),
        quarantine: Vec::new(),
        full: None,
        address: None,
        sighting: None,
        decision: None,
        note,
    }
}

/// One request in the place where it is answered.
struct Turn<'a> {
    request: &'a Request,
    view: &'a View<'a>,
    now: Timestamp,
    mac: Option<kiln_types::Mac>,
}

impl Turn<'_> {
    /// Puts who asks and who answers before the rest, and the relays around it.
    fn reply(&self, kind: ReplyKind, rest: Options) -> Reply {
        let mut options = Options::default();
        if let Some(client) = &self.request.client {
            options.identifier(option::CLIENT_ID, client);
        }
        options.identifier(option::SERVER_ID, self.view.server);
        options.0.extend(rest.0);
        let source = self.view.source;
        let port = if self.request.relays.is_empty() { CLIENT_PORT } else { SERVER_PORT };
        Reply {
            kind,
            xid: self.request.xid,
            options,
            relays: self.request.relays.clone(),
            to: SocketAddrV6::new(*source.ip(), port, 0, source.scope_id()),
        }
    }

    /// Adds what goes with an address: name servers and the boot file.
    fn rest(&self, boot: &BootFile, firmware: bool, options: &mut Options) {
        let subnet = self.view.subnet;
        if !subnet.dns.is_empty() {
            options.addresses(option::DNS_SERVERS, &subnet.dns);
        }
        if let Some(domain) = &subnet.domain {
            options.domain(domain);
        }
        let Some(url) = boot.url() else { return };
        options.put(option::BOOT_FILE_URL, url.as_bytes());
        // EDK2 takes an offer for one of HTTP Boot by this class only, and stops without it. There are no parameters of
        // the boot file (RFC 5970 §3.2) to tell: loaders get theirs in the script.
        if firmware && is_http(self.request) {
            options.vendor_class(UEFI_ENTERPRISE, HTTP_CLIENT);
        }
    }

    /// Says of associations with what we do not give that there is nothing, lest their client ask again and again
    /// (RFC 8415 §18.3.1, §18.3.4). Who asks every server whether it may keep something gets no answer: its own may know
    /// better.
    fn others(&self, options: &mut Options) {
        for other in &self.request.others {
            let (code, message) = match (self.request.kind, other.of) {
                (Kind::Solicit | Kind::Request, OtherKind::Temporary) => {
                    (status::NO_ADDRESSES, "no temporary address to give")
                }
                (Kind::Solicit | Kind::Request, OtherKind::Prefixes) => {
                    (status::NO_PREFIXES, "no prefix to give")
                }
                (Kind::Renew | Kind::Release | Kind::Decline, _) => (status::NO_BINDING, UNKNOWN),
                (Kind::Rebind | Kind::Confirm | Kind::Inform, _) => continue,
            };
            options.refused(*other, code, message);
        }
    }

    fn holder(&self, ia: &Association) -> Option<Holder> {
        Some(Holder { duid: self.request.client.clone()?, iaid: ia.iaid, mac: self.mac })
    }

    fn choose(&self, who: &Holder, wanted: &[Ipv6Addr], taken: &[Ipv6Addr]) -> Option<Ipv6Addr> {
        let View { subnet, snapshot, leases, .. } = *self.view;
        choose(subnet, snapshot, leases, who, wanted, taken, self.now)
    }

    /// Returns the network whose pool was looked through in vain.
    fn full(&self) -> Option<Ipv6Addr> {
        Some(self.view.subnet).filter(|it| it.mode == Mode::Stateful).map(|it| it.network)
    }

    /// Returns how long an address is given: where the pool is shared with other servers, no longer than our claim to it
    /// lasts.
    fn time_of(&self, address: Ipv6Addr) -> Duration {
        let View { subnet, leases, .. } = *self.view;
        let longest = leases.ours.longest().filter(|_| subnet.pool_has(address));
        longest.map_or(subnet.lease_time, |longest| longest.min(subnet.lease_time))
    }

    fn seconds(&self, address: Ipv6Addr) -> u32 {
        u32::try_from(self.time_of(address).as_secs()).unwrap_or(u32::MAX)
    }

    fn lease(&self, address: Ipv6Addr, who: Holder) -> Lease6 {
        let Holder { duid, iaid, mac } = who;
        let expires = self.now.after(self.time_of(address)).0;
        Lease6 { address, duid, iaid, mac, expires }
    }

    fn solicit(&self, rest: Options) -> Outcome {
        if self.request.rapid_commit && self.view.subnet.rapid_commit {
            let mut options = Options::default();
            options.put(option::RAPID_COMMIT, &[]);
            options.0.extend(rest.0);
            return self.give(options);
        }
        let mut options = Options::default();
        let mut outcome = silent(Note::NoAddress);
        for ia in &self.request.associations {
            let Some(who) = self.holder(ia) else { continue };
            let mut inside = Options::default();
            let taken: Vec<Ipv6Addr> = outcome.holds.iter().map(|held| held.0).collect();
            let chosen = self.choose(&who, &ia.addresses, &taken);
            match chosen {
                Some(address) => {
                    inside.address(address, self.seconds(address));
                    outcome.address = outcome.address.or(Some(address));
                    outcome.holds.push((address, who));
                    outcome.note = Note::Offered;
                }
                None => {
                    inside.status(status::NO_ADDRESSES, "no address to give");
                    outcome.full = self.full();
                }
            }
            options.association(ia.iaid, chosen.map_or(0, |it| self.seconds(it)), &inside);
        }
        self.others(&mut options);
        options.put(option::PREFERENCE, &[self.view.subnet.preference]);
        options.0.extend(rest.0);
        outcome.reply = Some(self.reply(ReplyKind::Advertise, options));
        outcome
    }

    /// Gives or renews addresses: the answer to REQUEST, RENEW and REBIND, and to a SOLICIT that one answer is enough for.
    fn give(&self, rest: Options) -> Outcome {
        let mut options = Options::default();
        let mut outcome = silent(Note::NoAddress);
        for ia in &self.request.associations {
            let Some(who) = self.holder(ia) else { continue };
            let mut inside = Options::default();
            let mut seconds = 0;
            let elsewhere = |address: &&Ipv6Addr| !self.view.subnet.contains(**address);
            let renews = matches!(self.request.kind, Kind::Renew | Kind::Rebind);
            let taken: Vec<Ipv6Addr> = outcome.leases.iter().map(|it| it.address).collect();
            let chosen = self.choose(&who, &ia.addresses, &taken);
            if self.request.kind == Kind::Request
                && ia.addresses.iter().any(|address| elsewhere(&address))
            {
                inside.status(status::NOT_ON_LINK, "the address is of another network");
                outcome.note = Note::WrongNetwork;
            } else if let Some(address) = chosen.filter(|address| self.may_have(ia, *address)) {
                seconds = self.seconds(address);
                inside.address(address, seconds);
                outcome.address = outcome.address.or(Some(address));
                outcome.leases.push(self.lease(address, who));
                outcome.note = Note::Given;
                // What it has besides, it has no longer.
                for old in ia.addresses.iter().filter(|old| renews && **old != address) {
                    inside.address(*old, 0);
                }
            } else if renews {
                match self.request.kind {
                    // Its server may know better.
                    Kind::Rebind if !ia.addresses.iter().any(|address| elsewhere(&address)) => {
                        continue;
                    }
                    Kind::Rebind => ia.addresses.iter().for_each(|old| inside.address(*old, 0)),
                    _ => inside.status(status::NO_BINDING, UNKNOWN),
                }
                outcome.note = Note::NotItsAddress;
            } else {
                inside.status(status::NO_ADDRESSES, "no address to give");
                outcome.full = self.full();
            }
            options.association(ia.iaid, seconds, &inside);
        }
        let silence = self.request.kind == Kind::Rebind && options.0.is_empty();
        if silence {
            return silent(Note::NotItsAddress);
        }
        self.others(&mut options);
        options.0.extend(rest.0);
        outcome.reply = Some(self.reply(ReplyKind::Reply, options));
        outcome
    }

    /// Returns whether a client that renews is to get this address: it has it by our memory, it has it by its own and
    /// nobody else does, or another one is now reserved for it.
    fn may_have(&self, ia: &Association, address: Ipv6Addr) -> bool {
        let renews = matches!(self.request.kind, Kind::Renew | Kind::Rebind);
        let known = || {
            let duid = self.request.client.as_ref()?;
            self.view.leases.of(duid, ia.iaid)
        };
        !renews || ia.addresses.contains(&address) || known().is_some()
    }

    /// Says whether a client that was moved, or woke up, is where its addresses belong (RFC 8415 §18.3.3).
    fn confirm(&self) -> Outcome {
        let mut addresses =
            self.request.associations.iter().flat_map(|ia| &ia.addresses).peekable();
        if addresses.peek().is_none() {
            return silent(Note::NotItsAddress);
        }
        let mut options = Options::default();
        let note = if addresses.all(|address| self.view.subnet.contains(*address)) {
            options.status(status::SUCCESS, "the addresses are right here");
            Note::Confirmed
        } else {
            options.status(status::NOT_ON_LINK, "the addresses are of another network");
            Note::WrongNetwork
        };
        Outcome { reply: Some(self.reply(ReplyKind::Reply, options)), ..silent(note) }
    }

    /// Returns the lease that the client has on an address that it names.
    fn lease_of(&self, ia: &Association, address: Ipv6Addr) -> Option<&Lease6> {
        let lease = self.view.leases.of(self.request.client.as_ref()?, ia.iaid)?;
        (lease.address == address).then_some(lease)
    }

    fn release(&self) -> Outcome {
        self.end(Note::Released, "released", |_, _| false)
    }

    /// Only who was given or offered an address can have it put in quarantine; else one client could empty the pool.
    fn decline(&self) -> Outcome {
        let mut outcome = self.end(Note::Declined, "declined", |ia, address| {
            let who = self.holder(ia);
            who.is_some_and(|who| self.view.leases.is_held_for(address, &who, self.now))
        });
        let named = self.request.associations.iter();
        outcome.quarantine = named
            .flat_map(|ia| ia.addresses.iter().map(move |address| (ia, *address)))
            .filter(|(ia, address)| {
                let held = self
                    .holder(ia)
                    .is_some_and(|who| self.view.leases.is_held_for(*address, &who, self.now));
                held || self.lease_of(ia, *address).is_some()
            })
            .map(|(_, address)| address)
            .collect();
        outcome
    }

    /// Ends the leases that the client names, and says of which associations it has none (RFC 8415 §18.3.7).
    fn end(
        &self,
        note: Note,
        done: &str,
        also: impl Fn(&Association, Ipv6Addr) -> bool,
    ) -> Outcome {
        let mut options = Options::default();
        options.status(status::SUCCESS, done);
        let mut outcome = silent(Note::NotItsAddress);
        for ia in &self.request.associations {
            let mut known = false;
            for address in &ia.addresses {
                if let Some(lease) = self.lease_of(ia, *address) {
                    let expires = lease.expires.min(self.now.0);
                    outcome.leases.push(Lease6 { expires, ..lease.clone() });
                    known = true;
                }
                known |= also(ia, *address);
            }
            if known {
                outcome.note = note;
            } else {
                let mut inside = Options::default();
                inside.status(status::NO_BINDING, UNKNOWN);
                options.association(ia.iaid, 0, &inside);
            }
        }
        self.others(&mut options);
        outcome.reply = Some(self.reply(ReplyKind::Reply, options));
        outcome
    }
}
