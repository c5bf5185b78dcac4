//! Containers in their order: first `onboot` one by one, then the services side by side.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::uptime;
use crate::config::{OnFailure, Service};
use crate::console::say;
use crate::error::BootError;
use crate::health::Health;
use crate::phone::{Phase, Phone};
use crate::power::Then;
use crate::process::{Children, End};
use crate::restart::Backoff;

const ONBOOT: &str = "/containers/onboot";
const ONSHUTDOWN: &str = "/containers/onshutdown";
const SERVICES: &str = "/containers/services";
/// Who has run this long counts as up.
const UP_AFTER: Duration = Duration::from_secs(1);
/// How long a service waits for those it comes after. Also ends a circle.
const ORDER_PATIENCE: Duration = Duration::from_secs(30);
/// How long all `onshutdown` containers together may take: a machine that is asked to stop stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);
/// How long a service that is ill has to stop by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long one that took too long has to give up.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Runs the `onboot` containers, each to its end. One that fails does not hold the boot up unless the image says so:
/// then none follows, and what is to be done with the machine is returned.
pub(crate) fn run_onboot(
    settings: &BTreeMap<String, OnFailure>,
    children: &Children,
    phone: &Phone,
) -> Option<Then> {
    for bundle in bundles(ONBOOT) {
        let name = name_of(&bundle);
        say(&format!("onboot {name}"));
        let start = uptime();
        let (told, end) = channel();
        let result = children.start(&format!("{ONBOOT}/{bundle}"), name, told);
        let failure = match result.map(|_| end.recv()) {
            Ok(Ok(end)) if end.is_success() => None,
            Ok(Ok(end)) => Some(end.to_string()),
            Ok(Err(_)) => Some("was lost".to_owned()),
            Err(error) => Some(format!("cannot start: {error}")),
        };
        match failure {
            None => phone.tell_since(start, Phase::Onboot, name),
            Some(failure) => {
                say(&format!("onboot {name} {failure}"));
                phone.tell_since(start, Phase::Failed, format!("onboot {name} {failure}"));
                match settings.get(name) {
                    None | Some(OnFailure::Continue) => {}
                    Some(OnFailure::Halt) => return Some(Then::PowerOff),
                    Some(OnFailure::Reboot) => return Some(Then::Reboot),
                }
            }
        }
    }
    None
}

/// Runs the `onshutdown` containers, each to its end, while the services are still there.
pub(crate) fn run_onshutdown(children: &Children) {
    let start = uptime();
    for bundle in bundles(ONSHUTDOWN) {
        let name = name_of(&bundle);
        let left = SHUTDOWN_PATIENCE.saturating_sub(uptime().saturating_sub(start));
        if left.is_zero() {
            say(&format!("no time is left for onshutdown {name}"));
            continue;
        }
        say(&format!("onshutdown {name}"));
        let (told, end) = channel();
        match children.start(&format!("{ONSHUTDOWN}/{bundle}"), name, told) {
            Ok(pid) => match end.recv_timeout(left) {
                Ok(end) if end.is_success() => {}
                Ok(end) => say(&format!("onshutdown {name} {end}")),
                Err(RecvTimeoutError::Disconnected) => say(&format!("onshutdown {name} was lost")),
                Err(RecvTimeoutError::Timeout) => {
                    say(&format!("onshutdown {name} takes too long"));
                    let _ = kill(pid, Signal::SIGTERM);
                    let _ = end.recv_timeout(LAST_CHANCE);
                }
            },
            Err(error) => say(&format!("onshutdown {name} cannot start: {error}")),
        }
    }
}

/// The number in front says the order.
fn name_of(bundle: &str) -> &str {
    bundle.split_once('-').map_or(bundle, |(_, name)| name)
}

/// Starts a thread for each service that starts it in its turn and keeps it. The receiver gets one
/// message when all are up.
pub(crate) fn start(
    settings: &BTreeMap<String, Service>,
    children: &Arc<Children>,
    phone: &Phone,
) -> Result<Receiver<()>, BootError> {
    let (healthy, receiver) = channel();
    let names = bundles(SERVICES);
    let waiting = Arc::new(Waiting {
        left: Mutex::new(names.iter().cloned().collect()),
        changed: Condvar::new(),
        healthy,
    });
    if names.is_empty() {
        let _ = waiting.healthy.send(());
    }
    for name in &names {
        let keeper = Keeper {
            name: name.clone(),
            service: settings.get(name).cloned().unwrap_or_default(),
            children: Arc::clone(children),
            phone: phone.clone(),
            waiting: Arc::clone(&waiting),
            begun: Cell::default(),
        };
        std::thread::Builder::new()
            .name(format!("keep {name}"))
            .stack_size(128 * 1024)
            .spawn(move || keeper.run())
            .map_err(|source| BootError::StartThread("service", source))?;
    }
    Ok(receiver)
}

/// The services that are not up yet.
struct Waiting {
    left: Mutex<BTreeSet<String>>,
    changed: Condvar,
    healthy: Sender<()>,
}

impl Waiting {
    fn is_up(&self, name: &str) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.remove(name) && left.is_empty() {
            let _ = self.healthy.send(());
        }
        self.changed.notify_all();
    }

    /// Waits until the named services are up; those that do not exist are not waited for. Returns
    /// the ones that are not up in time.
    fn wait_for(&self, names: &[String], patience: Duration) -> Vec<String> {
        let missing = |left: &BTreeSet<String>| -> Vec<String> {
            names.iter().filter(|name| left.contains(*name)).cloned().collect()
        };
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, _) = self
            .changed
            .wait_timeout_while(left, patience, |left| !missing(left).is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        missing(&left)
    }
}

