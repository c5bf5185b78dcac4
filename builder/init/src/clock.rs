//! Time since the kernel started, and whether the wall clock can be believed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Returns the time since the kernel started.
pub(crate) fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Returns the time since the kernel started in milliseconds.
pub(crate) fn uptime_millis() -> u64 {
    millis(uptime())
}

/// Returns a length of time in milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a moment, given as milliseconds since the kernel started, as date and time in UTC; without a clock, as seconds
/// since the start.
pub(crate) fn stamp(millis: u64) -> String {
    if wall_clock_is_unset() {
        return format!("{}.{:03}", millis / 1000, millis % 1000);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = uptime().saturating_sub(Duration::from_millis(millis));
    date(now.saturating_sub(ago))
}

/// Writes a time since 1970 as a date, by the rule of the Gregorian calendar, whose leap years repeat every 400 years.
fn date(since: Duration) -> String {
    let seconds = since.as_secs();
    // Counted from the 1st of March of the year 0, so that the leap day is the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        era * 400 + year + next,
        since.subsec_millis()
    )
}

/// Says whether the wall clock was never set: no machine that runs this lived before 2025.
pub(crate) fn wall_clock_is_unset() -> bool {
    const START_OF_2025: u64 = 1_735_689_600;
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(true, |since| since.as_secs() < START_OF_2025)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(date(Duration::new(seconds, 7_000_000)), text);
        }
    }

    #[test]
    fn a_moment_of_a_second_ago_is_before_now() {
        let now = uptime_millis();
        assert!(stamp(now.saturating_sub(1000)) < stamp(now));
    }
}
