//! The hardware's watchdog: it resets the machine unless it is fed (watchdog-api of the kernel's documentation).
//!
//! Only the thread that takes the ends of children feeds it, once in each of its rounds, and in each round it looks whether
//! what all others need is still to be had. While the machine stops, it is fed for so long only as a stop may take.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::uptime;
use crate::console::say;
use crate::power::Then;
use crate::sys;

const DEVICE: &str = "/dev/watchdog0";
const USUAL: Duration = Duration::from_secs(30);
/// How long a stop may take from its beginning: a minute for `onshutdown`, half a minute for services, and what comes after.
const STOP: Duration = Duration::from_secs(180);
/// The longest time between two rounds.
const ROUND: Duration = Duration::from_secs(5);

static WATCHDOG: Mutex<Option<Watchdog>> = Mutex::new(None);

/// Takes the watchdog, if there is one and the image wants it: 0 for no, nothing for the usual time.
pub(crate) fn start(millis: Option<u64>) {
    if millis == Some(0) {
        return;
    }
    let file = match OpenOptions::new().write(true).open(DEVICE) {
        Ok(file) => file,
        Err(error) => {
            if millis.is_some() || error.kind() != std::io::ErrorKind::NotFound {
                say(&format!("nothing watches over this machine: {DEVICE}: {error}"));
            }
            return;
        }
    };
    let wanted = millis.map_or(USUAL, Duration::from_millis);
    let seconds = i32::try_from(wanted.as_secs()).unwrap_or(i32::MAX);
    let taken = match sys::set_watchdog_time(&file, seconds) {
        Ok(seconds) => u64::try_from(seconds).unwrap_or_default(),
        Err(error) => {
            say(&format!("the watchdog does not take {seconds} s and keeps its own time: {error}"));
            // Fed as often as we can; what it is, nobody can say.
            0
        }
    };
    if taken > 0 {
        say(&format!("a watchdog resets this machine when it hangs for {taken} s"));
    }
    *lock() = Some(Watchdog::new(Box::new(file), Duration::from_secs(taken)));
    feed();
}

/// Feeds it, if it may be.
pub(crate) fn feed() {
    if let Some(watchdog) = lock().as_mut() {
        watchdog.feed(uptime());
    }
}

/// Returns how long a round may last.
pub(crate) fn round() -> Duration {
    lock().as_ref().map_or(ROUND, |watchdog| watchdog.round)
}

/// The machine stops: it is fed until that has taken too long.
pub(crate) fn stopping() {
    if let Some(watchdog) = lock().as_mut() {
        watchdog.until.get_or_insert_with(|| uptime() + STOP);
    }
}

/// The machine has stopped in order. One that starts anew is watched over until its kernel has let go of it; otherwise
/// nobody would feed it any more.
pub(crate) fn hand_over(then: Then) {
    let Some(mut watchdog) = lock().take() else { return };
    watchdog.last(then);
    // Closed without the word for it, it goes on.
    std::mem::forget(watchdog);
}

fn lock() -> MutexGuard<'static, Option<Watchdog>> {
    WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watchdog {
    device: Box<dyn Write + Send>,
    round: Duration,
    /// When it is fed no more.
    until: Option<Duration>,
}

impl Watchdog {
    fn new(device: Box<dyn Write + Send>, time: Duration) -> Self {
        // Two rounds may be missed.
        let round = (time / 3).clamp(Duration::from_millis(500), ROUND);
        Self { device, round, until: None }
    }

    fn feed(&mut self, now: Duration) {
        if self.until.is_none_or(|until| now < until) {
            let _ = self.device.write_all(b"f");
        }
    }

    fn last(&mut self, then: Then) {
        let word = match then {
            Then::Reboot => b"f",
            // The word by which it is put to rest, where its driver knows that.
            Then::PowerOff | Then::Kexec => b"V",
        };
        let _ = self.device.write_all(word);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_is_fed_until_a_stop_takes_too_long_and_put_to_rest_when_nobody_will_feed_it() {
        for (then, word) in [(Then::PowerOff, b'V'), (Then::Kexec, b'V'), (Then::Reboot, b'f')] {
            let heard = Heard::default();
            let mut watchdog = Watchdog::new(Box::new(heard.clone()), Duration::from_secs(30));
            watchdog.feed(Duration::from_secs(1));
            watchdog.until = Some(Duration::from_secs(9));
            watchdog.feed(Duration::from_secs(8));
            watchdog.feed(Duration::from_secs(9));
            assert_eq!(*heard.0.lock().unwrap(), b"ff");
            watchdog.last(then);
            assert_eq!(heard.0.lock().unwrap().last(), Some(&word));
        }
    }

    #[test]
    fn a_round_is_short_enough_for_the_time_of_the_watchdog() {
        for (seconds, millis) in [(0, 500), (1, 500), (6, 2000), (30, 5000), (3600, 5000)] {
            let watchdog = Watchdog::new(Box::new(Heard::default()), Duration::from_secs(seconds));
            assert_eq!(watchdog.round, Duration::from_millis(millis));
        }
    }
}
