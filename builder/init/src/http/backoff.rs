//! How long to wait until a server that is away, or has too much to do, is asked again.

use std::time::Duration;

use crate::clock::uptime;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Longer and longer pauses, never all machines of a rack at the same moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// Returns the next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = FIRST_RETRY.saturating_mul(1 << self.0.min(6)).min(LONGEST_RETRY);
        self.0 = self.0.saturating_add(1);
        // The low digits of the clock are as good as a die here.
        let part = u32::from(uptime().subsec_nanos().to_le_bytes()[1]);
        pause * 3 / 4 + pause / 2 * part / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_stay_there() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST_RETRY * 5 / 4 && pauses[0] >= FIRST_RETRY * 3 / 4);
        assert!(pauses[20..].iter().all(|p| *p >= LONGEST_RETRY * 3 / 4));
        assert!(pauses.iter().all(|p| *p <= LONGEST_RETRY * 5 / 4));
    }
}
