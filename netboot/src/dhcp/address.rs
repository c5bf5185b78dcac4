use std::collections::HashSet;
use std::net::Ipv4Addr;

use kiln_inventory::Snapshot;
use kiln_types::Mac;

use super::leases::{LeaseTable, Timestamp};
use super::subnet::Subnet;

/// Chooses the address for a hardware address, or none when all are taken.
///
/// In this order: the one reserved for its machine, the one it has or had, the one it was offered, the one it
/// asks for, and the first free one of the pool, looked for from a place that its hardware address determines, so
/// that a server without memory tends to give the same again.
pub(super) fn choose(
    subnet: &Subnet,
    snapshot: &Snapshot,
    leases: &LeaseTable,
    mac: Mac,
    wanted: Option<Ipv4Addr>,
    now: Timestamp,
) -> Option<Ipv4Addr> {
    let free =
        |address: &Ipv4Addr| subnet.may_give(*address) && leases.is_free_for(*address, mac, now);
    // A reserved address that another card of the machine uses at this moment is not given twice.
    let reserved = snapshot.machine_by_mac(mac).and_then(|machine| machine.spec.address);
    if let Some(address) = reserved.filter(free) {
        return Some(address);
    }
    let promised: HashSet<Ipv4Addr> =
        snapshot.machines().iter().filter_map(|machine| machine.spec.address).collect();
    let open = |address: &Ipv4Addr| {
        subnet.pool_has(*address) && free(address) && !promised.contains(address)
    };
    let own = leases.of(mac).map(|lease| lease.address).filter(open);
    if let Some(address) = own.or_else(|| leases.held_for(mac, now).filter(open)) {
        return Some(address);
    }
    if let Some(address) = wanted.filter(open) {
        return Some(address);
    }
    // What no one ever had comes before what someone may come back for.
    let mut remembered = None;
    for address in subnet.pool_from(hash(mac)).filter(open) {
        if leases.at(address).is_none() {
            return Some(address);
        }
        remembered = remembered.or(Some(address));
    }
    remembered
}

/// FNV-1a: the same on every host and in every version, unlike the hashes of the standard library.
fn hash(mac: Mac) -> u64 {
    mac.octets().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
