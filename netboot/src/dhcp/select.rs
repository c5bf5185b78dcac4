//! Which subnet a request belongs to.

use std::net::Ipv4Addr;

use kiln_inventory::Snapshot;
use kiln_ipxe::Endpoints;

use super::address::{Wish, choose, owner};
use super::engine::Note;
use super::leases::{LeaseTable, Timestamp};
use super::subnet::Subnet;
use super::wire::Request;

/// One subnet that is reached by an interface, and where its machines reach us.
#[derive(Clone, Debug)]
pub struct Site {
    /// The subnet.
    pub subnet: Subnet,
    /// Our addresses for it.
    pub endpoints: Endpoints,
}

/// What is known when a request comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) leases: &'a LeaseTable,
    pub(super) now: Timestamp,
}

/// Returns the subnet of a request that came from an address, or why there is none.
pub(super) fn select<'a>(
    sites: &'a [Site],
    request: &Request,
    from: Ipv4Addr,
    known: Known<'_>,
) -> Result<&'a Site, Note> {
    let relay = request.giaddr;
    let of = |address: Ipv4Addr| sites.iter().find(|site| site.subnet.network.contains(address));
    if !relay.is_unspecified() {
        // Also keeps anyone from having us send replies to places outside: a relay is in a network that we serve, or
        // it is who sent the packet.
        let vouched = sites.iter().any(|site| site.subnet.network.is_host(relay)) || relay == from;
        let link = request.link_selection().unwrap_or(relay);
        let first = of(link).filter(|_| vouched).ok_or(Note::OtherNetwork)?;
        let Some(wire) = &first.subnet.rules.shared else { return Ok(first) };
        // The one that was named comes first.
        let beside = sites.iter().filter(|site| {
            site.subnet.rules.shared.as_ref() == Some(wire)
                && site.subnet.network != first.subnet.network
        });
        let here: Vec<_> = std::iter::once(first).chain(beside).collect();
        return Ok(shared(&here, request, known).unwrap_or(first));
    }
    if !request.ciaddr.is_unspecified()
        && let Some(site) = of(request.ciaddr)
    {
        // Behind a relay as well: who renews an address asks us directly (RFC 2131 §4.3.6).
        return Ok(site);
    }
    let mut here = sites.iter().filter(|site| !site.subnet.relayed);
    let first = here.next().ok_or(Note::OtherNetwork)?;
    if here.next().is_none() {
        return Ok(first);
    }
    let here: Vec<_> = sites.iter().filter(|site| !site.subnet.relayed).collect();
    Ok(shared(&here, request, known).unwrap_or(first))
}