struct Keeper {
    name: String,
    service: Service,
    children: Arc<Children>,
    phone: Phone,
    waiting: Arc<Waiting>,
    /// When its turn came.
    begun: Cell<Duration>,
}

impl Keeper {
    fn run(&self) {
        let late = self.waiting.wait_for(&self.service.after, ORDER_PATIENCE);
        if !late.is_empty() {
            say(&format!("{} no longer waits for {}", self.name, late.join(", ")));
        }
        self.begun.set(uptime());
        let mut backoff = Backoff::default();
        let mut was_up = false;
        loop {
            let start = uptime();
            let end = self.run_once(&mut was_up);
            if self.children.are_stopping() {
                return;
            }
            let success = matches!(end, Ok(end) if end.is_success());
            let what = match end {
                Ok(end) => end.to_string(),
                Err(error) => format!("cannot start: {error}"),
            };
            if success && !was_up && self.service.restart != crate::config::Restart::Always {
                // It had one thing to do, and did it.
                self.tell_up(&mut was_up);
            }
            if !success {
                self.phone.tell(Phase::Failed, format!("{} {what}", self.name));
            }
            let ran_for = uptime().saturating_sub(start);
            let Some(wait) = backoff.after(self.service.restart, success, ran_for) else {
                say(&format!("{} {what}", self.name));
                return;
            };
            say(&format!("{} {what}; again in {} ms", self.name, wait.as_millis()));
            std::thread::sleep(wait);
        }
    }

    fn run_once(&self, was_up: &mut bool) -> std::io::Result<End> {
        let (told, end) = channel();
        let pid = self.children.start(&format!("{SERVICES}/{}", self.name), &self.name, told)?;
        if let Some(health) = &self.service.health {
            return self.watch(health, pid, &end, was_up);
        }
        if !*was_up {
            match end.recv_timeout(UP_AFTER) {
                Ok(end) => return Ok(end),
                Err(RecvTimeoutError::Timeout) => self.tell_up(was_up),
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
        end.recv().map_err(|_| lost())
    }

    /// Waits for the end of a service that is asked how it is. It is up when it is well for the first time, and ended
    /// when it is ill.
    fn watch(
        &self,
        health: &Health,
        pid: Pid,
        end: &Receiver<End>,
        was_up: &mut bool,
    ) -> std::io::Result<End> {
        let mut failures = 0;
        loop {
            // Until it is up it is asked often: it may be a matter of moments.
            let wait = if *was_up { health.interval() } else { UP_AFTER.min(health.interval()) };
            match end.recv_timeout(wait) {
                Ok(end) => return Ok(end),
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match self.ask(health) {
                Ok(()) => {
                    failures = 0;
                    if !*was_up {
                        self.tell_up(was_up);
                    }
                }
                // One that takes its time to come up is not ill yet.
                Err(_) if !*was_up => {}
                Err(what) => {
                    failures += 1;
                    say(&format!("{} is not well: {what}", self.name));
                    if failures >= health.retries() {
                        self.phone.tell(Phase::Failed, format!("{}: {what}", self.name));
                        return self.end(pid, end);
                    }
                }
            }
        }
    }

    fn ask(&self, health: &Health) -> Result<(), String> {
        if health.exec.is_empty() {
            return health.ask();
        }
        self.children.check(&format!("services-{}", self.name), &health.exec, health.timeout())
    }

    /// Asks a service to stop, and makes it when it does not.
    fn end(&self, pid: Pid, end: &Receiver<End>) -> std::io::Result<End> {
        let _ = kill(pid, Signal::SIGTERM);
        match end.recv_timeout(STOP_PATIENCE) {
            Ok(end) => return Ok(end),
            Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // The process that keeps the container ends it at once.
        let _ = kill(pid, Signal::SIGUSR1);
        end.recv().map_err(|_| lost())
    }

    fn tell_up(&self, was_up: &mut bool) {
        *was_up = true;
        say(&format!("service {}", self.name));
        self.phone.tell_since(self.begun.get(), Phase::Service, self.name.as_str());
        self.waiting.is_up(&self.name);
    }
}

fn lost() -> std::io::Error {
    std::io::Error::other("nobody knows how it ended")
}

fn bundles(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(directory)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(names: &[&str]) -> (Waiting, Receiver<()>) {
        let (healthy, receiver) = channel();
        let left = names.iter().map(ToString::to_string).collect();
        (Waiting { left: Mutex::new(left), changed: Condvar::new(), healthy }, receiver)
    }

    #[test]
    fn the_name_of_a_bundle_is_without_the_number_of_its_turn() {
        assert_eq!(name_of("000-a-b"), "a-b");
        assert_eq!(name_of("plain"), "plain");
    }

    #[test]
    fn a_service_waits_only_for_those_that_exist_and_are_not_up() {
        let (waiting, _receiver) = waiting(&["a", "b"]);
        waiting.is_up("a");
        let after = ["a".to_owned(), "b".to_owned(), "unknown".to_owned()];
        assert_eq!(waiting.wait_for(&after, Duration::ZERO), ["b"]);
        waiting.is_up("b");
        assert!(waiting.wait_for(&after, Duration::ZERO).is_empty());
    }

    #[test]
    fn the_machine_is_healthy_once_when_the_last_service_is_up() {
        let (waiting, healthy) = waiting(&["a", "b"]);
        waiting.is_up("a");
        waiting.is_up("a");
        assert!(healthy.try_recv().is_err());
        waiting.is_up("b");
        waiting.is_up("b");
        assert!(healthy.try_recv().is_ok());
        assert!(healthy.try_recv().is_err());
    }
}
