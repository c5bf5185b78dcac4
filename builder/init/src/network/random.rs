//! Numbers that two machines hardly have at the same time; nothing secret depends on them.

use std::time::Duration;

/// A generator (xorshift64).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed | 1)
    }

    /// Returns one with a seed of its own.
    pub(super) fn of_this_machine() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::new(RandomState::new().hash_one(crate::clock::uptime()))
    }

    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half is the better one.
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    /// Returns a time that differs by a tenth at most, so that machines that start together do not go on together.
    pub(super) fn about(&mut self, time: Duration) -> Duration {
        // 0.9 to 1.1, in thousandths.
        let thousandths = 900 + self.next() % 201;
        time.saturating_mul(thousandths) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_differs_by_a_tenth_at_most_and_not_always_alike() {
        let mut random = Random::new(0);
        let times: Vec<u128> =
            (0..100).map(|_| random.about(Duration::from_secs(1)).as_millis()).collect();
        assert!(times.iter().all(|time| (900..=1100).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time < 950) && times.iter().any(|time| *time > 1050));
        assert_eq!(Random::new(3).about(Duration::MAX).as_secs(), u64::MAX / 1000);
    }
}
