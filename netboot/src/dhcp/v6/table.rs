use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;
use std::time::Duration;

use kiln_inventory::{Duid, Lease6};
use kiln_types::Mac;

use super::subnet::Subnet;
use crate::dhcp::book::Table;
use crate::dhcp::claims::addresses;
use crate::dhcp::{Ours, Shares, Timestamp};

/// How long an offered address is kept for the client it was offered to; see the same for IPv4.
const HOLD: Duration = Duration::from_secs(30);
/// How long an address that someone else uses is not given to anyone.
const QUARANTINE: Duration = Duration::from_secs(600);
/// How many offers are held at once.
const MAX_HOLDS: usize = 8192;

/// Who asks for an address: one association of one client, on an interface that may be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What the client calls itself.
    pub duid: Duid,
    /// Which of its associations.
    pub iaid: u32,
    /// Hardware address of the interface, where it is known.
    pub mac: Option<Mac>,
}

impl Holder {
    fn is(&self, duid: &Duid, iaid: u32) -> bool {
        self.duid == *duid && self.iaid == iaid
    }

    /// Returns whether it is another program of the same machine, which takes over what the one before had.
    fn follows(&self, duid: &Duid, mac: Option<Mac>) -> bool {
        self.duid != *duid && self.mac.is_some() && self.mac == mac
    }
}

/// Who has which address of IPv6, in memory. What is durable of it are the leases. Bounded by the pools.
#[derive(Clone, Debug, Default)]
pub struct LeaseTable {
    leases: BTreeMap<Ipv6Addr, Lease6>,
    by_association: HashMap<(Duid, u32), Ipv6Addr>,
    by_mac: HashMap<Mac, Ipv6Addr>,
    holds: HashMap<Ipv6Addr, (Holder, Timestamp)>,
    swept: Option<Timestamp>,
    quarantine: BTreeMap<Ipv6Addr, Timestamp>,
    /// What of the pools is ours.
    pub(in crate::dhcp) ours: Ours,
}

impl LeaseTable {
    /// Starts from the leases that were kept.
    pub fn new(mut leases: Vec<Lease6>) -> Self {
        leases.sort_by_key(|lease| lease.expires);
        let mut table = Self::default();
        for lease in leases {
            table.insert(lease);
        }
        table
    }

    /// Returns the lease of an association, also when it has ended.
    pub fn of(&self, duid: &Duid, iaid: u32) -> Option<&Lease6> {
        // A key of its own would be a copy; that is cheap beside the rest of a packet.
        self.leases.get(self.by_association.get(&(duid.clone(), iaid))?)
    }

    /// Returns the lease that an interface had last, whichever of its programs asked for it.
    pub fn of_mac(&self, mac: Mac) -> Option<&Lease6> {
        self.leases.get(self.by_mac.get(&mac)?).filter(|lease| lease.mac == Some(mac))
    }

    /// Returns the lease of an address, also when it has ended.
    pub fn at(&self, address: Ipv6Addr) -> Option<&Lease6> {
        self.leases.get(&address)
    }

    /// Returns whether an address was offered to this client and is still kept for it.
    pub fn is_held_for(&self, address: Ipv6Addr, who: &Holder, now: Timestamp) -> bool {
        let held = self.holds.get(&address).filter(|(_, until)| *until > now);
        held.is_some_and(|(holder, _)| holder.is(&who.duid, who.iaid))
    }

    /// Returns the address that is kept for this client.
    pub fn held_for(&self, who: &Holder, now: Timestamp) -> Option<Ipv6Addr> {
        let wanted = |(_, (holder, until)): &(&Ipv6Addr, &(Holder, Timestamp))| {
            holder.is(&who.duid, who.iaid) && *until > now
        };
        self.holds.iter().find(wanted).map(|(address, _)| *address)
    }

    /// Returns whether the address can be given to this client: no other one has a lease that runs or was offered it,
    /// and no one was found to use it without a lease.
    pub fn is_free_for(&self, address: Ipv6Addr, who: &Holder, now: Timestamp) -> bool {
        let leased = self.leases.get(&address).is_some_and(|lease| {
            lease.expires > now.0
                && !who.is(&lease.duid, lease.iaid)
                && !who.follows(&lease.duid, lease.mac)
        });
        let held = self.holds.get(&address).is_some_and(|(holder, until)| {
            *until > now
                && !who.is(&holder.duid, holder.iaid)
                && !who.follows(&holder.duid, holder.mac)
        });
        !(leased || held || self.is_quarantined(address, now))
    }

    /// Returns whether someone was found to use the address without a lease.
    pub fn is_quarantined(&self, address: Ipv6Addr, now: Timestamp) -> bool {
        self.quarantine.get(&address).is_some_and(|until| *until > now)
    }

