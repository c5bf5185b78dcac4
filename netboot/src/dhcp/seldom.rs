use std::time::Duration;

use tokio::time::Instant;

/// How often something that may happen with every packet is told.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets one message through every ten seconds, so that the log of a server that has too much to do is not one more
/// thing to do.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    told: Option<Instant>,
    kept: u64,
}

impl Seldom {
    /// Counts one, and returns how many there were since the last that was told when it is time to tell.
    pub(super) fn tell(&mut self, now: Instant) -> Option<u64> {
        self.kept += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < PERIOD) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_in_ten_seconds_is_told_with_how_many_there_were() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.tell(start), Some(1));
        let more = (0..500).filter(|_| seldom.tell(start + PERIOD / 2).is_some()).count();
        assert_eq!(more, 0);
        assert_eq!(seldom.tell(start + PERIOD), Some(501));
    }
}
