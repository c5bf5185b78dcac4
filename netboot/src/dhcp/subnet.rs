use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::claims::Pooled;
use super::rules::Rules;

/// An IPv4 network, written `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: Ipv4Addr,
    prefix: u8,
}

impl Network {
    /// Makes a network of its first address and a prefix of 8 to 30, or nothing where they do not fit.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let aligned = address.to_bits() & !mask(prefix) == 0;
        ((8..=30).contains(&prefix) && aligned).then_some(Self { address, prefix })
    }

    /// Returns the first address, which names the network.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Returns the length of the prefix.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Returns the mask, `255.255.255.0` for a prefix of 24.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// Returns the last address, which all hosts hear.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask(self.prefix))
    }

    /// Returns whether the address is inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }

    /// Returns whether a host can have the address: inside, and neither first nor last.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.address && address != self.broadcast()
    }
}

const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        1..=31 => u32::MAX << (32 - prefix),
        _ => u32::MAX,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

/// The text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an IPv4 network; write its first address and a prefix of 8 to 30, such as 10.0.0.0/24"
)]
pub struct ParseNetworkError(String);

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = s.split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| ParseNetworkError(s.chars().take(40).collect()))
    }
}

/// What we are in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server that gives addresses and boot files.
    Server,
    /// Another server gives the addresses, we add the boot files.
    Proxy {
        /// Firmware is sent to port 4011 for its boot file, instead of being told in the offer.
        by_4011: bool,
    },
}

/// One network that the server answers in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The network.
    pub network: Network,
    /// Interface it is reached by.
    pub interface: String,
    /// Our own address there.
    pub address: Ipv4Addr,
    /// What we are there.
    pub role: Role,
    /// Whether its machines reach us by a relay; then our address is in another network.
    pub relayed: bool,
    /// Addresses for machines that have none reserved.
    pub pool: Vec<RangeInclusive<Ipv4Addr>>,
    /// Routers that the machines are told.
    pub router: Vec<Ipv4Addr>,
    /// Name servers that the machines are told.
    pub dns: Vec<Ipv4Addr>,
    /// Domain that the machines are told.
    pub domain: Option<String>,
    /// How long an address is given for.
    pub lease_time: Duration,
    /// What else is told, and how clients are treated.
    pub rules: Rules,
}

/// A subnet that cannot be served as it is described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// An address is not one of the network's hosts.
    #[error("{what} {address} is not a host address of {network}")]
    Outside {
        /// Which setting has it.
        what: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: Network,
    },
    /// A network behind a relay has our address.
    #[error("address {0} is in {1} itself, which is said to be behind a relay")]
    NotBehind(Ipv4Addr, Network),
    /// A range of the pool ends before it begins.
    #[error("pool {first}-{last} ends before it begins")]
    Backwards {
        /// Where it begins.
        first: Ipv4Addr,
        /// Where it ends.
        last: Ipv4Addr,
    },
    /// The lease time is out of bounds.
    #[error("a lease time of {} s is out of bounds; use 60 s to 30 days", .0.as_secs())]
    LeaseTime(Duration),
    /// A list or a name is longer than its option can hold.
    #[error("{0} is too long for a DHCP option; shorten it")]
    TooLong(&'static str),
}

impl Subnet {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    ///
    /// Returns the first setting that does not.
    pub fn check(&self) -> Result<(), SubnetError> {
        let inside = |what, address| {
            if self.network.is_host(address) {
                Ok(())
            } else {
                Err(SubnetError::Outside { what, address, network: self.network })
            }
        };
        if self.relayed {
            if self.network.contains(self.address) {
                return Err(SubnetError::NotBehind(self.address, self.network));
            }
        } else {
            inside("address", self.address)?;
        }
        for range in &self.pool {
            let (first, last) = (*range.start(), *range.end());
            if first > last {
                return Err(SubnetError::Backwards { first, last });
            }
            inside("pool address", first)?;
            inside("pool address", last)?;
        }
        for router in &self.router {
            inside("router", *router)?;
        }
        if !(60..=30 * 24 * 3600).contains(&self.lease_time.as_secs()) {
            return Err(SubnetError::LeaseTime(self.lease_time));
        }
        if self.router.len() > 16 {
            return Err(SubnetError::TooLong("router"));
        }
        if self.dns.len() > 16 {
            return Err(SubnetError::TooLong("dns"));
        }
        let rules = &self.rules;
        for time in [rules.min_lease, rules.max_lease].into_iter().flatten() {
            if !(60..=30 * 24 * 3600).contains(&time.as_secs()) {
                return Err(SubnetError::LeaseTime(time));
            }
        }
        for (what, length, most) in [
            ("ntp", rules.ntp.len(), 16),
            ("search", rules.search.len(), 16),
            ("routes", rules.routes.len(), 32),
        ] {
            if length > most {
                return Err(SubnetError::TooLong(what));
            }
        }
        match &self.domain {
            Some(domain) if domain.len() > 253 => Err(SubnetError::TooLong("domain")),
            _ => Ok(()),
        }
    }