    /// Returns whether an address of a pool is ours to give.
    pub fn may_lease(&self, address: Ipv6Addr) -> bool {
        self.ours.may_lease(address.to_bits())
    }

    /// Returns the addresses that are ours to give in the pool of a subnet, once around, beginning at the place that
    /// `start` names: all of the pool, or what is claimed of it.
    pub(super) fn pool_from<'a>(
        &'a self,
        subnet: &'a Subnet,
        start: u64,
    ) -> Box<dyn Iterator<Item = Ipv6Addr> + 'a> {
        let Some(claimed) = self.ours.blocks() else { return Box::new(subnet.pool_from(start)) };
        let in_network =
            |block: &u128| addresses(*block).any(|it| subnet.pool_has(Ipv6Addr::from_bits(it)));
        let mut blocks: Vec<u128> = claimed.iter().copied().filter(in_network).collect();
        blocks.sort_unstable();
        let places = u64::try_from(blocks.len()).unwrap_or(u64::MAX).max(1);
        let first = usize::try_from(start % places).unwrap_or(0).min(blocks.len());
        blocks.rotate_left(first);
        let all = blocks.into_iter().flat_map(addresses).map(Ipv6Addr::from_bits);
        Box::new(all.filter(|address| subnet.pool_has(*address)))
    }

    /// Returns every lease, also those that have ended, in the order of addresses.
    pub(super) fn all(&self) -> Vec<Lease6> {
        self.leases.values().cloned().collect()
    }

    /// Returns the addresses whose leases run.
    pub(super) fn used(&self, now: Timestamp) -> Vec<Ipv6Addr> {
        let runs = |lease: &&Lease6| lease.expires > now.0;
        self.leases.values().filter(runs).map(|lease| lease.address).collect()
    }

    /// Returns whether the address is in use by another association of the same interface.
    pub fn is_of_interface(&self, address: Ipv6Addr, mac: Mac) -> bool {
        self.leases.get(&address).is_some_and(|lease| lease.mac == Some(mac))
    }

    /// Takes in a lease. An older one of the same association is forgotten, and so is its offer.
    pub fn insert(&mut self, lease: Lease6) {
        self.holds.remove(&lease.address);
        self.ours.note_free();
        let key = (lease.duid.clone(), lease.iaid);
        if let Some(old) = self.by_association.insert(key, lease.address)
            && old != lease.address
        {
            self.leases.remove(&old);
        }
        if let Some(mac) = lease.mac {
            self.by_mac.insert(mac, lease.address);
        }
        let (address, mac) = (lease.address, lease.mac);
        let now = (lease.duid.clone(), lease.iaid);
        if let Some(old) = self.leases.insert(address, lease) {
            let key = (old.duid, old.iaid);
            if key != now {
                self.by_association.remove(&key);
            }
            if let Some(old) = old.mac.filter(|old| mac != Some(*old))
                && self.by_mac.get(&old) == Some(&address)
            {
                self.by_mac.remove(&old);
            }
        }
    }

    /// Keeps an address for the client it was offered to.
    pub fn hold(&mut self, address: Ipv6Addr, who: Holder, now: Timestamp) {
        // Once a second at most: a flood of requests must not make each of them dear.
        if self.holds.len() >= MAX_HOLDS && self.swept.is_none_or(|swept| swept < now) {
            self.swept = Some(now);
            self.holds.retain(|_, (_, until)| *until > now);
        }
        if self.holds.len() < MAX_HOLDS || self.holds.contains_key(&address) {
            self.holds.insert(address, (who, now.after(HOLD)));
        }
    }

    /// Keeps an address from everyone for ten minutes.
    pub fn quarantine(&mut self, address: Ipv6Addr, now: Timestamp) {
        self.holds.remove(&address);
        self.quarantine.retain(|_, until| *until > now);
        self.quarantine.insert(address, now.after(QUARANTINE));
    }
}

impl Table for LeaseTable {
    type Lease = Lease6;
    const NAME: &'static str = "leases of IPv6";

    fn shift(&mut self, seconds: i64, then: Timestamp) -> Vec<Lease6> {
        let mut moved = Vec::new();
        for lease in self.leases.values_mut().filter(|lease| lease.expires > then.0) {
            lease.expires = lease.expires.saturating_add(seconds);
            moved.push(lease.clone());
        }
        let ends = self.holds.values_mut().map(|(_, until)| until);
        for until in ends.chain(self.quarantine.values_mut()) {
            until.0 = until.0.saturating_add(seconds);
        }
        moved
    }
}

impl Shares for LeaseTable {
    fn ours(&self) -> &Ours {
        &self.ours
    }

