use std::time::Duration;

use tokio::time::Instant;

use super::leases::Timestamp;

/// A difference that clocks which are kept right by small corrections do not have from one packet to the next.
const STEP: i64 = 5000;

/// The clock of the system, watched for being set.
#[derive(Debug)]
pub(super) struct Clock {
    /// In milliseconds since 1970.
    wall: i64,
    at: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { wall: wall(), at: Instant::now() }
    }

    /// Returns the time, and by how many seconds the clock was set since the last look, mostly zero.
    pub(super) fn read(&mut self) -> (Timestamp, i64) {
        let at = Instant::now();
        let passed = at.duration_since(self.at);
        self.at = at;
        let set = self.step(wall(), passed);
        (Timestamp(self.wall / 1000), set)
    }

    /// Takes in what the clock says after a time has passed.
    fn step(&mut self, wall: i64, passed: Duration) -> i64 {
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let expected = self.wall.saturating_add(passed);
        self.wall = wall;
        let difference = wall.saturating_sub(expected);
        if difference.abs() < STEP { 0 } else { difference / 1000 }
    }
}

#[cfg(test)]
impl Clock {
    /// Pretends that the clock of the system is set forward by so many seconds.
    pub(super) fn is_set(&mut self, seconds: i64) {
        self.wall -= seconds * 1000;
    }
}

fn wall() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_drifts_is_not() {
        let mut clock = Clock { wall: 1_000_000, at: Instant::now() };
        let second = Duration::from_secs(1);
        assert_eq!(clock.step(1_001_000, second), 0);
        assert_eq!(clock.step(1_004_000, second), 0, "two seconds are not a step");
        assert_eq!(clock.step(90_005_000, second), 89_000);
        assert_eq!(clock.step(90_006_000, second), 0, "once is enough");
        assert_eq!(clock.step(1_000_000, second), -89_007);
    }
}
