use std::net::Ipv4Addr;
use std::sync::Arc;

use kiln_inventory::{Claim, Machine, Snapshot};
use kiln_types::Mac;

use super::classify::uuids;
use super::leases::{LeaseTable, Timestamp};
use super::pool;
use super::subnet::Subnet;
use super::wire::Request;

/// Returns the machine whose reserved address, name and options a client gets.
pub(super) fn owner<'a>(request: &Request, snapshot: &'a Snapshot) -> Option<&'a Arc<Machine>> {
    snapshot.claimed_by(&Claim {
        mac: request.mac,
        uuids: &uuids(request),
        client_id: request.client_id(),
        circuit_id: request.circuit_id(),
    })
}

/// Who wants an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) mac: Mac,
    /// The one that is reserved for it.
    pub(super) reserved: Option<Ipv4Addr>,
    /// The one that it names.
    pub(super) wanted: Option<Ipv4Addr>,
    pub(super) now: Timestamp,
}

/// Chooses the address for a client, or none when all are taken.
///
/// In this order: the one reserved for its machine, the one it has or had, the one it was offered, the one it
/// asks for, and the first free one of the pool, looked for from a place that its hardware address determines, so
/// that a server without memory tends to give the same again.
pub(super) fn choose(
    subnet: &Subnet,
    snapshot: &Snapshot,
    leases: &LeaseTable,
    wish: Wish,
) -> Option<Ipv4Addr> {
    let Wish { mac, reserved, wanted, now } = wish;
    let free =
        |address: &Ipv4Addr| subnet.may_give(*address) && leases.is_free_for(*address, mac, now);
    // A reserved address that another card of the machine uses at this moment is not given twice.
    // One in a pool that another server gives addresses of may be somebody's there.
    let ours = |address: &Ipv4Addr| !subnet.pool_has(*address) || leases.may_lease(*address);
    if let Some(address) = reserved.filter(free).filter(ours) {
        return Some(address);
    }
    let open = |address: &Ipv4Addr| {
        subnet.pool_has(*address)
            && leases.may_lease(*address)
            && free(address)
            && !snapshot.is_reserved(*address)
    };
    let own = leases.of(mac).map(|lease| lease.address).filter(open);
    if let Some(address) = own.or_else(|| leases.held_for(mac, now).filter(open)) {
        return Some(address);
    }
    if let Some(address) = wanted.filter(open) {
        return Some(address);
    }
    if leases.ours.is_full(subnet.network.address().to_bits(), now) {
        return None;
    }
    let pool = subnet.pool_from(start(mac));
    pool::find(pool, open, |address| leases.at(address).is_some())
}

/// Where the search begins for a machine. Folded, since the low half alone would lead neighbours to neighbours.
fn start(mac: Mac) -> u64 {
    let place = pool::place(&mac.octets());
    place ^ place >> 32
}