    fn ours_mut(&mut self) -> &mut Ours {
        &mut self.ours
    }

    fn is_idle(&self, address: u128, now: Timestamp) -> bool {
        let address = Ipv6Addr::from_bits(address);
        let leased = self.leases.get(&address).is_some_and(|lease| lease.expires > now.0);
        let held = self.holds.get(&address).is_some_and(|(_, until)| *until > now);
        !(leased || held || self.is_quarantined(address, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1000);

    fn holder(who: u8, iaid: u32, mac: Option<u8>) -> Holder {
        let mac = mac.map(|last| Mac::new([2, 0, 0, 0, 0, last]));
        Holder { duid: Duid::new(&[0, 4, who]).unwrap(), iaid, mac }
    }

    fn address(last: u16) -> Ipv6Addr {
        [0xfd77, 0, 0, 0, 0, 0, 0, last].into()
    }

    fn lease(last: u16, who: &Holder, expires: i64) -> Lease6 {
        let Holder { duid, iaid, mac } = who.clone();
        Lease6 { address: address(last), duid, iaid, mac, expires }
    }

    #[test]
    fn an_association_and_an_address_have_one_lease() {
        let (one, two) = (holder(1, 7, Some(1)), holder(2, 7, Some(2)));
        let mut table = LeaseTable::new(vec![lease(5, &one, 3000), lease(4, &one, 2000)]);
        assert_eq!(table.of(&one.duid, 7), Some(&lease(5, &one, 3000)));
        assert_eq!(table.at(address(4)), None);
        table.insert(lease(5, &two, 4000));
        assert_eq!((table.of(&one.duid, 7), table.of_mac(one.mac.unwrap())), (None, None));
        assert_eq!(table.of_mac(two.mac.unwrap()), Some(&lease(5, &two, 4000)));
    }

    #[test]
    fn the_next_program_of_a_machine_takes_over_what_the_one_before_had() {
        let firmware = holder(1, 7, Some(1));
        let table = LeaseTable::new(vec![lease(5, &firmware, 3000)]);
        let free = |who: &Holder| table.is_free_for(address(5), who, NOW);
        assert!(free(&firmware) && free(&holder(2, 9, Some(1))));
        // Another interface, one that is not known, and another association of the same client.
        assert!(!free(&holder(2, 9, Some(2))) && !free(&holder(2, 9, None)));
        assert!(!free(&holder(1, 8, Some(1))));
        assert!(table.is_free_for(address(5), &holder(2, 9, None), Timestamp(3000)));
    }

    #[test]
    fn a_clock_that_is_set_neither_ends_nor_lengthens_leases() {
        let (one, two, three) = (holder(1, 7, None), holder(2, 7, None), holder(3, 7, None));
        for step in [-500_000, 500_000] {
            let mut table = LeaseTable::new(vec![lease(4, &one, 1100), lease(5, &two, 900)]);
            table.hold(address(6), three.clone(), NOW);
            table.quarantine(address(7), NOW);
            assert_eq!(table.shift(step, NOW), [lease(4, &one, 1100 + step)]);
            let at = |seconds: i64| Timestamp(NOW.0 + step + seconds);
            assert!(!table.is_free_for(address(4), &two, at(99)));
            assert!(table.is_free_for(address(4), &two, at(100)));
            assert_eq!(table.at(address(5)), Some(&lease(5, &two, 900)), "this one had ended");
            assert_eq!(table.held_for(&three, at(0)), Some(address(6)));
            assert!(!table.is_free_for(address(7), &one, at(0)));
            assert!(table.is_free_for(address(7), &one, at(600)));
        }
    }

    #[test]
    fn offers_and_quarantine_end_and_are_bounded() {
        let mut table = LeaseTable::default();
        let (one, two) = (holder(1, 1, None), holder(2, 1, None));
        table.hold(address(5), one.clone(), NOW);
        assert!(!table.is_free_for(address(5), &two, NOW));
        assert_eq!(table.held_for(&one, NOW), Some(address(5)));
        assert!(table.is_free_for(address(5), &two, NOW.after(HOLD)));
        table.quarantine(address(5), NOW);
        assert!(!table.is_free_for(address(5), &one, NOW));
        assert!(table.is_free_for(address(5), &one, NOW.after(QUARANTINE)));
        for number in 0..20_000_u32 {
            let [a, b] = [number >> 16, number & 0xffff].map(|n| u16::try_from(n).unwrap());
            table.hold([0xfd77, 0, 0, 0, 0, 0, a, b].into(), holder(1, number, None), NOW);
        }
        assert_eq!(table.holds.len(), MAX_HOLDS);
    }
}
