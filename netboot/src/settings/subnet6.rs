//! `[[subnet6]]`: one network of IPv6 that is served.

use std::net::Ipv6Addr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Problems, parse_duration, parse_range};
use crate::dhcp::is_domain;
use crate::dhcp::v6::pool_size;

/// Every address that was ever given is remembered.
const MAX_POOL: u128 = 1 << 17;

/// What the server does about DHCPv6 in one subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dhcp6Mode {
    /// Gives addresses, boot files and name servers.
    #[default]
    Stateful,
    /// Boot files and name servers, for machines that make their addresses themselves.
    Stateless,
    /// Nothing: TFTP and HTTP only.
    Off,
}

/// What the router advertisements of a subnet say (RFC 4861 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Machines are to ask for addresses by DHCPv6: the flag M.
    pub managed: bool,
    /// Machines are to ask for the rest by DHCPv6: the flag O.
    pub other: bool,
    /// Machines may make addresses of the prefix themselves: the flag A.
    pub autonomous: bool,
    /// Machines may send what goes elsewhere by us.
    pub default_router: bool,
    /// How long the prefix is good.
    pub prefix_lifetime: Duration,
    /// Largest packet of the network, where it is told.
    pub mtu: Option<u32>,
}

impl Default for Advertise {
    fn default() -> Self {
        Self {
            managed: false,
            other: false,
            autonomous: true,
            default_router: false,
            prefix_lifetime: Duration::from_secs(24 * 3600),
            mtu: None,
        }
    }
}

/// Checked settings of one subnet of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet6Settings {
    /// Address of the network.
    pub network: Ipv6Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// Network interface that is in it.
    pub interface: String,
    /// Our own address in it.
    pub address: Ipv6Addr,
    /// What we do about DHCPv6 there.
    pub dhcp: Dhcp6Mode,
    /// Whether its machines reach us by a relay, so that our address is in another network.
    pub relay: bool,
    /// Addresses for machines without a reservation.
    pub pool: Vec<RangeInclusive<Ipv6Addr>>,
    /// Name servers that machines are told.
    pub dns: Vec<Ipv6Addr>,
    /// Domain that machines are told.
    pub domain: Option<String>,
    /// How long a lease lasts.
    pub lease_time: Duration,
    /// How much clients are to prefer us to other servers; at 255 they wait for no other.
    pub preference: u8,
    /// Whether a client that offers to may take the first answer for the last.
    pub rapid_commit: bool,
    /// What router advertisements say, where we send them.
    pub advertise: Option<Advertise>,
}

impl Subnet6Settings {
    /// Returns a subnet in which there is neither DHCPv6 nor a router advertisement.
    pub fn new(network: Ipv6Addr, prefix: u8, interface: &str, address: Ipv6Addr) -> Self {
        Self {
            network,
            prefix,
            interface: interface.to_owned(),
            address,
            dhcp: Dhcp6Mode::Off,
            relay: false,
            pool: Vec::new(),
            dns: Vec::new(),
            domain: None,
            lease_time: Duration::from_secs(3600),
            preference: 255,
            rapid_commit: false,
            advertise: None,
        }
    }

    /// Returns whether some address is in both.
    fn overlaps(&self, other: &Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.network.to_bits() & mask == other.network.to_bits() & mask
    }

    /// Returns whether an address is inside.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireSubnet6 {
    network: Spanned<String>,
    interface: Spanned<String>,
    address: Spanned<Ipv6Addr>,
    #[serde(default)]
    dhcp: Dhcp6Mode,
    #[serde(default)]
    relay: bool,
    #[serde(default)]
    pool: Vec<Spanned<String>>,
    #[serde(default)]
    dns: Vec<Spanned<Ipv6Addr>>,
    domain: Option<Spanned<String>>,
    lease_time: Option<Spanned<String>>,
    preference: Option<u8>,
    #[serde(default)]
    rapid_commit: bool,
    advertise: Option<Spanned<bool>>,
    managed: Option<Spanned<bool>>,
    other: Option<Spanned<bool>>,
    autonomous: Option<Spanned<bool>>,
    default_router: Option<Spanned<bool>>,
    prefix_lifetime: Option<Spanned<String>>,
    mtu: Option<Spanned<u32>>,
}

