/// What happens to one machine: the same in every run with the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64, number: u32) -> Self {
        Self(seed ^ u64::from(number).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below a bound, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Returns true so many times in a hundred.
    pub(super) fn percent(&mut self, percent: u8) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// Returns a number for a question of DHCP.
    pub(super) fn xid(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_has_the_same_faults_and_about_as_many_as_asked() {
        let draw = |seed| {
            let mut chance = Chance::new(seed, 7);
            (0..10_000).filter(|_| chance.percent(5)).count()
        };
        assert_eq!(draw(1), draw(1));
        assert!((400..600).contains(&draw(1)), "{}", draw(1));
        let mut chance = Chance::new(1, 1);
        assert!(!(0..1000).any(|_| chance.percent(0)) && (0..1000).all(|_| chance.percent(100)));
    }
}
