//! When a service that has ended is started again, and how much is said of it.

use std::time::Duration;

use crate::config::{Restart, Service};

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Who has run this long was well: the next fault is counted from the start.
pub(crate) const WELL: Duration = Duration::from_secs(60);
/// After so many ends in a row nothing new is learned from the next.
const LOUD: u32 = 5;

/// Waits longer after each fault in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    faults: u32,
    shortest: Duration,
    longest: Duration,
}

/// What comes before the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) wait: Duration,
    pub(crate) told: Told,
}

/// Whether an end is worth a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Each,
    /// Now, that it was so often, and then no more.
    LastTime(u32),
    Silent,
}

impl Backoff {
    pub(crate) fn new(service: &Service) -> Self {
        let given = |millis: Option<u64>| millis.map(Duration::from_millis);
        let shortest = given(service.delay).unwrap_or(SHORTEST);
        let longest = given(service.max_delay).unwrap_or(LONGEST).max(shortest);
        Self { faults: 0, shortest, longest }
    }

    /// Returns how long to wait until the next start, or `None` when there is none.
    pub(crate) fn after(
        &mut self,
        policy: Restart,
        success: bool,
        ran_for: Duration,
    ) -> Option<Pause> {
        match policy {
            Restart::Never => return None,
            Restart::OnFailure if success => return None,
            Restart::Always | Restart::OnFailure => {}
        }
        if ran_for >= WELL {
            self.forget();
        }
        let factor = 1_u32.checked_shl(self.faults).unwrap_or(u32::MAX);
        let wait = self.shortest.saturating_mul(factor).min(self.longest);
        self.faults = self.faults.saturating_add(1);
        let told = match self.faults {
            ..LOUD => Told::Each,
            LOUD => Told::LastTime(LOUD),
            _ => Told::Silent,
        };
        Some(Pause { wait, told })
    }

    /// Says whether the service fails so often that no more is said of it.
    pub(crate) fn is_silent(&self) -> bool {
        self.faults >= LOUD
    }

    /// Begins anew.
    pub(crate) fn forget(&mut self) {
        self.faults = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Backoff {
        Backoff::new(&Service::default())
    }

    #[test]
    fn the_wait_doubles_up_to_half_a_minute_and_starts_again_after_a_good_run() {
        let mut backoff = usual();
        let mut wait = |ran| backoff.after(Restart::Always, false, Duration::from_secs(ran));
        let millis: Vec<_> =
            (0..8).map(|_| wait(0).map_or(0, |pause| pause.wait.as_millis())).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(wait(61), Some(Pause { wait: SHORTEST, told: Told::Each }));
    }

    #[test]
    fn an_image_can_say_how_long_to_wait() {
        for (delay, max_delay, expected) in [
            (Some(20), Some(50), [20, 40, 50]),
            (None, Some(600), [500, 600, 600]),
            (Some(40_000), None, [40_000, 40_000, 40_000]),
            (Some(10), Some(1), [10, 10, 10]),
        ] {
            let mut backoff = Backoff::new(&Service { delay, max_delay, ..Service::default() });
            let waits = expected.map(|_| {
                backoff.after(Restart::Always, true, Duration::ZERO).unwrap().wait.as_millis()
            });
            assert_eq!(waits, expected);
        }
    }

    #[test]
    fn the_policy_decides_whether_there_is_a_next_time() {
        let ran = Duration::from_secs(1);
        let after = |policy, success| usual().after(policy, success, ran).is_some();
        assert!(after(Restart::Always, true));
        assert!(!after(Restart::OnFailure, true));
        assert!(after(Restart::OnFailure, false));
        assert!(!after(Restart::Never, false));
    }

    #[test]
    fn one_that_fails_over_and_over_is_told_of_until_that_is_known() {
        let mut backoff = usual();
        let mut told = |ran| {
            backoff.after(Restart::Always, false, Duration::from_secs(ran)).map(|pause| pause.told)
        };
        for _ in 0..4 {
            assert_eq!(told(0), Some(Told::Each));
        }
        assert_eq!(told(0), Some(Told::LastTime(5)));
        assert_eq!(told(0), Some(Told::Silent));
        assert_eq!(told(61), Some(Told::Each));
    }

    #[test]
    fn very_many_faults_do_not_overflow() {
        let mut backoff = Backoff { faults: u32::MAX, ..usual() };
        let pause = backoff.after(Restart::Always, false, Duration::ZERO).unwrap();
        assert_eq!((pause.wait, pause.told), (LONGEST, Told::Silent));
    }
}
