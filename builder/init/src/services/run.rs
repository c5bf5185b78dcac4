//! One run of a service: starts it, watches it, stops it when it is told to.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::keeper::{Keeper, Run, Word};
use super::{SERVICES, STOP_PATIENCE, State, Wellness};
use crate::clock::uptime;
use crate::console::say;
use crate::container;
use crate::health::Health;
use crate::phone::Phase;
use crate::process::End;
use crate::restart::{Backoff, WELL};

/// Whose program has run this long, and who has no check, does not merely begin: it counts for the health of the machine.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// How often one that is not up yet is asked over the network, which costs little; and by a program.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const RUN_AGAIN: Duration = Duration::from_secs(1);
/// How long a service that was up before may take to be well again; the first time, as long as it likes.
const GRACE: Duration = Duration::from_secs(60);
/// After so long one that was never well is told of, once in a run: the machine waits for it.
const LATE: Duration = Duration::from_secs(5);
/// How much longer than its own limit a check may take until it counts as failed.
const CHECK_SLACK: Duration = Duration::from_secs(5);
/// How long one that was killed may take to be gone.
const DEATH: Duration = Duration::from_secs(10);
/// Of so many starts of one service the server is told, each time the machine boots.
const MOST_TOLD: u32 = 32;
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Keeper {
    pub(super) fn run_once(&self, backoff: &mut Backoff) -> Run {
        let start = uptime();
        self.table.change(&self.name, |status| {
            status.state = State::Starting;
            status.since = start;
            status.started = Some(start);
            status.health = Wellness::Unknown;
            status.is_steady = false;
        });
        let run = self.start_and_watch(start, backoff);
        self.table.change(&self.name, |status| {
            status.started = None;
            status.health = Wellness::Unknown;
        });
        run
    }

    fn start_and_watch(&self, start: Duration, backoff: &mut Backoff) -> Run {
        let failed = |what: String| Run::Ended { success: false, what };
        let inbox = self.inbox.clone();
        let told = Box::new(move |end| drop(inbox.send(Word::Ended(end))));
        let inbox = self.inbox.clone();
        let runs = Box::new(move || drop(inbox.send(Word::Runs(start))));
        let bundle = format!("{SERVICES}/{}", self.name);
        let pid = match self.children.start_telling(&bundle, &self.name, runs, told) {
            Ok(pid) => pid,
            Err(error) => return failed(format!("cannot start: {error}")),
        };
        let mut watch = Watch::default();
        loop {
            let ran_for = uptime().saturating_sub(start);
            if watch.is_up && backoff.is_silent() && ran_for >= WELL {
                backoff.forget();
                say(&format!("{} runs well again", self.name));
                self.phone.tell(Phase::Service, self.name.as_str());
            }
            let mut wait = watch.wait(self.service.health.as_ref());
            if watch.is_up && backoff.is_silent() {
                wait = wait.min(WELL.saturating_sub(ran_for)).max(Duration::from_millis(10));
            }
            match self.words.recv_timeout(wait) {
                Ok(Word::Ended(end)) => return self.ended(end),
                Ok(Word::Stop) => return self.end(pid, Run::Stopped),
                Ok(Word::Restart) => return self.end(pid, Run::Again),
                Ok(Word::Runs(run)) if run == start => {
                    watch.ran = Some(uptime());
                    self.tell_start(backoff);
                    if self.service.health.is_none() {
                        watch.is_up = true;
                        self.tell_up(State::Up);
                    }
                }
                Ok(Word::Checked(run, result)) if run == start => {
                    watch.asked = None;
                    watch.checked = uptime();
                    if let Err(what) = self.judge(&mut watch, result, ran_for) {
                        self.phone.tell(Phase::Failed, format!("{}: {what}", self.name));
                        let run = failed(format!("was not well: {what}"));
                        return self.end(pid, run);
                    }
                }
                // Of an earlier run, or what is so already.
                Ok(Word::Start | Word::Runs(_) | Word::Checked(..)) => {}
                Err(RecvTimeoutError::Disconnected) => return failed("was lost".to_owned()),
                Err(RecvTimeoutError::Timeout) => match &self.service.health {
                    None if watch.steady_in() == Some(Duration::ZERO) => {
                        watch.is_steady = true;
                        self.tell_steady();
                    }
                    None => {}
                    Some(health) => self.check_if_due(start, &mut watch, health),
                },
            }
        }
    }

    /// Asks the service how it is when it is time to, in a thread of its own: a check may hang.
    fn check_if_due(&self, run: Duration, watch: &mut Watch, health: &Health) {
        let now = uptime();
        if let Some(asked) = watch.asked {
            if now.saturating_sub(asked) >= health.timeout() + CHECK_SLACK {
                // Its answer, if it ever comes, counts as one more.
                watch.asked = Some(now);
                let late = Err("its check does not end".to_owned());
                drop(self.inbox.send(Word::Checked(run, late)));
            }
            return;
        }
        let (health, inbox) = (health.clone(), self.inbox.clone());
        let (children, container) = (Arc::clone(&self.children), format!("services-{}", self.name));
        watch.asked = Some(now);
        let asking = std::thread::Builder::new()
            .name(format!("ask {}", self.name))
            .stack_size(128 * 1024)
            .spawn(move || {
                let result = if health.exec.is_empty() {
                    health.ask()
                } else {
                    children.check(&container, &health.exec, health.timeout())
                };
                drop(inbox.send(Word::Checked(run, result)));
            });
        if let Err(error) = asking {
            let cannot = Err(format!("the check cannot run: {error}"));
            drop(self.inbox.send(Word::Checked(run, cannot)));
        }
    }

    /// Takes the answer of a check. An error means that the service is ill.
    fn judge(
        &self,
        watch: &mut Watch,
        result: Result<(), String>,
        ran_for: Duration,
    ) -> Result<(), String> {
        let Err(what) = result else {
            if watch.failures > 0 {
                say(&format!("{} is well again, after {} checks", self.name, watch.failures));
            }
            watch.failures = 0;
            self.table.change(&self.name, |status| status.health = Wellness::Well);
            if !watch.is_up {
                watch.is_up = true;
                self.tell_up(State::Up);
                self.tell_steady();
            }
            return Ok(());
        };
        let was_up = self.table.get(&self.name).is_some_and(|status| status.was_up);
        // One that takes its time to come up is not ill yet.
        if !watch.is_up && (!was_up || ran_for < GRACE) {
            if !was_up && ran_for >= LATE && !watch.late_is_told {
                watch.late_is_told = true;
                say(&format!("{} is not well yet: {what}", self.name));
                self.phone.tell(Phase::Waiting, format!("{}: {what}", self.name));
            }
            return Ok(());
        }
        watch.failures += 1;
        let failures = watch.failures;
        self.table.change(&self.name, |status| status.health = Wellness::Ill(failures));
        if failures == 1 {
            say(&format!("{} is not well: {what}", self.name));
        }
        let retries = self.service.health.as_ref().map_or(1, Health::retries);
        if failures >= retries { Err(what) } else { Ok(()) }
    }

    fn ended(&self, end: End) -> Run {
        self.clean_up(end);
        let what = match container::take_reason(&format!("services-{}", self.name)) {
            Some(reason) if !end.is_success() => reason,
            _ => end.to_string(),
        };
        Run::Ended { success: end.is_success(), what }
    }

    /// Asks a service to stop, and makes it when it does not.
    fn end(&self, pid: Pid, then: Run) -> Run {
        self.table.enter(&self.name, State::Stopping);
        let _ = kill(pid, Signal::SIGTERM);
        if !self.wait_for_end(STOP_PATIENCE) {
            say(&format!("{} does not stop by itself and is killed", self.name));
            // The process that keeps the container ends it at once.
            let _ = kill(pid, Signal::SIGUSR1);
            if !self.wait_for_end(DEATH) {
                let _ = kill(pid, Signal::SIGKILL);
                self.wait_for_end(DEATH);
            }
        }
        then
    }

    fn wait_for_end(&self, patience: Duration) -> bool {
        let start = uptime();
        loop {
            let left = patience.saturating_sub(uptime().saturating_sub(start));
            match self.words.recv_timeout(left) {
                Ok(Word::Ended(end)) => {
                    self.clean_up(end);
                    return true;
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The process that keeps a container passes signals on. One that was ended by a signal itself has left everything behind.
    fn clean_up(&self, end: End) {
        if let End::Signal(_) | End::RealTime = end {
            container::sweep(Path::new(&format!("{SERVICES}/{}", self.name)), &self.name);
        }
    }

    /// Tells that the program runs. Of one that ends again and again it is told a few times only.
    fn tell_start(&self, backoff: &Backoff) {
        let starts = self.starts.get();
        self.starts.set(starts.saturating_add(1));
        if starts == 0 {
            self.phone.tell(Phase::Start, format!("service {}", self.name));
        } else if starts <= MOST_TOLD && !backoff.is_silent() {
            self.phone.tell(Phase::Restart, self.name.as_str());
        }
    }

    /// Tells, the first time, that the service is up.
    pub(super) fn tell_up(&self, state: State) {
        let first = self.table.get(&self.name).is_some_and(|status| !status.was_up);
        self.table.change(&self.name, |status| status.was_up = true);
        self.table.enter(&self.name, state);
        if first {
            say(&format!("service {}", self.name));
            self.phone.tell_since(self.begun.get(), Phase::Service, self.name.as_str());
        }
    }

    /// Notes that the service runs well; the last one makes the machine healthy.
    pub(super) fn tell_steady(&self) {
        if self.table.becomes_steady(&self.name) {
            let _ = self.healthy.send(());
        }
    }
}

/// What is known of one run.
#[derive(Default)]
struct Watch {
    /// When its program began.
    ran: Option<Duration>,
    is_up: bool,
    is_steady: bool,
    /// When a check was begun that has not answered.
    asked: Option<Duration>,
    /// When the last one answered.
    checked: Duration,
    /// Failed checks one after the other.
    failures: u32,
    late_is_told: bool,
}

impl Watch {
    /// Returns how long one without a check has to run on until it counts; nothing when it does, or does not run.
    fn steady_in(&self) -> Option<Duration> {
        let ran = self.ran.filter(|_| !self.is_steady)?;
        Some(STEADY_AFTER.saturating_sub(uptime().saturating_sub(ran)))
    }

    /// Returns how long there is nothing to do.
    fn wait(&self, health: Option<&Health>) -> Duration {
        match health {
            None => self.steady_in().unwrap_or(FOREVER),
            Some(_) if self.asked.is_some() => RUN_AGAIN,
            Some(health) => {
                // Until it is up it is asked often: it may be a matter of moments.
                let often = if health.exec.is_empty() { ASK_AGAIN } else { RUN_AGAIN };
                let up = health.interval();
                let interval = if self.is_up { up } else { often.min(up) };
                interval.saturating_sub(uptime().saturating_sub(self.checked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_often_until_it_is_up_and_in_its_interval_then() {
        let health: Health =
            serde_json::from_str(r#"{"tcp":"127.0.0.1:80","interval":3600000,"timeout":100}"#)
                .unwrap();
        let mut watch = Watch { checked: uptime(), ..Watch::default() };
        assert!(watch.wait(Some(&health)) <= ASK_AGAIN);
        watch.is_up = true;
        assert!(watch.wait(Some(&health)) > Duration::from_secs(3000));
        // While a check runs it is looked after.
        watch.asked = Some(Duration::ZERO);
        assert_eq!(watch.wait(Some(&health)), RUN_AGAIN);
    }

    #[test]
    fn one_without_a_check_counts_a_moment_after_its_program_began_and_not_before() {
        let mut watch = Watch::default();
        assert_eq!(watch.wait(None), FOREVER);
        watch.ran = Some(uptime());
        assert!(watch.wait(None) > Duration::ZERO && watch.wait(None) <= STEADY_AFTER);
        watch.ran = Some(Duration::ZERO);
        assert_eq!(watch.steady_in(), Some(Duration::ZERO));
        watch.is_steady = true;
        assert_eq!(watch.wait(None), FOREVER);
    }
}
