//! Whether a client has chosen a server that should not be there.

use std::net::Ipv4Addr;

use kiln_inventory::Snapshot;

use super::engine::Note;
use super::leases::LeaseTable;
use super::subnet::{Role, Subnet};
use super::wire::{Kind, Request};

/// Returns the other server that a client has chosen in a network where we give the addresses. One of the same
/// inventory is none: it gives what machines have reserved, and those addresses of the pool that are not ours.
pub(super) fn rival(
    request: &Request,
    note: Note,
    subnet: &Subnet,
    leases: &LeaseTable,
    snapshot: &Snapshot,
) -> Option<Ipv4Addr> {
    let ours_alone = subnet.role == Role::Server;
    if note != Note::OtherServer || request.kind != Kind::Request || !ours_alone {
        return None;
    }
    let chosen = request.requested();
    let of_inventory = |address: Ipv4Addr| match subnet.pool_has(address) {
        true => !leases.may_lease(address),
        false => snapshot.is_reserved(address) && leases.ours.blocks().is_some(),
    };
    request.server().filter(|_| !chosen.is_some_and(of_inventory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::replay::World;
    use crate::dhcp::wire::tests::packet;

    fn chooses(server: [u8; 4], address: [u8; 4], kind: u8) -> Request {
        let mut bytes = vec![53, 1, kind, 54, 4];
        bytes.extend(server);
        bytes.extend([50, 4]);
        bytes.extend(address);
        let mut packet = packet(&bytes);
        packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 9]);
        Request::decode(&packet).unwrap()
    }

    fn seen(world: &World, request: &Request) -> Option<Ipv4Addr> {
        rival(request, Note::OtherServer, &world.subnet, &world.leases, &world.snapshot)
    }

    #[test]
    fn another_server_is_told_where_we_give_the_addresses_and_it_is_none_of_the_inventory() {
        let (other, pooled, reserved) = ([10, 77, 0, 2], [10, 77, 0, 60], [10, 77, 0, 40]);
        let mut world = World::new();
        let request = chooses(other, pooled, 3);
        assert_eq!(seen(&world, &request), Some(other.into()));
        assert_eq!(seen(&world, &chooses(other, [10, 99, 0, 1], 3)), Some(other.into()));
        assert_eq!(seen(&world, &chooses(other, pooled, 7)), None, "a RELEASE was chosen long ago");
        let ours = rival(&request, Note::Given, &world.subnet, &world.leases, &world.snapshot);
        assert_eq!(ours, None);
        // Where the pool is shared and none of its blocks is ours, another server of the inventory gives its addresses.
        world.leases.ours.set_claims(Default::default());
        assert_eq!(seen(&world, &request), None);
        assert_eq!(seen(&world, &chooses(other, reserved, 3)), Some(other.into()));
        world.subnet.pool.clear();
        let reserved = [10, 77, 0, 199];
        assert_eq!(seen(&world, &chooses(other, reserved, 3)), None, "n1 has it from any of them");
        world.subnet.role = Role::Proxy { by_4011: false };
        assert_eq!(seen(&World::new(), &request), Some(other.into()));
        assert_eq!(seen(&world, &chooses(other, [10, 99, 0, 1], 3)), None);
    }
}
