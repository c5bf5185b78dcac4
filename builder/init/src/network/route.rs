//! Addresses and routes of an interface.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::netlink::{NLM_F_CREATE, NLM_F_REPLACE, Netlink, attribute};

/// Numbers of linux/rtnetlink.h and linux/if_addr.h.
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const INET: u8 = 2;
const INET6: u8 = 10;

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    /// How long it is preferred and valid; without, for ever.
    pub(super) lifetimes: Option<(Duration, Duration)>,
    /// Which of its neighbours are on the link is told by routers, not by the prefix.
    pub(super) alone: bool,
}

/// A way to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpAddr,
    pub(super) prefix: u8,
    /// Without a router it is on the link itself.
    pub(super) via: Option<IpAddr>,
    pub(super) source: Option<Ipv4Addr>,
    pub(super) metric: u32,
    /// The router is on this link, whatever the addresses say.
    pub(super) on_link: bool,
}

impl Netlink {
    /// Gives an interface an address, or gives it new lifetimes.
    pub(super) fn add_address(&self, index: u32, address: &Address) -> nix::Result<()> {
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address_body(index, address))
    }

    pub(super) fn remove_address(&self, index: u32, address: &Address) -> nix::Result<()> {
        self.ask(RTM_DELADDR, 0, &address_body(index, address))
    }

    pub(super) fn add_route(&self, index: u32, route: &Route) -> nix::Result<()> {
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route_body(index, route))
    }

    pub(super) fn remove_route(&self, index: u32, route: &Route) -> nix::Result<()> {
        self.ask(RTM_DELROUTE, 0, &route_body(index, route))
    }
}

/// `struct ifaddrmsg` and its attributes.
fn address_body(index: u32, address: &Address) -> Vec<u8> {
    let family = if address.ip.is_ipv4() { INET } else { INET6 };
    let mut body = vec![family, address.prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(IFA_ADDRESS, &octets(address.ip)));
    if let IpAddr::V4(ip) = address.ip {
        body.extend(attribute(IFA_LOCAL, &ip.octets()));
        if address.prefix < 31 {
            let hosts = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
            body.extend(attribute(IFA_BROADCAST, &(u32::from(ip) | hosts).to_be_bytes()));
        }
    }
    if let Some((preferred, valid)) = address.lifetimes {
        let [preferred, valid] = [preferred, valid].map(|time| {
            // All ones is for ever.
            u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_ne_bytes()
        });
        body.extend(attribute(IFA_CACHEINFO, &[preferred, valid, [0; 4], [0; 4]].concat()));
    }
    if address.alone {
        body.extend(attribute(IFA_FLAGS, &IFA_F_NOPREFIXROUTE.to_ne_bytes()));
    }
    body
}

/// `struct rtmsg` and its attributes.
fn route_body(index: u32, route: &Route) -> Vec<u8> {
    let family = if route.to.is_ipv4() { INET } else { INET6 };
    let scope =
        if route.via.is_none() && family == INET { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let protocol = if route.source.is_some() { RTPROT_DHCP } else { RTPROT_STATIC };
    let mut body = vec![family, route.prefix, 0, 0, RT_TABLE_MAIN, protocol, scope, RTN_UNICAST];
    let on_link = route.on_link && route.via.is_some();
    body.extend(if on_link { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
    body.extend(attribute(RTA_DST, &octets(route.to)));
    body.extend(attribute(RTA_OIF, &index.to_ne_bytes()));
    if let Some(via) = route.via {
        body.extend(attribute(RTA_GATEWAY, &octets(via)));
    }
    body.extend(attribute(RTA_PRIORITY, &route.metric.to_ne_bytes()));
    if let Some(source) = route.source {
        body.extend(attribute(RTA_PREFSRC, &source.octets()));
    }
    body
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Returns the address with everything behind the prefix as zeroes.
pub(super) fn network(ip: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match ip {
        IpAddr::V4(ip) => {
            let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & !hosts).into())
        }
        IpAddr::V6(ip) => {
            let hosts = u128::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & !hosts).into())
        }
    }
}

/// Reads `ADDRESS/PREFIX`.
pub(super) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest)?;
    Some((ip, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> (IpAddr, u8) {
        parse_cidr(text).unwrap()
    }

    #[test]
    fn an_address_with_its_prefix_is_read_and_nothing_else() {
        assert_eq!(cidr("10.0.0.5/24"), ("10.0.0.5".parse().unwrap(), 24));
        assert_eq!(cidr("2001:db8::5/64").1, 64);
        for wrong in ["10.0.0.5", "10.0.0.5/33", "2001:db8::/129", "10.0.0/8", "10.0.0.5/-1", "/8"]
        {
            assert_eq!(parse_cidr(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_network_of_an_address_has_no_host() {
        for (address, network_of_it) in [
            ("10.1.2.3/8", "10.0.0.0"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("10.1.2.3/0", "0.0.0.0"),
            ("2001:db8::5/64", "2001:db8::"),
            ("2001:db8::5/0", "::"),
        ] {
            let (ip, prefix) = cidr(address);
            assert_eq!(network(ip, prefix).to_string(), network_of_it, "{address}");
        }
    }

    #[test]
    fn an_address_is_told_with_its_broadcast_address_and_its_lifetimes() {
        let (ip, prefix) = cidr("10.0.0.5/24");
        let lifetimes = Some((Duration::from_secs(60), Duration::from_secs(120)));
        let body = address_body(2, &Address { ip, prefix, lifetimes, alone: false });
        assert_eq!(body[..4], [INET, 24, 0, 0]);
        assert!(body.windows(8).any(|w| w == [8, 0, 4, 0, 10, 0, 0, 255]), "{body:?}");
        let times = [60u32.to_ne_bytes(), 120u32.to_ne_bytes()].concat();
        assert!(body.windows(8).any(|w| w == times), "{body:?}");
        // There is nobody to broadcast to between two ends.
        let body = address_body(2, &Address { ip, prefix: 31, lifetimes: None, alone: false });
        assert!(!body.windows(4).any(|w| w == [8, 0, 4, 0]), "{body:?}");
    }

    #[test]
    fn a_route_without_a_router_is_on_the_link() {
        let (to, prefix) = cidr("10.0.0.0/8");
        let route = Route { to, prefix, via: None, source: None, metric: 100, on_link: true };
        let body = route_body(2, &route);
        assert_eq!(body[..8], [INET, 8, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, 1]);
        assert_eq!(body[8..12], [0; 4]);
        let body = route_body(2, &Route { via: Some("10.0.0.1".parse().unwrap()), ..route });
        assert_eq!((body[6], &body[8..12]), (RT_SCOPE_UNIVERSE, &4u32.to_ne_bytes()[..]));
        assert!(body.windows(8).any(|w| w == [8, 0, 5, 0, 10, 0, 0, 1]), "{body:?}");
    }
}