    /// Returns whether the pool has the address and a machine may be given it.
    pub fn pool_has(&self, address: Ipv4Addr) -> bool {
        self.pool.iter().any(|range| range.contains(&address)) && self.may_give(address)
    }

    /// Returns whether a machine may have the address at all: a host's, and neither ours nor a router's.
    pub fn may_give(&self, address: Ipv4Addr) -> bool {
        self.network.is_host(address) && address != self.address && !self.router.contains(&address)
    }

    /// Returns every address of the pool once around, beginning at the place that `start` names.
    pub(crate) fn pool_from(&self, start: u64) -> impl Iterator<Item = Ipv4Addr> {
        let length = |range: &RangeInclusive<Ipv4Addr>| {
            let (first, last) = (range.start().to_bits(), range.end().to_bits());
            last.checked_sub(first).map_or(0, |more| u64::from(more) + 1)
        };
        let size: u64 = self.pool.iter().map(length).sum();
        let at = move |mut index: u64| {
            self.pool.iter().find_map(|range| {
                if let Some(rest) = index.checked_sub(length(range)) {
                    index = rest;
                    return None;
                }
                let offset = u32::try_from(index).ok()?;
                Some(Ipv4Addr::from_bits(range.start().to_bits().checked_add(offset)?))
            })
        };
        let start = start.checked_rem(size).unwrap_or(0);
        (start..size).chain(0..start).filter_map(at).filter(|address| self.may_give(*address))
    }
}

impl Pooled for Subnet {
    fn ranges(&self) -> Vec<RangeInclusive<u128>> {
        let bits = |address: &Ipv4Addr| u128::from(address.to_bits());
        let range = |range: &RangeInclusive<Ipv4Addr>| bits(range.start())..=bits(range.end());
        match self.role {
            Role::Server => self.pool.iter().map(range).collect(),
            Role::Proxy { .. } => Vec::new(),
        }
    }

    fn gives(&self, address: u128) -> bool {
        u32::try_from(address).is_ok_and(|bits| self.pool_has(Ipv4Addr::from_bits(bits)))
    }

    fn longest_lease(&self) -> Duration {
        self.rules.longest_lease(self.lease_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        Subnet {
            network: "10.0.0.0/24".parse().unwrap(),
            interface: "lan0".into(),
            address: [10, 0, 0, 1].into(),
            role: Role::Server,
            relayed: false,
            pool: vec![
                [10, 0, 0, 1].into()..=[10, 0, 0, 3].into(),
                [10, 0, 0, 9].into()..=[10, 0, 0, 9].into(),
            ],
            router: vec![[10, 0, 0, 2].into()],
            dns: vec![],
            domain: None,
            lease_time: Duration::from_secs(3600),
            rules: Rules::default(),
        }
    }

    #[test]
    fn a_network_is_its_first_address_and_a_prefix() {
        let network: Network = "10.0.4.0/22".parse().unwrap();
        assert_eq!(network.mask(), Ipv4Addr::new(255, 255, 252, 0));
        assert_eq!(network.broadcast(), Ipv4Addr::new(10, 0, 7, 255));
        assert!(network.is_host([10, 0, 5, 0].into()));
        assert!(!network.is_host([10, 0, 4, 0].into()));
        assert!(!network.contains([10, 0, 8, 0].into()));
        for bad in ["10.0.0.1/24", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/31", "0.0.0.0/0", "x/24"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pool_is_walked_once_around_without_our_own_addresses() {
        let walk = |start| subnet().pool_from(start).map(|a| a.octets()[3]).collect::<Vec<_>>();
        assert_eq!(walk(0), [3, 9]);
        assert_eq!(walk(3), [9, 3]);
        assert_eq!(walk(u64::MAX), [9, 3]);
        assert_eq!(Subnet { pool: vec![], ..subnet() }.pool_from(7).count(), 0);
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        assert_eq!(subnet().check(), Ok(()));
        let bad = Subnet { address: [10, 0, 1, 1].into(), ..subnet() };
        assert_eq!(
            bad.check().unwrap_err().to_string(),
            "address 10.0.1.1 is not a host address of 10.0.0.0/24"
        );
        let (first, last) = ([10, 0, 0, 9].into(), [10, 0, 0, 3].into());
        let bad = Subnet { pool: vec![RangeInclusive::new(first, last)], ..subnet() };
        assert_eq!(bad.check(), Err(SubnetError::Backwards { first, last }));
        let bad = Subnet { lease_time: Duration::from_secs(5), ..subnet() };
        assert!(bad.check().is_err());
    }
}
