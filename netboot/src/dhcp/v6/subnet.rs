use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::dhcp::Pooled;

/// What is given in a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Addresses, and all that goes with them.
    Stateful,
    /// Boot files and name servers; an address only where one is reserved.
    Stateless,
}

/// One network of IPv6, as it was checked with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// First address of the network.
    pub network: Ipv6Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// Our own address, which machines are sent to.
    pub address: Ipv6Addr,
    /// What is given.
    pub mode: Mode,
    /// Whether it is behind a relay.
    pub relayed: bool,
    /// Addresses for machines without a reservation.
    pub pool: Vec<RangeInclusive<Ipv6Addr>>,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Domain.
    pub domain: Option<String>,
    /// How long a lease lasts.
    pub lease_time: Duration,
    /// How much clients are to prefer us.
    pub preference: u8,
    /// Whether one reply is enough for clients that say so.
    pub rapid_commit: bool,
}

impl Subnet {
    /// Returns whether an address is inside.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        address.to_bits() & mask == self.network.to_bits()
    }

    /// Returns whether a machine may have the address at all: one of the network, and neither ours nor the one that
    /// all of its routers answer to (RFC 4291 §2.6.1).
    pub fn may_give(&self, address: Ipv6Addr) -> bool {
        self.contains(address) && address != self.address && address != self.network
    }

    /// Returns whether the pool has the address and a machine may be given it.
    pub fn pool_has(&self, address: Ipv6Addr) -> bool {
        self.pool.iter().any(|range| range.contains(&address)) && self.may_give(address)
    }

    /// Returns every address of the pool once around, beginning at the place that `start` names.
    pub(super) fn pool_from(&self, start: u64) -> impl Iterator<Item = Ipv6Addr> {
        let length = |range: &RangeInclusive<Ipv6Addr>| pool_size(std::slice::from_ref(range));
        let size = pool_size(&self.pool);
        let at = move |mut index: u128| {
            self.pool.iter().find_map(|range| {
                if let Some(rest) = index.checked_sub(length(range)) {
                    index = rest;
                    return None;
                }
                range.start().to_bits().checked_add(index).map(Ipv6Addr::from_bits)
            })
        };
        let start = u128::from(start).checked_rem(size).unwrap_or(0);
        (start..size).chain(0..start).filter_map(at).filter(|address| self.may_give(*address))
    }
}

impl Pooled for Subnet {
    fn ranges(&self) -> Vec<RangeInclusive<u128>> {
        match self.mode {
            Mode::Stateful => self
                .pool
                .iter()
                .map(|range| range.start().to_bits()..=range.end().to_bits())
                .collect(),
            Mode::Stateless => Vec::new(),
        }
    }

    fn gives(&self, address: u128) -> bool {
        self.pool_has(Ipv6Addr::from_bits(address))
    }

    fn longest_lease(&self) -> Duration {
        self.lease_time
    }
}

/// Returns how many addresses these ranges have.
pub(crate) fn pool_size(pool: &[RangeInclusive<Ipv6Addr>]) -> u128 {
    pool.iter()
        .map(|range| {
            range.end().to_bits().saturating_sub(range.start().to_bits()).saturating_add(1)
        })
        .fold(0, u128::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_walked_once_around_without_our_own_addresses() {
        let address = |last: u16| Ipv6Addr::from([0xfd77, 0, 0, 0, 0, 0, 0, last]);
        let subnet = Subnet {
            network: address(0),
            prefix: 64,
            address: address(1),
            mode: Mode::Stateful,
            relayed: false,
            pool: vec![address(0)..=address(3), address(9)..=address(9)],
            dns: vec![],
            domain: None,
            lease_time: Duration::from_secs(60),
            preference: 0,
            rapid_commit: false,
        };
        let walk = |start| subnet.pool_from(start).map(|a| a.segments()[7]).collect::<Vec<_>>();
        assert_eq!(walk(0), [2, 3, 9]);
        assert_eq!(walk(3), [3, 9, 2]);
        assert_eq!(walk(u64::MAX), [2, 3, 9]);
        assert_eq!(Subnet { pool: vec![], ..subnet }.pool_from(7).count(), 0);
    }
}
