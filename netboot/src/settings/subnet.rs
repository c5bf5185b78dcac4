//! `[[subnet]]`: one network that is served.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::rules::WireRules;
use super::{Problems, parse_duration, parse_range};
use crate::dhcp::{Hostnames, Rules};

/// What the server does about DHCP in one subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpMode {
    /// Gives addresses and boot files.
    #[default]
    Server,
    /// Boot files only, beside another server that gives the addresses.
    Proxy,
    /// Nothing: TFTP and HTTP only.
    Off,
}

/// Checked settings of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSettings {
    /// Address of the network.
    pub network: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// Network interface that is in it.
    pub interface: String,
    /// Our own address in it.
    pub address: Ipv4Addr,
    /// Whether we give addresses there.
    pub dhcp: DhcpMode,
    /// Whether a proxy sends firmware to port 4011 for its boot file.
    pub boot_server: bool,
    /// Whether its machines reach us by a relay, so that our address is in another network.
    pub relay: bool,
    /// Addresses for machines without a reservation.
    pub pool: Vec<RangeInclusive<Ipv4Addr>>,
    /// Routers that machines are told.
    pub router: Vec<Ipv4Addr>,
    /// Name servers that machines are told.
    pub dns: Vec<Ipv4Addr>,
    /// Domain that machines are told.
    pub domain: Option<String>,
    /// How long a lease lasts.
    pub lease_time: Duration,
    /// What else machines are told, and how they are treated.
    pub rules: Rules,
}

impl SubnetSettings {
    /// Returns a subnet whose addresses another server gives.
    #[cfg(test)]
    pub(crate) fn without_dhcp(
        network: Ipv4Addr,
        prefix: u8,
        interface: &str,
        address: Ipv4Addr,
    ) -> Self {
        Self {
            network,
            prefix,
            interface: interface.to_owned(),
            address,
            dhcp: DhcpMode::Off,
            boot_server: false,
            relay: false,
            pool: Vec::new(),
            router: Vec::new(),
            dns: Vec::new(),
            domain: None,
            lease_time: Duration::from_secs(3600),
            rules: Rules::default(),
        }
    }

    /// Returns whether some address is in both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.network.to_bits() & mask == other.network.to_bits() & mask
    }

    /// Returns whether an address is inside.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireSubnet {
    network: Spanned<String>,
    interface: Spanned<String>,
    address: Spanned<Ipv4Addr>,
    #[serde(default)]
    dhcp: DhcpMode,
    boot_server: Option<Spanned<bool>>,
    #[serde(default)]
    relay: bool,
    #[serde(default)]
    pool: Vec<Spanned<String>>,
    #[serde(default)]
    router: Vec<Spanned<Ipv4Addr>>,
    #[serde(default)]
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    lease_time: Option<Spanned<String>>,
    // Listed here and not flattened, which would let unknown keys through.
    authoritative: Option<bool>,
    conflict_probe: Option<bool>,
    min_lease_time: Option<Spanned<String>>,
    max_lease_time: Option<Spanned<String>>,
    shared_network: Option<Spanned<String>>,
    #[serde(default)]
    ntp: Vec<Ipv4Addr>,
    #[serde(default)]
    search: Vec<Spanned<String>>,
    #[serde(default)]
    routes: Vec<Spanned<String>>,
    mtu: Option<Spanned<u16>>,
    #[serde(default)]
    hostnames: Hostnames,
    #[serde(default)]
    options: BTreeMap<String, Spanned<String>>,
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl WireSubnet {
    /// Checks one subnet by itself.
    pub(super) fn check(self, problems: &mut Problems) -> SubnetSettings {
        let mut wrong = |span: Range<usize>, message: String| problems.push((Some(span), message));
        let (network, prefix) = parse_network(self.network.get_ref()).unwrap_or_else(|message| {
            wrong(self.network.span(), message);
            (Ipv4Addr::UNSPECIFIED, 0)
        });
        let mask = mask(prefix);
        let inside = |address: Ipv4Addr| address.to_bits() & mask == network.to_bits();
        let outside = |address| format!("address {address} is not in {network}/{prefix}");
        let own = (!self.relay).then_some(&self.address);
        for address in self.router.iter().chain(own) {
            if !inside(*address.get_ref()) {
                wrong(address.span(), outside(*address.get_ref()));
            }
        }
        if self.relay && inside(*self.address.get_ref()) {
            let address = self.address.get_ref();
            let message = format!(
                "address {address} is in {network}/{prefix} itself; behind a relay, it is where the relay reaches us"
            );
            wrong(self.address.span(), message);
        }
        if let Some(span) = self.boot_server.as_ref().filter(|_| self.dhcp != DhcpMode::Proxy) {
            wrong(span.span(), "`boot-server` goes with `dhcp = \"proxy\"` only".to_owned());
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
            match parse_range(text.get_ref(), "10.0.0.100-10.0.0.199") {
                Ok(range) if inside(*range.start()) && inside(*range.end()) => pool.push(range),
                Ok(range) => {
                    let address = if inside(*range.start()) { range.end() } else { range.start() };
                    wrong(text.span(), outside(*address));
                }
                Err(message) => wrong(text.span(), message),
            }
        }
        let lease_time = self.lease_time.as_ref().map_or(Ok(Duration::from_secs(3600)), |text| {
            parse_duration(text.get_ref()).map_err(|message| (text.span(), message))
        });
        let lease_time = lease_time.unwrap_or_else(|(span, message)| {
            wrong(span, message);
            Duration::from_secs(3600)
        });
        let rules = WireRules {
            authoritative: self.authoritative,
            conflict_probe: self.conflict_probe,
            min_lease_time: self.min_lease_time,
            max_lease_time: self.max_lease_time,
            shared_network: self.shared_network,
            ntp: self.ntp,
            search: self.search,
            routes: self.routes,
            mtu: self.mtu,
            hostnames: self.hostnames,
            options: self.options,
        };
        SubnetSettings {
            network,
            prefix,
            interface: self.interface.into_inner(),
            address: self.address.into_inner(),
            dhcp: self.dhcp,
            boot_server: self.boot_server.is_some_and(Spanned::into_inner),
            relay: self.relay,
            pool,
            router: self.router.into_iter().map(Spanned::into_inner).collect(),
            dns: self.dns,
            domain: self.domain,
            lease_time,
            rules: rules.check(self.relay, lease_time, problems),
        }
    }
}

fn parse_network(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let error = || format!("`{text}` is not a network; write it as 10.0.0.0/24");
    let (address, prefix) = text.split_once('/').ok_or_else(error)?;
    let address: Ipv4Addr = address.parse().map_err(|_| error())?;
    let prefix: u8 = prefix.parse().ok().filter(|p| (8..=30).contains(p)).ok_or_else(|| {
        format!("`{text}` has no usable prefix length; it is a number from 8 to 30")
    })?;
    let network = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
    if network == address {
        Ok((address, prefix))
    } else {
        Err(format!("`{text}` has bits after its prefix; the network is {network}/{prefix}"))
    }
}