/// Checks all of them, each by itself and then against those before.
pub(super) fn check(
    wire: Vec<Spanned<WireSubnet6>>,
    problems: &mut Problems,
) -> Vec<Subnet6Settings> {
    let mut subnets: Vec<Subnet6Settings> = Vec::new();
    for wire in wire {
        let span = wire.span();
        let subnet = wire.into_inner().check(problems);
        let name = format!("{}/{}", subnet.network, subnet.prefix);
        if subnets.iter().any(|other| other.overlaps(&subnet)) {
            problems.push((Some(span.clone()), format!("network {name} is in two subnets")));
        }
        // The flags of an advertisement are those of the link, and one link has one router of ours.
        let same = |other: &&Subnet6Settings| other.interface == subnet.interface;
        if let (Some(ours), Some(other)) =
            (&subnet.advertise, subnets.iter().filter(same).find_map(|s| s.advertise.as_ref()))
            && (ours.managed, ours.other, ours.default_router, ours.mtu)
                != (other.managed, other.other, other.default_router, other.mtu)
        {
            let message = format!(
                "two subnets of {} advertise another `managed`, `other`, `default-router` or `mtu`; these are of the link",
                subnet.interface
            );
            problems.push((Some(span), message));
        }
        subnets.push(subnet);
    }
    subnets
}

