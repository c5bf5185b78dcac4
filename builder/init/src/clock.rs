//! Time since the kernel started, and whether the wall clock can be believed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Returns the time since the kernel started.
pub(crate) fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Returns the time since the kernel started in milliseconds.
pub(crate) fn uptime_millis() -> u64 {
    u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)
}

/// Says whether the wall clock was never set: no machine that runs this lived before 2025.
pub(crate) fn wall_clock_is_unset() -> bool {
    const START_OF_2025: u64 = 1_735_689_600;
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(true, |since| since.as_secs() < START_OF_2025)
}
