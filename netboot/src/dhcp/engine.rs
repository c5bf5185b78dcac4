use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_inventory::{Decision, Lease, Machine, Plan, Sighting, Snapshot, decide};
use kiln_ipxe::Endpoints;

use super::address::{Wish, choose, owner};
use super::answer::{self, Given};
use super::classify::classify;
use super::encode::{Reply, ReplyKind};
use super::leases::{LeaseTable, Timestamp};
use super::option;
use super::proxy;
use super::subnet::{Role, Subnet};
use super::wire::{Kind, Request};

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
}

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is sent. An acknowledgement only after [`lease`](Self::lease) is on disk.
    pub reply: Option<Reply>,
    /// Lease that was given, renewed or ended. To be taken into the table at once and made durable.
    pub lease: Option<Lease>,
    /// What happens to addresses besides leases.
    pub change: Option<Change>,
    /// Address that has to be asked for on the wire before the reply leaves: nobody may use it.
    pub probe: Option<Ipv4Addr>,
    /// Who asked, when it asked for something.
    pub sighting: Option<Sighting>,
    /// What it gets.
    pub decision: Option<Decision>,
    /// Why the reply is what it is.
    pub note: Note,
}

/// A change to the table that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The address is kept for a short time for the machine that asks.
    Hold(Ipv4Addr),
    /// What was offered to the machine is free again.
    DropHold,
    /// Someone uses the address without a lease.
    Quarantine(Ipv4Addr),
    /// The network has no address left.
    Full(Ipv4Addr),
}

/// Why a request was answered as it was, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// An address was offered.
    Offered,
    /// An address was given.
    Given,
    /// The rest was told to a machine that has an address.
    Informed,
    /// An address was given back.
    Released,
    /// An address is in use by someone else.
    Declined,
    /// The address is not the client's; it has to begin again.
    WrongAddress,
    /// A boot file was offered, beside another server's address.
    BootOffered,
    /// A boot file was told at port 4011.
    BootGiven,
    /// The plan is not to answer.
    Ignored,
    /// The client has chosen another server.
    OtherServer,
    /// The request comes from a network that is not served here.
    OtherNetwork,
    /// The client speaks of an address that it does not have.
    NotItsAddress,
    /// Every address is taken.
    PoolExhausted,
    /// We know nothing of the address, and another server may.
    NotOurs,
    /// Another server of the same inventory gives the address, or none does at this time.
    OtherPool,
}

