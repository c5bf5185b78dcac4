use std::collections::HashMap;
use std::hash::Hash;

use kiln_types::Mac;

use super::leases::Timestamp;

/// Packets that one hardware address may send in a second.
pub(super) const FLOOD: u32 = 20;
/// Packets in all that are looked at in a second.
const FLOOD_IN_ALL: u32 = 100_000;
/// Hardware addresses that are counted in one second.
const FLOOD_TABLE: usize = 4096;

/// Counts packets by hardware address, or by whatever names a sender, afresh each second.
#[derive(Debug)]
pub(super) struct Flood<K = Mac> {
    second: i64,
    all: u32,
    counts: HashMap<K, u32>,
}

impl<K> Default for Flood<K> {
    fn default() -> Self {
        Self { second: 0, all: 0, counts: HashMap::new() }
    }
}

impl<K: Eq + Hash> Flood<K> {
    /// Counts a packet and returns whether its sender may have sent it.
    pub(super) fn admits(&mut self, sender: K, now: Timestamp) -> bool {
        if self.second != now.0 {
            self.second = now.0;
            self.counts.clear();
            self.all = 0;
        }
        self.all = self.all.saturating_add(1);
        if self.all > FLOOD_IN_ALL {
            return false;
        }
        if self.counts.len() >= FLOOD_TABLE && !self.counts.contains_key(&sender) {
            return true;
        }
        let count = self.counts.entry(sender).or_insert(0);
        *count = count.saturating_add(1);
        *count <= FLOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_noisy_machine_does_not_take_the_turn_of_others() {
        let mut flood = Flood::default();
        let (noisy, quiet) = (Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 2]));
        let now = Timestamp(5);
        let admitted = (0..100).filter(|_| flood.admits(noisy, now)).count();
        assert_eq!(admitted, 20);
        assert!(flood.admits(quiet, now));
        assert!(flood.admits(noisy, Timestamp(6)));
    }

    #[test]
    fn all_together_are_bounded_too() {
        let mut flood = Flood::default();
        let many = (0..FLOOD_IN_ALL + 9).map(|number| {
            let [a, b, c, d] = number.to_be_bytes();
            Mac::new([2, 0, a, b, c, d])
        });
        let admitted = many.filter(|mac| flood.admits(*mac, Timestamp(5))).count();
        assert_eq!(u32::try_from(admitted), Ok(FLOOD_IN_ALL));
        assert!(flood.counts.len() <= FLOOD_TABLE);
        assert!(flood.admits(Mac::new([2; 6]), Timestamp(6)));
    }
}
