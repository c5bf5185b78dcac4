//! What is known of each service: written by who keeps it, read by everyone who asks.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::uptime;

/// Where a service is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// For those that it comes after.
    #[default]
    Waiting,
    Starting,
    Up,
    /// Between its end and its next start.
    Pausing,
    Stopping,
    /// By a person, until a person starts it.
    Stopped,
    /// It had one thing to do, and did it.
    Done,
    /// It ended with a fault and is not started again.
    Failed,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Pausing => "pausing",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Says whether there is no process, and none will come by itself.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Done | Self::Failed)
    }
}

/// What the checks of a service said last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Wellness {
    /// It has none, or none was made yet.
    #[default]
    Unknown,
    Well,
    /// So many failures one after the other.
    Ill(u32),
}

/// What is known of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// When it came into this state, as time since the kernel's start.
    pub(crate) since: Duration,
    /// When its present run began.
    pub(crate) started: Option<Duration>,
    /// Starts after the first.
    pub(crate) restarts: u32,
    pub(crate) health: Wellness,
    /// How its last run ended.
    pub(crate) last: String,
    /// Whether it was ever up.
    pub(crate) was_up: bool,
    /// Whether its present run has lasted for a moment, or its check was well.
    pub(crate) is_steady: bool,
    /// Whether any run was.
    pub(crate) was_steady: bool,
}

/// The services of this machine.
#[derive(Debug, Default)]
pub(crate) struct Table {
    services: Mutex<BTreeMap<String, Status>>,
    changed: Condvar,
}

impl Table {
    pub(crate) fn new(names: &[String]) -> Self {
        let services = names.iter().map(|name| (name.clone(), Status::default())).collect();
        Self { services: Mutex::new(services), changed: Condvar::new() }
    }

    /// Returns everything that is known.
    pub(crate) fn all(&self) -> BTreeMap<String, Status> {
        self.lock().clone()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Status> {
        self.lock().get(name).cloned()
    }

    /// Changes what is known of a service and wakes who waits for that.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Status)) {
        if let Some(status) = self.lock().get_mut(name) {
            change(status);
        }
        self.changed.notify_all();
    }

    pub(crate) fn enter(&self, name: &str, state: State) {
        self.change(name, |status| {
            status.state = state;
            status.since = uptime();
        });
    }

    /// Notes that a service runs well. Says whether it is the last one that had never done so.
    pub(crate) fn becomes_steady(&self, name: &str) -> bool {
        let mut services = self.lock();
        let Some(status) = services.get_mut(name) else { return false };
        let first = !status.was_steady;
        status.is_steady = true;
        status.was_steady = true;
        let all = services.values().all(|status| status.was_steady);
        drop(services);
        self.changed.notify_all();
        first && all
    }

    /// Says whether every service has run well.
    pub(crate) fn all_were_steady(&self) -> bool {
        self.lock().values().all(|status| status.was_steady)
    }

    /// Waits until something has changed, or the time is over.
    pub(crate) fn wait_for_change(&self, patience: Duration) {
        let woken = self.changed.wait_timeout(self.lock(), patience);
        drop(woken.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until a service is as wanted, or the time is over; returns what is known of it then.
    pub(crate) fn wait(
        &self,
        name: &str,
        patience: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Option<Status> {
        let not_yet = |services: &mut BTreeMap<String, Status>| {
            services.get(name).is_some_and(|status| !wanted(status))
        };
        let (services, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, not_yet)
            .unwrap_or_else(PoisonError::into_inner);
        services.get(name).cloned()
    }

    /// Waits until the named services were up, or nobody will start them; those that do not exist are not waited for.
    /// Returns the ones that are not up in time.
    pub(crate) fn wait_for_all(&self, names: &[String], patience: Duration) -> Vec<String> {
        let start = uptime();
        let mut late = Vec::new();
        for name in names {
            let left = patience.saturating_sub(uptime().saturating_sub(start));
            let is_up = |status: &Status| match status.state {
                State::Up | State::Done | State::Stopped => true,
                _ => status.was_up,
            };
            if self.wait(name, left, is_up).is_some_and(|status| !is_up(&status)) {
                late.push(name.clone());
            }
        }
        late
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Status>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_waits_only_for_those_that_exist_and_are_not_up() {
        let table = Table::new(&["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        table.change("a", |status| status.was_up = true);
        table.enter("c", State::Stopped);
        let after = ["a", "b", "c", "unknown"].map(str::to_owned);
        assert_eq!(table.wait_for_all(&after, Duration::ZERO), ["b"]);
        table.enter("b", State::Up);
        assert!(table.wait_for_all(&after, Duration::ZERO).is_empty());
    }

    #[test]
    fn who_waits_is_woken_when_it_comes() {
        let table = Table::new(&["a".to_owned()]);
        std::thread::scope(|scope| {
            scope.spawn(|| table.enter("a", State::Up));
            let up = |status: &Status| status.state == State::Up;
            let status = table.wait("a", Duration::from_secs(60), up).unwrap();
            assert_eq!(status.state, State::Up);
        });
        assert!(table.wait("unknown", Duration::from_secs(60), |_| false).is_none());
    }

    #[test]
    fn the_machine_is_healthy_once_when_the_last_service_has_run_well() {
        let table = Table::new(&["a".to_owned(), "b".to_owned()]);
        table.change("b", |status| status.was_up = true);
        assert!(!table.becomes_steady("a"));
        table.enter("a", State::Pausing);
        assert!(table.becomes_steady("b"));
        assert!(!table.becomes_steady("a") && !table.becomes_steady("unknown"));
    }
}
