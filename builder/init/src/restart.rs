//! When a service that has ended is started again.

use std::time::Duration;

use crate::config::Restart;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Who has run this long was well: the next fault is counted from the start.
const WELL: Duration = Duration::from_secs(60);

/// Waits longer after each fault in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    faults: u32,
}

impl Backoff {
    /// Returns how long to wait until the next start, or `None` when there is none.
    pub(crate) fn after(
        &mut self,
        policy: Restart,
        success: bool,
        ran_for: Duration,
    ) -> Option<Duration> {
        match policy {
            Restart::Never => return None,
            Restart::OnFailure if success => return None,
            Restart::Always | Restart::OnFailure => {}
        }
        if ran_for >= WELL {
            self.faults = 0;
        }
        let factor = 1_u32.checked_shl(self.faults).unwrap_or(u32::MAX);
        self.faults = self.faults.saturating_add(1);
        Some(SHORTEST.saturating_mul(factor).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_half_a_minute_and_starts_again_after_a_good_run() {
        let mut backoff = Backoff::default();
        let mut wait = |ran| backoff.after(Restart::Always, false, Duration::from_secs(ran));
        let millis: Vec<_> = (0..8).map(|_| wait(0).map_or(0, |wait| wait.as_millis())).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(wait(61), Some(SHORTEST));
    }

    #[test]
    fn the_policy_decides_whether_there_is_a_next_time() {
        let ran = Duration::from_secs(1);
        let after = |policy, success| Backoff::default().after(policy, success, ran).is_some();
        assert!(after(Restart::Always, true));
        assert!(!after(Restart::OnFailure, true));
        assert!(after(Restart::OnFailure, false));
        assert!(!after(Restart::Never, false));
    }

    #[test]
    fn very_many_faults_do_not_overflow() {
        let mut backoff = Backoff { faults: u32::MAX };
        assert_eq!(backoff.after(Restart::Always, false, Duration::ZERO), Some(LONGEST));
    }
}
