use std::net::Ipv6Addr;

use kiln_inventory::Snapshot;

use super::subnet::{Mode, Subnet};
use super::table::{Holder, LeaseTable};
use crate::dhcp::Timestamp;
use crate::dhcp::address::LOOKS;

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
    if leases.is_full(subnet.network, now) {
        return None;
    }
    // What no one ever had comes before what someone may come back for.
    let mut remembered = None;
    for (looked, address) in leases.pool_from(subnet, hash(who)).enumerate() {
        if looked >= LOOKS && remembered.is_some() {
            break;
        }
        if open(&address) {
            if leases.at(address).is_none() {
                return Some(address);
            }
            remembered = remembered.or(Some(address));
        }
    }
    remembered
}

/// FNV-1a of the hardware address, or of the name where none is known: the same on every host and in every version.
fn hash(who: &Holder) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    match who.mac {
        Some(mac) => mac.octets().iter().fold(0xcbf2_9ce4_8422_2325, step),
        None => {
            let bytes = who.duid.as_bytes().iter();
            bytes.chain(&who.iaid.to_be_bytes()).fold(0xcbf2_9ce4_8422_2325, step)
        }
    }
}
