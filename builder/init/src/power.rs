//! Switching the machine off, or starting it anew: first `onshutdown` runs, with the services still
//! there, then these are asked to stop, then everything is ended.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::uptime;
use crate::console::say;
use crate::process::Children;
use crate::{screen, services, state, unmount, watchdog};

/// How long services may take to stop, one after the other.
const SERVICES_PATIENCE: Duration = Duration::from_secs(30);
/// How long everything else may take to stop by itself.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// So that a person can see what was wrong; the server knows it.
const GLANCE: Duration = Duration::from_secs(10);
/// So that a person can read what was wrong: nobody else knows it.
const READING_TIME: Duration = Duration::from_secs(30);

/// What comes after the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    PowerOff,
    Reboot,
    /// Starts the kernel that was loaded.
    Kexec,
}

static ASKED: OnceLock<Sender<Then>> = OnceLock::new();

/// Arranges for [`ask`]: the receiver hears what is asked.
pub(crate) fn listen() -> Receiver<Then> {
    let (sender, receiver) = channel();
    let _ = ASKED.set(sender);
    receiver
}

/// Asks for the stop of the machine, which then takes its course; only the first to ask is heard.
pub(crate) fn ask(then: Then) {
    if let Some(sender) = ASKED.get() {
        let _ = sender.send(then);
    }
}

/// Stops everything in order, then the machine.
pub(crate) fn stop(children: &Children, then: Then) -> ! {
    screen::leave();
    say("stopping");
    watchdog::stopping();
    services::run_onshutdown(children);
    children.refuse_new();
    if let Some(services) = services::running() {
        services.stop_all(SERVICES_PATIENCE);
    }
    children.signal_all(Signal::SIGTERM);
    let start = uptime();
    while children.count() > 0 && uptime().saturating_sub(start) < PATIENCE {
        sleep(LOOK_AGAIN);
        children.reap();
    }
    let left = children.count();
    if left > 0 {
        say(&format!("{left} containers did not stop in time"));
    }
    // Everybody but ourselves.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    // Their mounts and open files are gone only when they are.
    sleep(LOOK_AGAIN);
    children.reap();
    state::leave();
    nix::unistd::sync();
    unmount::disks();
    end(then)
}

/// Stops a machine on which something failed without which it is of no use, once a person had time to read what.
pub(crate) fn after_failure(children: &Children, then: Then) -> ! {
    say("stopping in 10 s");
    sleep(GLANCE);
    stop(children, then)
}

/// What is done with a machine that could not come up, as its image says; it is switched off otherwise.
static HOPELESS: OnceLock<Then> = OnceLock::new();

/// Notes what is done with a machine that cannot come up.
pub(crate) fn when_hopeless(then: Then) {
    let _ = HOPELESS.set(then);
}

/// Ends a machine that could not come up.
pub(crate) fn give_up() -> ! {
    let then = HOPELESS.get().copied().unwrap_or(Then::PowerOff);
    screen::leave();
    let word = if then == Then::Reboot { "reboot" } else { "power off" };
    say(&format!("{word} in {} s", READING_TIME.as_secs()));
    watchdog::stopping();
    sleep(READING_TIME);
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    state::leave();
    nix::unistd::sync();
    end(then)
}

/// Does what comes after the stop. A machine that can be switched neither off nor on again stays where it is.
fn end(then: Then) -> ! {
    watchdog::hand_over(then);
    for (mode, text) in ways(then) {
        say(text);
        let Err(error) = reboot(*mode);
        say(&format!("the machine does not do so: {error}"));
    }
    loop {
        sleep(READING_TIME);
    }
}

/// Returns what is tried, one after the other: nothing runs any more on a machine whose other kernel does not start.
const fn ways(then: Then) -> &'static [(RebootMode, &'static str)] {
    match then {
        Then::PowerOff => &[(RebootMode::RB_POWER_OFF, "power off")],
        Then::Reboot => &[(RebootMode::RB_AUTOBOOT, "reboot")],
        Then::Kexec => &[
            (RebootMode::RB_KEXEC, "starting the other version"),
            (RebootMode::RB_AUTOBOOT, "reboot"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_whose_other_version_does_not_start_starts_anew() {
        let modes = |then| ways(then).iter().map(|(mode, _)| *mode).collect::<Vec<_>>();
        assert_eq!(modes(Then::Kexec), [RebootMode::RB_KEXEC, RebootMode::RB_AUTOBOOT]);
        assert_eq!(modes(Then::Reboot), [RebootMode::RB_AUTOBOOT]);
        assert_eq!(modes(Then::PowerOff), [RebootMode::RB_POWER_OFF]);
    }
}
