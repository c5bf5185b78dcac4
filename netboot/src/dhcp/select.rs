//! Which subnet a request belongs to.

use std::net::Ipv4Addr;

use kiln_inventory::Snapshot;
use kiln_ipxe::Endpoints;

use super::address::choose;
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
        let known = sites.iter().any(|site| site.subnet.network.is_host(relay)) || relay == from;
        let link = request.link_selection().unwrap_or(relay);
        return of(link).filter(|_| known).ok_or(Note::OtherNetwork);
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
    Ok(shared(sites, request, known).unwrap_or(first))
}

/// Chooses between the subnets of one wire: the one whose server was chosen, that has the wanted address, where the
/// machine has or had one, and else the first with an address to give.
fn shared<'a>(sites: &'a [Site], request: &Request, known: Known<'_>) -> Option<&'a Site> {
    let Known { snapshot, leases, now } = known;
    let here = || sites.iter().filter(|site| !site.subnet.relayed);
    let with = |address: Option<Ipv4Addr>| {
        address.and_then(|address| here().find(|site| site.subnet.network.is_host(address)))
    };
    let chosen = request.server();
    let by_server = || here().find(|site| chosen == Some(site.subnet.address));
    let reserved =
        || with(snapshot.machine_by_mac(request.mac).and_then(|machine| machine.spec.address));
    let gives =
        |site: &&Site| choose(&site.subnet, snapshot, leases, request.mac, None, now).is_some();
    by_server()
        .or_else(reserved)
        .or_else(|| with(request.requested()))
        .or_else(|| with(leases.of(request.mac).map(|lease| lease.address)).filter(gives))
        .or_else(|| with(leases.held_for(request.mac, now)))
        .or_else(|| here().find(gives))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use kiln_inventory::{Lease, UnknownMachines};

    use super::*;
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
            },
            endpoints: Endpoints::new(address, 80),
        }
    }

    /// Asks on a wire with the networks 10.1 and 10.2, and 10.9 behind a relay.
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
        let sites = [site(9, true), site(1, false), site(2, false)];
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