impl Note {
    /// Returns the words for logs and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "address offered",
            Self::Given => "address given",
            Self::Informed => "options told",
            Self::Released => "address given back",
            Self::Declined => "address is in use by someone else",
            Self::WrongAddress => "not its address, has to begin again",
            Self::BootOffered => "boot file offered beside another server",
            Self::BootGiven => "boot file told at port 4011",
            Self::Ignored => "not answered, as planned",
            Self::OtherServer => "chose another server",
            Self::OtherNetwork => "comes from a network that is not served",
            Self::NotItsAddress => "speaks of an address it does not have",
            Self::PoolExhausted => "every address is taken",
            Self::OtherPool => "speaks of an address that another server of the inventory gives",
            Self::NotOurs => "speaks of an address that another server may have given",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Returns what is to be done about a request. Pure: no I/O, no clock, and nothing is changed.
pub fn respond(request: &Request, view: &View<'_>, now: Timestamp) -> Outcome {
    if matches!(view.subnet.role, Role::Proxy { .. }) {
        return proxy::respond(request, view);
    }
    if request.server().is_some_and(|server| server != server_id(request, view)) {
        let change = (request.kind == Kind::Request).then_some(Change::DropHold);
        return Outcome { change, ..silent(Note::OtherServer) };
    }
    match request.kind {
        Kind::Release => release(request, view, now),
        Kind::Decline => decline(request, view, now),
        Kind::Discover | Kind::Request | Kind::Inform | Kind::Bootp => {
            let sighting = classify(request);
            let decision = decide(view.snapshot, &sighting);
            let outcome = if matches!(decision.plan, Plan::Ignore) {
                silent(Note::Ignored)
            } else {
                answer(request, view, now, &sighting, &decision)
            };
            Outcome { sighting: Some(sighting), decision: Some(decision), ..outcome }
        }
    }
}

fn answer(
    request: &Request,
    view: &View<'_>,
    now: Timestamp,
    sighting: &Sighting,
    decision: &Decision,
) -> Outcome {
    let subnet = view.subnet;
    let owner = owner(request, view.snapshot).map(|machine| &**machine);
    let reserved = owner.and_then(|machine: &Machine| machine.spec.address);
    let offer = |wanted| {
        let wish = Wish { mac: request.mac, reserved, wanted, now };
        choose(subnet, view.snapshot, view.leases, wish)
    };
    let time = subnet.rules.lease_time(subnet.lease_time, request.lease_time());
    // Where the pool is shared with other servers, no longer than our claim to the address lasts.
    let time_of = |address| match view.leases.ours.longest() {
        Some(longest) if subnet.pool_has(address) => time.min(longest),
        _ => time,
    };
    let full = |kind, address: Option<Ipv4Addr>| {
        let given = Given { owner, lease: address.map(|address| (address, time_of(address))) };
        let options = answer::options(request, view, sighting, decision, given);
        reply(request, view, kind, address, options)
    };
    match request.kind {
        Kind::Discover => match offer(request.requested()) {
            Some(address) => Outcome {
                reply: Some(full(ReplyKind::Offer, Some(address))),
                change: Some(Change::Hold(address)),
                probe: Some(address).filter(|address| is_new(*address, request, view, now)),
                ..silent(Note::Offered)
            },
            None => Outcome {
                change: Some(Change::Full(subnet.network.address())),
                ..silent(Note::PoolExhausted)
            },
        },
        Kind::Bootp => bootp(request, view, offer(reserved), reserved, owner),
        Kind::Inform if !subnet.network.is_host(request.ciaddr) => silent(Note::OtherNetwork),
        Kind::Inform => {
            Outcome { reply: Some(full(ReplyKind::Ack, None)), ..silent(Note::Informed) }
        }
        _ => {
            // SELECTING and INIT-REBOOT name the address in option 50, RENEWING and REBINDING in `ciaddr`
            // (RFC 2131 §4.3.2). In all four it is right if it is what we would choose now.
            let has = Some(request.ciaddr).filter(|address| !address.is_unspecified());
            let Some(address) = request.requested().or(has) else {
                return silent(Note::NotItsAddress);
            };
            if subnet.pool_has(address) && !view.leases.may_lease(address) {
                return silent(Note::OtherPool);
            }
            let known = reserved.is_some() || view.leases.of(request.mac).is_some();
            if !subnet.rules.authoritative && request.server().is_none() && !known {
                return silent(Note::NotOurs);
            }
            if offer(Some(address)) != Some(address) {
                let options = answer::nak_options(request, view);
                return Outcome {
                    reply: Some(reply(request, view, ReplyKind::Nak, None, options)),
                    change: Some(Change::DropHold),
                    ..silent(Note::WrongAddress)
                };
            }
            let lease = Lease {
                address,
                mac: request.mac,
                expires: now.after(time_of(address)).0,
                hostname: request.hostname(),
            };
            Outcome {
                reply: Some(full(ReplyKind::Ack, Some(address))),
                lease: Some(lease),
                ..silent(Note::Given)
            }
        }
    }
}

/// Returns whether an address has to be asked for on the wire before it is offered: we can do so, nobody has just
/// looked, and the client does not have it anyway.
fn is_new(address: Ipv4Addr, request: &Request, view: &View<'_>, now: Timestamp) -> bool {
    let Subnet { rules, relayed, .. } = view.subnet;
    let lease = view.leases.of(request.mac);
    let has = lease.is_some_and(|lease| lease.address == address && lease.expires > now.0);
    rules.probe
        && !relayed
        && !request.is_relayed()
        && !has
        && !view.leases.is_probed(address, request.mac)
}

/// Gives a client of BOOTP its reserved address, for ever: it never comes back to renew it. Others get nothing, since
/// a pool would soon be empty.
fn bootp(
    request: &Request,
    view: &View<'_>,
    free: Option<Ipv4Addr>,
    reserved: Option<Ipv4Addr>,
    owner: Option<&Machine>,
) -> Outcome {
    let Some(address) = free.filter(|address| reserved == Some(*address)) else {
        return silent(Note::Ignored);
    };
    let sighting = classify(request);
    let decision = decide(view.snapshot, &sighting);
    let given = Given { owner, lease: None };
    let mut answer = answer::options(request, view, &sighting, &decision, given);
    // Messages of BOOTP name no server.
    answer.options.retain(|option| option.code != option::SERVER_IDENTIFIER);
    let reply = reply(request, view, ReplyKind::Bootp, Some(address), answer);
    let lease = Lease { address, mac: request.mac, expires: FOR_EVER, hostname: None };
    Outcome { reply: Some(reply), lease: Some(lease), ..silent(Note::Given) }
}

/// When the lease of a client of BOOTP ends: in the year 9999.
const FOR_EVER: i64 = 253_402_300_799;

fn release(request: &Request, view: &View<'_>, now: Timestamp) -> Outcome {
    match view.leases.of(request.mac).filter(|lease| lease.address == request.ciaddr) {
        Some(lease) => Outcome { lease: Some(ended(lease, now)), ..silent(Note::Released) },
        None => silent(Note::NotItsAddress),
    }
}

/// Only who was given an address can have it put in quarantine; else one client could empty the pool.
fn decline(request: &Request, view: &View<'_>, now: Timestamp) -> Outcome {
    let Some(address) = request.requested() else { return silent(Note::NotItsAddress) };
    let lease = view.leases.of(request.mac).filter(|lease| lease.address == address);
    if lease.is_none() && view.leases.held_for(request.mac, now) != Some(address) {
        return silent(Note::NotItsAddress);
    }
    Outcome {
        lease: lease.map(|lease| ended(lease, now)),
        change: Some(Change::Quarantine(address)),
        ..silent(Note::Declined)
    }
}

fn ended(lease: &Lease, now: Timestamp) -> Lease {
    Lease { expires: lease.expires.min(now.0), ..lease.clone() }
}

pub(super) const fn silent(note: Note) -> Outcome {
    Outcome {
        reply: None,
        lease: None,
        change: None,
        probe: None,
        sighting: None,
        decision: None,
        note,
    }
}

/// Returns what we call ourselves in option 54: our address, unless the relay wants to stand for us (RFC 5107).
pub(super) fn server_id(request: &Request, view: &View<'_>) -> Ipv4Addr {
    request.server_override().unwrap_or(view.subnet.address)
}

/// Puts the fixed fields around the options.
pub(super) fn reply(
    request: &Request,
    view: &View<'_>,
    kind: ReplyKind,
    address: Option<Ipv4Addr>,
    answer: answer::Answer,
) -> Reply {
    let nak = kind == ReplyKind::Nak;
    let relayed = !request.giaddr.is_unspecified();
    // A relay has to broadcast a NAK, since the client has no address to hear it on (RFC 2131 §4.3.2).
    let flags = if nak && relayed { request.flags | 0x8000 } else { request.flags };
    let ciaddr = if kind == ReplyKind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
    Reply {
        kind,
        xid: request.xid,
        flags,
        ciaddr,
        yiaddr: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        siaddr: answer.next_server.unwrap_or(Ipv4Addr::UNSPECIFIED),
        giaddr: request.giaddr,
        mac: request.mac,
        file: answer.file,
        options: answer.options,
        relay_agent: request.relay_agent().to_vec(),
        max_size: request.max_size(),
        to: destination(request, view, ciaddr),
        from: view.subnet.address,
    }
}

/// Returns where a reply goes (RFC 2131 §4.1).
///
/// A client that has no address yet and does not ask for a broadcast could be reached alone, in a frame to its
/// hardware address; whether such frames can be sent is known where packets are sent. Every client takes a broadcast.
fn destination(request: &Request, view: &View<'_>, ciaddr: Ipv4Addr) -> SocketAddrV4 {
    if !request.giaddr.is_unspecified() {
        SocketAddrV4::new(request.giaddr, 67)
    } else if view.subnet.network.is_host(ciaddr) {
        SocketAddrV4::new(ciaddr, 68)
    } else {
        SocketAddrV4::new(Ipv4Addr::BROADCAST, 68)
    }
}