/// Chooses between the subnets of one wire: the one whose server was chosen, that has the wanted address, where the
/// machine has or had one, and else the first with an address to give.
fn shared<'a>(here: &[&'a Site], request: &Request, known: Known<'_>) -> Option<&'a Site> {
    let Known { snapshot, leases, now } = known;
    let all = || here.iter().copied();
    let with = |address: Option<Ipv4Addr>| {
        address.and_then(|address| all().find(|site| site.subnet.network.is_host(address)))
    };
    let chosen = request.server();
    // Subnets behind a relay have the same address of ours, which then tells nothing.
    let by_server =
        || all().find(|site| chosen == Some(site.subnet.address) && !site.subnet.relayed);
    let reserved = owner(request, snapshot).and_then(|machine| machine.spec.address);
    let wish = Wish { mac: request.mac, reserved, wanted: None, now };
    let gives = |site: &&Site| choose(&site.subnet, snapshot, leases, wish).is_some();
    by_server()
        .or_else(|| with(reserved))
        .or_else(|| with(request.requested()))
        .or_else(|| with(leases.of(request.mac).map(|lease| lease.address)).filter(gives))
        .or_else(|| with(leases.held_for(request.mac, now)))
        .or_else(|| all().find(gives))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use kiln_inventory::{Lease, UnknownMachines};

    use super::*;
    use crate::dhcp::rules::Rules;
    use crate::dhcp::subnet::Role;
    use crate::dhcp::wire::tests::packet;

    const NOW: Timestamp = Timestamp(1000);
    const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn site(net: u8, relayed: bool) -> Site {
        let address = if relayed { [10, 1, 0, 1] } else { [10, net, 0, 1] }.into();
        Site {
            subnet: Subnet {
                network: format!("10.{net}.0.0/24").parse().unwrap(),
                interface: "lan0".to_owned(),
                address,
                role: Role::Server,
                relayed,
                pool: vec![[10, net, 0, 50].into()..=[10, net, 0, 50].into()],
                router: vec![],
                dns: vec![],
                domain: None,
                lease_time: Duration::from_secs(3600),
                rules: Rules {
                    shared: matches!(net, 9 | 10).then(|| "hall".to_owned()),
                    ..Rules::default()
                },
            },
            endpoints: Endpoints::new(address, 80),
        }
    }

    /// Asks on a wire with the networks 10.1 and 10.2; 10.9 and 10.10 share one behind a relay.
    fn ask(
        options: &[u8],
        ciaddr: [u8; 4],
        giaddr: [u8; 4],
        from: Ipv4Addr,
        leases: &LeaseTable,
    ) -> Result<u8, Note> {
        let mut bytes = packet(options);
        bytes[12..16].copy_from_slice(&ciaddr);
        bytes[24..28].copy_from_slice(&giaddr);
        let request = Request::decode(&bytes).unwrap();
        let sites = [site(9, true), site(10, true), site(1, false), site(2, false)];
        let snapshot = Snapshot::new(vec![], BTreeMap::new(), UnknownMachines::Ignore);
        let known = Known { snapshot: &snapshot, leases, now: NOW };
        select(&sites, &request, from, known).map(|site| site.subnet.network.address().octets()[1])
    }

    #[test]
    fn a_relay_names_the_network_by_its_address_or_by_link_selection() {
        let ask = |options: &[u8], giaddr, from| {
            ask(options, [0; 4], giaddr, from, &LeaseTable::default())
        };
        let discover = [53, 1, 1];
        assert_eq!(ask(&discover, [10, 9, 0, 254], NOBODY), Ok(9));
        assert_eq!(ask(&discover, [10, 2, 0, 254], NOBODY), Ok(2));
        assert_eq!(
            ask(&discover, [10, 8, 0, 254], [10, 8, 0, 254].into()),
            Err(Note::OtherNetwork)
        );
        let link = [53, 1, 1, 82, 6, 5, 4, 10, 9, 0, 0];
        assert_eq!(ask(&link, [10, 1, 0, 254], NOBODY), Ok(9));
        assert_eq!(ask(&link, [172, 16, 0, 1], [172, 16, 0, 1].into()), Ok(9));
        assert_eq!(
            ask(&link, [172, 16, 0, 1], [10, 1, 0, 7].into()),
            Err(Note::OtherNetwork),
            "a reply would go to a place that nobody vouches for"
        );
    }

    #[test]
    fn networks_behind_one_relay_may_share_a_wire() {
        let other = kiln_types::Mac::new([2; 6]);
        let lease = |net: u8, mac| Lease {
            address: [10, net, 0, 50].into(),
            mac,
            expires: NOW.0 + 9,
            hostname: None,
        };
        let ask = |options: &[u8], leases: Vec<Lease>| {
            ask(options, [0; 4], [10, 9, 0, 254], NOBODY, &LeaseTable::new(leases))
        };
        assert_eq!(ask(&[53, 1, 1], vec![]), Ok(9));
        assert_eq!(ask(&[53, 1, 1], vec![lease(9, other)]), Ok(10), "the first is full");
        let own = kiln_types::Mac::new([0x52, 0x54, 0, 0x77, 0, 9]);
        assert_eq!(ask(&[53, 1, 1], vec![lease(10, own)]), Ok(10));
        assert_eq!(ask(&[53, 1, 3, 50, 4, 10, 10, 0, 50], vec![]), Ok(10));
    }

    #[test]
    fn who_renews_an_address_is_in_its_network_also_behind_a_relay() {
        let ask = |ciaddr| ask(&[53, 1, 3], ciaddr, [0; 4], NOBODY, &LeaseTable::default());
        assert_eq!(ask([10, 9, 0, 50]), Ok(9));
        assert_eq!(ask([10, 2, 0, 50]), Ok(2));
        assert_eq!(ask([10, 77, 0, 50]), Ok(1), "the answer will be no");
    }

    #[test]
    fn networks_of_one_wire_share_their_pools() {
        let ask =
            |options: &[u8], leases: &LeaseTable| ask(options, [0; 4], [0; 4], NOBODY, leases);
        let none = LeaseTable::default();
        assert_eq!(ask(&[53, 1, 1], &none), Ok(1));
        assert_eq!(ask(&[53, 1, 1, 50, 4, 10, 2, 0, 50], &none), Ok(2));
        assert_eq!(ask(&[53, 1, 3, 54, 4, 10, 2, 0, 1, 50, 4, 10, 1, 0, 50], &none), Ok(2));
        let other = kiln_types::Mac::new([2; 6]);
        let lease = |net, mac| Lease {
            address: [10, net, 0, 50].into(),
            mac,
            expires: NOW.0 + 9,
            hostname: None,
        };
        let full = LeaseTable::new(vec![lease(1, other)]);
        assert_eq!(ask(&[53, 1, 1], &full), Ok(2), "the first has no address left");
        let own = kiln_types::Mac::new([0x52, 0x54, 0, 0x77, 0, 9]);
        assert_eq!(ask(&[53, 1, 1], &LeaseTable::new(vec![lease(2, own)])), Ok(2));
    }
}