const fn mask(prefix: u8) -> u128 {
    match u128::MAX.checked_shl(128 - prefix as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl WireSubnet6 {
    fn check(self, problems: &mut Problems) -> Subnet6Settings {
        let advertise = self.advertise(problems);
        let mut wrong = |span: Range<usize>, message: String| problems.push((Some(span), message));
        let (network, prefix) = parse_network(self.network.get_ref()).unwrap_or_else(|message| {
            wrong(self.network.span(), message);
            (Ipv6Addr::UNSPECIFIED, 0)
        });
        let inside = |address: Ipv6Addr| address.to_bits() & mask(prefix) == network.to_bits();
        let outside = |address| format!("address {address} is not in {network}/{prefix}");
        let address = *self.address.get_ref();
        if address.is_multicast() || address.is_unspecified() || address.is_unicast_link_local() {
            let message =
                format!("{address} cannot be our address; use one that machines reach by a URL");
            wrong(self.address.span(), message);
        } else if self.relay && inside(address) {
            let message = format!(
                "address {address} is in {network}/{prefix} itself; behind a relay, it is where the relay reaches us"
            );
            wrong(self.address.span(), message);
        } else if !self.relay && !inside(address) {
            wrong(self.address.span(), outside(address));
        } else if address == network {
            // Every router of the network answers to it (RFC 4291 §2.6.1).
            let message = format!("address {address} means any router of the network; use another");
            wrong(self.address.span(), message);
        }
        let name = self.interface.get_ref();
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            wrong(
                self.interface.span(),
                format!("`{name}` is no name of a network interface; `ip link` lists them"),
            );
        }
        let mut pool = Vec::new();
        for text in &self.pool {
            match parse_range(text.get_ref(), "fd00:77::1000-fd00:77::1fff") {
                _ if self.dhcp != Dhcp6Mode::Stateful => {
                    wrong(text.span(), "`pool` goes with `dhcp = \"stateful\"` only".to_owned());
                    break;
                }
                Ok(range) if inside(*range.start()) && inside(*range.end()) => pool.push(range),
                Ok(range) => {
                    let address = if inside(*range.start()) { range.end() } else { range.start() };
                    wrong(text.span(), outside(*address));
                }
                Err(message) => wrong(text.span(), message),
            }
        }
        if pool_size(&pool) > MAX_POOL {
            let message = format!("a pool has at most {MAX_POOL} addresses; make it smaller");
            wrong(self.pool.first().map_or(0..0, Spanned::span), message);
        }
        for server in self.dns.get(16..).unwrap_or_default() {
            wrong(server.span(), "more than 16 name servers fit no packet; leave some out".into());
        }
        // A search list is written label by label, and a dot at the end would be one more.
        let unfit = |name: &str| !is_domain(name) || name.ends_with('.');
        if let Some(domain) = self.domain.as_ref().filter(|name| unfit(name.get_ref())) {
            let message = format!("`{}` is not a domain name", domain.get_ref().escape_debug());
            wrong(domain.span(), message);
        }
        let hour = Duration::from_secs(3600);
        let lease_time = self.lease_time.as_ref().map_or(Ok(hour), |text| {
            parse_duration(text.get_ref()).map_err(|message| (text.span(), message))
        });
        Subnet6Settings {
            network,
            prefix,
            interface: self.interface.into_inner(),
            address,
            dhcp: self.dhcp,
            relay: self.relay,
            pool,
            dns: self.dns.into_iter().map(Spanned::into_inner).collect(),
            domain: self.domain.map(Spanned::into_inner),
            lease_time: lease_time.unwrap_or_else(|(span, message)| {
                wrong(span, message);
                hour
            }),
            preference: self.preference.unwrap_or(255),
            rapid_commit: self.rapid_commit,
            advertise,
        }
    }

    /// Checks what is advertised. What is not said follows from what DHCPv6 does.
    fn advertise(&self, problems: &mut Problems) -> Option<Advertise> {
        let mut wrong = |span: Range<usize>, message: String| problems.push((Some(span), message));
        let on = self.advertise.as_ref().is_some_and(|on| *on.get_ref());
        if !on {
            let flags = [
                ("managed", &self.managed),
                ("other", &self.other),
                ("autonomous", &self.autonomous),
                ("default-router", &self.default_router),
            ];
            let spans = flags
                .into_iter()
                .filter_map(|(name, flag)| Some((name, flag.as_ref()?.span())))
                .chain(self.prefix_lifetime.as_ref().map(|text| ("prefix-lifetime", text.span())))
                .chain(self.mtu.as_ref().map(|mtu| ("mtu", mtu.span())));
            for (name, span) in spans {
                wrong(span, format!("`{name}` goes with `advertise = true` only"));
            }
            return None;
        }
        if let Some(span) = self.advertise.as_ref().filter(|_| self.relay).map(Spanned::span) {
            let message = "a network behind a relay hears no advertisement of ours; its router has to send them";
            wrong(span, message.to_owned());
        }
        if let Some(prefix) = self.network.get_ref().split_once('/').map(|(_, prefix)| prefix)
            && prefix != "64"
            && self.autonomous.as_ref().is_some_and(|flag| *flag.get_ref())
        {
            let message = "machines make addresses of their own of a prefix of 64 bits only (RFC 4862 §5.5.3)";
            wrong(self.autonomous.as_ref().map_or(0..0, Spanned::span), message.to_owned());
        }
        if let Some(mtu) = self.mtu.as_ref().filter(|mtu| !(1280..=65_535).contains(mtu.get_ref()))
        {
            wrong(mtu.span(), "an MTU is a number from 1280 to 65535".to_owned());
        }
        let default = Advertise::default();
        let said = |flag: &Option<Spanned<bool>>, or| flag.as_ref().map_or(or, |f| *f.get_ref());
        let lifetime = self.prefix_lifetime.as_ref();
        let prefix_lifetime = lifetime.and_then(|text| {
            parse_duration(text.get_ref()).map_err(|message| wrong(text.span(), message)).ok()
        });
        Some(Advertise {
            managed: said(&self.managed, self.dhcp == Dhcp6Mode::Stateful),
            other: said(&self.other, self.dhcp != Dhcp6Mode::Off),
            autonomous: said(&self.autonomous, self.dhcp != Dhcp6Mode::Stateful),
            default_router: said(&self.default_router, default.default_router),
            prefix_lifetime: prefix_lifetime.unwrap_or(default.prefix_lifetime),
            mtu: self.mtu.as_ref().map(|mtu| *mtu.get_ref()),
        })
    }
}

fn parse_network(text: &str) -> Result<(Ipv6Addr, u8), String> {
    let error = || format!("`{text}` is not a network of IPv6; write it as fd00:77::/64");
    let (address, prefix) = text.split_once('/').ok_or_else(error)?;
    let address: Ipv6Addr = address.parse().map_err(|_| error())?;
    let prefix: u8 = prefix.parse().ok().filter(|p| (16..=120).contains(p)).ok_or_else(|| {
        format!("`{text}` has no usable prefix length; it is a number from 16 to 120")
    })?;
    if address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified() {
        return Err(format!("`{text}` is not a network that machines have addresses in"));
    }
    let network = Ipv6Addr::from_bits(address.to_bits() & mask(prefix));
    if network == address {
        Ok((address, prefix))
    } else {
        Err(format!("`{text}` has bits after its prefix; the network is {network}/{prefix}"))
    }
}

#[cfg(test)]
mod tests;
