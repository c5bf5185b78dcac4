use std::net::Ipv6Addr;

use kiln_inventory::Snapshot;

use super::subnet::{Mode, Subnet};
use super::table::{Holder, LeaseTable};
use crate::dhcp::{Timestamp, pool};

/// Chooses the address for an association, or none when all are taken.
///
/// In this order: the one reserved for its machine, the one it has or had, the one that its interface had under
/// another name, the one it was offered, the one it asks for, and the first free one of the pool, looked for from a
/// place that who asks determines, so that a server without memory tends to give the same again. What other associations
/// of the same message get is `taken`.
pub(super) fn choose(
    subnet: &Subnet,
    snapshot: &Snapshot,
    leases: &LeaseTable,
    who: &Holder,
    wanted: &[Ipv6Addr],
    taken: &[Ipv6Addr],
    now: Timestamp,
) -> Option<Ipv6Addr> {
    let free = |address: &Ipv6Addr| {
        subnet.may_give(*address)
            && !taken.contains(address)
            && leases.is_free_for(*address, who, now)
    };
    let machine = who.mac.and_then(|mac| snapshot.machine_by_mac(mac));
    // Firmware asks a second time under the same name for another purpose; the interface is the same.
    let own = |address: &Ipv6Addr| {
        who.mac.is_some_and(|mac| leases.is_of_interface(*address, mac))
            && !taken.contains(address)
            && !leases.is_quarantined(*address, now)
    };
    let reserved = machine.and_then(|machine| machine.spec.address6);
    // One in a pool that another server gives addresses of may be somebody's there.
    let ours = |address: &Ipv6Addr| !subnet.pool_has(*address) || leases.may_lease(*address);
    let reserved = reserved.filter(|address| subnet.may_give(*address)).filter(ours);
    if let Some(address) = reserved.filter(|address| own(address) || free(address)) {
        return Some(address);
    }
    if subnet.mode == Mode::Stateless {
        return None;
    }
    let open = |address: &Ipv6Addr| {
        subnet.pool_has(*address)
            && leases.may_lease(*address)
            && free(address)
            && !snapshot.is_reserved6(*address)
    };
    let mine = leases.of(&who.duid, who.iaid).map(|lease| lease.address);
    let before = || who.mac.and_then(|mac| leases.of_mac(mac)).map(|lease| lease.address);
    let known = mine
        .filter(open)
        .or_else(|| before().filter(open))
        .or_else(|| leases.held_for(who, now).filter(open))
        .or_else(|| wanted.iter().copied().find(open));
    if known.is_some() {
        return known;
    }
    if leases.ours.is_full(subnet.network, now) {
        return None;
    }
    let pool = leases.pool_from(subnet, start(who));
    pool::find(pool, open, |address| leases.at(address).is_some())
}

/// Where the search begins: determined by the hardware address, or by the name where none is known.
fn start(who: &Holder) -> u64 {
    match who.mac {
        Some(mac) => pool::place(&mac.octets()),
        None => pool::place(who.duid.as_bytes().iter().chain(&who.iaid.to_be_bytes())),
    }
}
