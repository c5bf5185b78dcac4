//! Time since the kernel started, and whether the wall clock can be believed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::console::say;

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

/// No machine that runs this lived before.
const START_OF_2025: u64 = 1_735_689_600;
/// A difference that is not worth a word: the server's answer has whole seconds, and was on its way.
const CLOSE: u64 = 5 * 60;

/// Whether the clock shows only a time before which it cannot be.
static GUESSED: AtomicBool = AtomicBool::new(false);

/// Says whether the wall clock was never set.
pub(crate) fn wall_clock_is_unset() -> bool {
    GUESSED.load(Ordering::Relaxed) || now() < START_OF_2025
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sets the wall clock from one of the machine's own if the kernel found none; otherwise puts it at the time of the
/// image's files, so that nothing seems to be from the future, until the server tells the time.
pub(crate) fn set_if_unset() {
    if !wall_clock_is_unset() {
        return;
    }
    let clocks = std::fs::read_dir("/sys/class/rtc").into_iter().flatten().flatten();
    let mut clocks: Vec<_> = clocks.map(|clock| clock.path()).collect();
    clocks.sort();
    for clock in clocks {
        let text = std::fs::read_to_string(clock.join("since_epoch")).unwrap_or_default();
        if let Ok(time) = text.trim().parse::<u64>()
            && time >= START_OF_2025
            && set(time)
        {
            let name = clock.file_name().unwrap_or_default().to_string_lossy();
            say(&format!("the clock is set from {name}: {}", date(Duration::from_secs(time))));
            return;
        }
    }
    say("the clock of this machine is not set; the server will be asked");
    let image = std::fs::metadata("/init").and_then(|init| init.modified()).ok();
    let image = image.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let least = image.map_or(0, |time| time.as_secs()).max(START_OF_2025);
    GUESSED.store(set(least), Ordering::Relaxed);
}

/// Takes the time that the server tells, in seconds since 1970, if there is none; otherwise says when it is another.
pub(crate) fn hear(server: u64) {
    static HEARD: AtomicBool = AtomicBool::new(false);
    if server < START_OF_2025 || HEARD.swap(true, Ordering::Relaxed) {
        return;
    }
    let said = date(Duration::from_secs(server));
    if wall_clock_is_unset() {
        if set(server) {
            GUESSED.store(false, Ordering::Relaxed);
            say(&format!("the clock is set from the server: {said}"));
        }
    } else if now().abs_diff(server) > CLOSE {
        say(&format!(
            "the clock is {} s off the server's, which says {said}",
            now().abs_diff(server)
        ));
    }
}

fn set(time: u64) -> bool {
    let time = TimeSpec::from(Duration::from_secs(time));
    let result = clock_settime(ClockId::CLOCK_REALTIME, time);
    if let Err(error) = result {
        say(&format!("cannot set the clock: {error}"));
    }
    result.is_ok()
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
