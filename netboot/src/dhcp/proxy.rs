//! Boot files beside another server that gives the addresses (PXE 2.1 §2.2.1 and §2.2.3).
//!
//! Two kinds of clients are served. One takes the boot file from the offer at port 67, the other from an
//! acknowledgement at port 4011. What we offer at port 67 is enough for both, unless the settings send firmware to
//! port 4011; there everyone is answered in any case.

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_inventory::{Asker, Decision, Plan, Sighting, decide};

use super::answer;
use super::classify::classify;
use super::encode::{Reply, ReplyKind};
use super::engine::{Note, Outcome, View, reply, server_id, silent};
use super::option;
use super::subnet::Role;
use super::wire::{Kind, Request};

/// Answers what comes to port 67. A proxy never says no, and never speaks where a client has chosen a server.
pub(super) fn respond(request: &Request, view: &View<'_>) -> Outcome {
    let sighting = classify(request);
    let decision = decide(view.snapshot, &sighting);
    let outcome = match request.kind {
        Kind::Discover => offer(request, view, &sighting, &decision),
        // It names the address that it is about to have: worth knowing, for what it fetches next.
        Kind::Request => silent(Note::OtherServer),
        Kind::Inform | Kind::Release | Kind::Decline | Kind::Bootp => {
            return silent(Note::OtherServer);
        }
    };
    Outcome { sighting: Some(sighting), decision: Some(decision), ..outcome }
}

fn offer(request: &Request, view: &View<'_>, sighting: &Sighting, decision: &Decision) -> Outcome {
    if sighting.asker == Asker::System || !is_told_of_boot(decision) {
        return silent(Note::Ignored);
    }
    let by_4011 = matches!(view.subnet.role, Role::Proxy { by_4011: true });
    let answer = if by_4011 && answer::is_pxe(request, sighting) {
        answer::referral(request, view)
    } else {
        answer::boot_only(request, view, sighting, decision)
    };
    let reply = reply(request, view, ReplyKind::Offer, None, answer);
    Outcome { reply: Some(reply), ..silent(Note::BootOffered) }
}

/// Returns what is to be done about a request to port 4011 from an address. The answer goes back to the port that
/// asked: EDK2 asks from 4011, iPXE from 68.
pub fn respond_4011(request: &Request, view: &View<'_>, from: SocketAddrV4) -> Outcome {
    if !matches!(request.kind, Kind::Request | Kind::Inform) {
        return silent(Note::Ignored);
    }
    if request.server().is_some_and(|server| server != server_id(request, view)) {
        return silent(Note::OtherServer);
    }
    // Answers stay in the network, and go to who has the address.
    if *from.ip() != request.ciaddr || !view.subnet.network.is_host(request.ciaddr) {
        return silent(Note::NotItsAddress);
    }
    // The highest bit of the layer asks for credentials that go with the file (BIS), which nothing has any more.
    let item = request.boot_item();
    let sighting = classify(request);
    let decision = decide(view.snapshot, &sighting);
    let outcome = if sighting.asker == Asker::System
        || !is_told_of_boot(&decision)
        || item.is_some_and(|(_, layer)| layer & 0x8000 != 0)
    {
        silent(Note::Ignored)
    } else {
        let mut answer = answer::boot_only(request, view, &sighting, &decision);
        if let Some(item) = item {
            answer.options.retain(|option| option.code != option::VENDOR_SPECIFIC);
            answer.options.push(answer::boot_item(item));
        }
        let reply = Reply {
            giaddr: Ipv4Addr::UNSPECIFIED,
            to: from,
            ..reply(request, view, ReplyKind::Ack, None, answer)
        };
        Outcome { reply: Some(reply), ..silent(Note::BootGiven) }
    };
    Outcome { sighting: Some(sighting), decision: Some(decision), ..outcome }
}

const fn is_told_of_boot(decision: &Decision) -> bool {
    !matches!(decision.plan, Plan::Ignore | Plan::Address)
}
