use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_inventory::Lease;
use kiln_types::Mac;

use super::book::Table;
use super::claims::{Ours, Shares};

/// A moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the time of the system's clock.
    pub fn now() -> Self {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// Returns the moment that is so much later.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// How long an offered address is kept for the machine it was offered to. UEFI takes three and a half seconds to
/// ask for it, and a slow switch port more.
const HOLD: Duration = Duration::from_secs(30);
/// How long an address that someone else uses is not given to anyone.
const QUARANTINE: Duration = Duration::from_secs(600);
/// How many offers are held at once. More are still made, but two machines may then be offered the same address,
/// and the slower one has to ask again.
const MAX_HOLDS: usize = 8192;

/// Who has which address, in memory. What is durable of it are the leases.
#[derive(Clone, Debug, Default)]
pub struct LeaseTable {
    leases: HashMap<Ipv4Addr, Lease>,
    by_mac: HashMap<Mac, Ipv4Addr>,
    holds: HashMap<Ipv4Addr, Hold>,
    held_by: HashMap<Mac, Ipv4Addr>,
    swept: Option<Timestamp>,
    quarantine: HashMap<Ipv4Addr, Timestamp>,
    /// What of the pools is ours.
    pub(super) ours: Ours,
}

/// An address that was offered.
#[derive(Clone, Copy, Debug)]
struct Hold {
    mac: Mac,
    until: Timestamp,
    /// Whether it was asked for on the wire, and nobody answered.
    probed: bool,
}

impl LeaseTable {
    /// Starts from the leases that were kept, in the order in which they were given: each replaces those of its address
    /// and of its hardware address.
    pub fn new(leases: Vec<Lease>) -> Self {
        let mut table = Self::default();
        for lease in leases {
            table.insert(lease);
        }
        table
    }

    /// Returns the lease of a hardware address, also when it has ended.
    pub fn of(&self, mac: Mac) -> Option<&Lease> {
        self.leases.get(self.by_mac.get(&mac)?)
    }

    /// Returns the lease of an address, also when it has ended.
    pub fn at(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.get(&address)
    }

    /// Returns the address that was offered to a hardware address and is still kept for it.
    pub fn held_for(&self, mac: Mac, now: Timestamp) -> Option<Ipv4Addr> {
        let address = self.held_by.get(&mac)?;
        self.holds.get(address).filter(|hold| hold.until > now).map(|_| *address)
    }

    /// Returns whether the address can be given to this hardware address: no one else has a lease that runs or was
    /// offered it, and no one was found to use it without a lease.
    pub fn is_free_for(&self, address: Ipv4Addr, mac: Mac, now: Timestamp) -> bool {
        let leased = self.leases.get(&address).is_some_and(|l| l.mac != mac && l.expires > now.0);
        let held = self.holds.get(&address).is_some_and(|hold| hold.mac != mac && hold.until > now);
        let declined = self.quarantine.get(&address).is_some_and(|until| *until > now);
        !(leased || held || declined)
    }

    /// Returns whether an address of a pool is ours to give.
    pub fn may_lease(&self, address: Ipv4Addr) -> bool {
        self.ours.may_lease(address.to_bits())
    }

    /// Takes in a lease. An older one of the same hardware address is forgotten, and so is its offer.
    pub fn insert(&mut self, lease: Lease) {
        self.drop_hold(lease.mac);
        self.ours.note_free();
        if let Some(old) = self.by_mac.insert(lease.mac, lease.address)
            && old != lease.address
        {
            self.leases.remove(&old);
        }
        if let Some(old) = self.leases.insert(lease.address, lease.clone())
            && old.mac != lease.mac
        {
            self.by_mac.remove(&old.mac);
        }
    }

    /// Keeps an address for the machine it was offered to.
    pub fn hold(&mut self, address: Ipv4Addr, mac: Mac, now: Timestamp) {
        let probed = self.is_probed(address, mac);
        self.drop_hold(mac);
        // Once a second at most: a flood of requests must not make each of them dear.
        if self.holds.len() >= MAX_HOLDS && self.swept.is_none_or(|swept| swept < now) {
            self.swept = Some(now);
            self.holds.retain(|_, hold| hold.until > now);
            self.held_by.retain(|_, address| self.holds.contains_key(address));
        }
        if self.holds.len() < MAX_HOLDS {
            let hold = Hold { mac, until: now.after(HOLD), probed };
            if let Some(old) = self.holds.insert(address, hold) {
                self.held_by.remove(&old.mac);
            }
            self.held_by.insert(mac, address);
        }
    }

    /// Gives up what was offered to a machine.
    pub fn drop_hold(&mut self, mac: Mac) {
        if let Some(address) = self.held_by.remove(&mac) {
            self.holds.remove(&address);
            self.ours.note_free();
        }
    }

    /// Notes that nobody answered for an address that was offered to a machine.
    pub fn note_probed(&mut self, address: Ipv4Addr, mac: Mac) {
        if let Some(hold) = self.holds.get_mut(&address).filter(|hold| hold.mac == mac) {
            hold.probed = true;
        }
    }

    /// Returns whether nobody answered for an address that was offered to a machine.
    pub fn is_probed(&self, address: Ipv4Addr, mac: Mac) -> bool {
        self.holds.get(&address).is_some_and(|hold| hold.mac == mac && hold.probed)
    }

    /// Returns every lease, also those that have ended, in the order of addresses.
    pub fn all(&self) -> Vec<Lease> {
        let mut all: Vec<Lease> = self.leases.values().cloned().collect();
        all.sort_by_key(|lease| lease.address);
        all
    }

    /// Keeps an address from everyone for ten minutes.
    pub fn quarantine(&mut self, address: Ipv4Addr, now: Timestamp) {
        self.quarantine.retain(|_, until| *until > now);
        self.quarantine.insert(address, now.after(QUARANTINE));
    }
}

impl Table for LeaseTable {
    type Lease = Lease;
    const NAME: &'static str = "leases";

    fn shift(&mut self, seconds: i64, then: Timestamp) -> Vec<Lease> {
        let mut moved = Vec::new();
        for lease in self.leases.values_mut().filter(|lease| lease.expires > then.0) {
            lease.expires = lease.expires.saturating_add(seconds);
            moved.push(lease.clone());
        }
        let ends = self.holds.values_mut().map(|hold| &mut hold.until);
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
        // Of no interface.
        let nobody = Mac::new([0; 6]);
        u32::try_from(address)
            .is_ok_and(|bits| self.is_free_for(Ipv4Addr::from_bits(bits), nobody, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1000);

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    fn lease(address: u8, who: u8, expires: i64) -> Lease {
        Lease { address: [10, 0, 0, address].into(), mac: mac(who), expires, hostname: None }
    }

    #[test]
    fn a_machine_and_an_address_have_one_lease() {
        let mut table = LeaseTable::new(vec![lease(4, 1, 4000), lease(5, 1, 3000)]);
        assert_eq!(table.of(mac(1)), Some(&lease(5, 1, 3000)));
        assert_eq!(table.at([10, 0, 0, 4].into()), None);
        table.insert(lease(5, 2, 4000));
        assert_eq!((table.of(mac(1)), table.of(mac(2))), (None, Some(&lease(5, 2, 4000))));
    }

    #[test]
    fn an_address_is_free_once_its_lease_has_ended() {
        let table = LeaseTable::new(vec![lease(4, 1, 1001), lease(5, 2, 1000)]);
        assert!(!table.is_free_for([10, 0, 0, 4].into(), mac(9), NOW));
        assert!(table.is_free_for([10, 0, 0, 4].into(), mac(1), NOW));
        assert!(table.is_free_for([10, 0, 0, 5].into(), mac(9), NOW));
        assert!(table.of(mac(2)).is_some(), "the memory of who had it stays");
    }

    #[test]
    fn offers_and_quarantine_end() {
        let mut table = LeaseTable::default();
        let (first, second) = ([10, 0, 0, 4].into(), [10, 0, 0, 5].into());
        table.hold(first, mac(1), NOW);
        table.quarantine(second, NOW);
        assert_eq!(table.held_for(mac(1), NOW), Some(first));
        assert!(!table.is_free_for(first, mac(2), NOW));
        assert!(!table.is_free_for(second, mac(1), NOW));
        assert!(table.is_free_for(first, mac(2), NOW.after(HOLD)));
        assert_eq!(table.held_for(mac(1), NOW.after(HOLD)), None);
        assert!(table.is_free_for(second, mac(1), NOW.after(QUARANTINE)));
    }

    #[test]
    fn a_clock_that_is_set_neither_ends_nor_lengthens_leases() {
        for step in [-500_000, 500_000] {
            let mut table = LeaseTable::new(vec![lease(4, 1, 1100), lease(5, 2, 900)]);
            table.hold([10, 0, 0, 6].into(), mac(3), NOW);
            assert_eq!(table.shift(step, NOW), [lease(4, 1, 1100 + step)]);
            let now = Timestamp(NOW.0 + step);
            assert!(!table.is_free_for([10, 0, 0, 4].into(), mac(9), Timestamp(now.0 + 99)));
            assert!(table.is_free_for([10, 0, 0, 4].into(), mac(9), Timestamp(now.0 + 100)));
            assert_eq!(table.of(mac(2)), Some(&lease(5, 2, 900)), "this one had ended");
            assert_eq!(table.held_for(mac(3), now), Some([10, 0, 0, 6].into()));
        }
    }

    #[test]
    fn what_was_probed_is_forgotten_with_the_offer() {
        let mut table = LeaseTable::default();
        let address = [10, 0, 0, 4].into();
        table.hold(address, mac(1), NOW);
        table.note_probed(address, mac(2));
        assert!(!table.is_probed(address, mac(1)));
        table.note_probed(address, mac(1));
        table.hold(address, mac(1), NOW);
        assert!(table.is_probed(address, mac(1)), "a second offer of the same");
        table.drop_hold(mac(1));
        table.hold(address, mac(1), NOW);
        assert!(!table.is_probed(address, mac(1)));
    }

    #[test]
    fn offers_are_bounded() {
        let mut table = LeaseTable::default();
        for number in 0..20_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            table.hold(Ipv4Addr::from_bits(number), Mac::new([2, 0, 0, a, b, c]), NOW);
        }
        assert_eq!((table.holds.len(), table.held_by.len()), (MAX_HOLDS, MAX_HOLDS));
        table.hold([10, 0, 0, 1].into(), Mac::new([6; 6]), NOW.after(HOLD));
        assert_eq!((table.holds.len(), table.held_by.len()), (1, 1));
    }
}
