//! Keeps one service: starts it in its turn, watches it, starts it again, stops it when it is told to.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{SERVICES, STOP_PATIENCE, State, Table, Wellness};
use crate::clock::uptime;
use crate::config::{Restart, Service};
use crate::console::say;
use crate::health::Health;
use crate::phone::{Phase, Phone};
use crate::process::{Children, End};
use crate::restart::{Backoff, Told, WELL};

/// Who has run this long counts as up.
const UP_AFTER: Duration = Duration::from_secs(1);
/// How long a service waits for those it comes after. Also ends a circle.
const ORDER_PATIENCE: Duration = Duration::from_secs(30);
/// How often one that waits looks whether it is told to do something else.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a service that was up before may take to be well again; the first time, as long as it likes.
const GRACE: Duration = Duration::from_secs(60);
/// How much longer than its own limit a check may take until it counts as failed.
const CHECK_SLACK: Duration = Duration::from_secs(5);
/// How long one that was killed may take to be gone.
const DEATH: Duration = Duration::from_secs(10);
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a keeper is told.
#[derive(Debug)]
pub(super) enum Word {
    Ended(End),
    Checked(Result<(), String>),
    Start,
    Stop,
    Restart,
}

pub(super) struct Keeper {
    pub(super) name: String,
    pub(super) service: Service,
    pub(super) children: Arc<Children>,
    pub(super) phone: Phone,
    pub(super) table: Arc<Table>,
    /// Hears once that every service was up.
    pub(super) healthy: Sender<()>,
    pub(super) inbox: Sender<Word>,
    pub(super) words: Receiver<Word>,
    /// When its turn came.
    pub(super) begun: Cell<Duration>,
}

/// How one run of a service was over.
enum Run {
    Ended {
        success: bool,
        what: String,
    },
    /// By a person, or with the machine.
    Stopped,
    /// A person wants it to start anew.
    Again,
}

impl Keeper {
    pub(super) fn run(&self) {
        let mut backoff = Backoff::new(&self.service);
        let mut starts = self.wait_for_turn();
        self.begun.set(uptime());
        let mut first = true;
        loop {
            if !starts {
                if !self.stay() {
                    return;
                }
                backoff.forget();
            }
            if self.children.are_stopping() {
                return self.table.enter(&self.name, State::Stopped);
            }
            if let Some(why) = self.children.is_held_back(&format!("{SERVICES}/{}", self.name)) {
                self.hold_back(&why);
                starts = false;
                continue;
            }
            if !first {
                self.table.change(&self.name, |status| status.restarts += 1);
            }
            first = false;
            let start = uptime();
            starts = match self.run_once(&mut backoff) {
                Run::Again => {
                    backoff.forget();
                    true
                }
                Run::Stopped => {
                    say(&format!("{} is stopped", self.name));
                    self.table.enter(&self.name, State::Stopped);
                    false
                }
                Run::Ended { success, what } => {
                    let ran_for = uptime().saturating_sub(start);
                    self.after_end(&mut backoff, success, &what, ran_for)
                }
            };
        }
    }

    /// Says why the service does not run. It was never up, so the machine does not become healthy.
    fn hold_back(&self, why: &str) {
        let what = format!("is not started: {why}");
        say(&format!("{} {what}", self.name));
        self.phone.tell(Phase::Failed, format!("{} {what}", self.name));
        self.table.change(&self.name, |status| status.last = what);
        self.table.enter(&self.name, State::Failed);
    }

    /// Waits until those are up that this one comes after. Says whether it is to be started then.
    fn wait_for_turn(&self) -> bool {
        let start = uptime();
        loop {
            let late = self.table.wait_for_all(&self.service.after, LOOK_AGAIN);
            match self.words.try_recv() {
                Ok(Word::Stop) => {
                    self.table.enter(&self.name, State::Stopped);
                    return false;
                }
                Ok(Word::Start | Word::Restart) => return true,
                _ => {}
            }
            if late.is_empty() {
                return true;
            }
            if uptime().saturating_sub(start) > ORDER_PATIENCE {
                say(&format!("{} no longer waits for {}", self.name, late.join(", ")));
                return true;
            }
        }
    }

    /// Waits until a person wants this service to run. Says whether that came.
    fn stay(&self) -> bool {
        loop {
            match self.words.recv() {
                Ok(Word::Start | Word::Restart) => return true,
                // From done or failed to stopped: whoever asked waits for that.
                Ok(Word::Stop) => self.table.enter(&self.name, State::Stopped),
                Ok(Word::Ended(_) | Word::Checked(_)) => {}
                Err(_) => return false,
            }
        }
    }

    /// Decides what comes after an end. Says whether the service is to be started again now.
    fn after_end(
        &self,
        backoff: &mut Backoff,
        success: bool,
        what: &str,
        ran_for: Duration,
    ) -> bool {
        self.table.change(&self.name, |status| what.clone_into(&mut status.last));
        if self.children.are_stopping() {
            self.table.enter(&self.name, State::Stopped);
            return false;
        }
        let policy = self.service.restart;
        if success && policy != Restart::Always {
            // It had one thing to do, and did it.
            say(&format!("{} {what}", self.name));
            self.tell_up(State::Done);
            return false;
        }
        let Some(pause) = backoff.after(policy, success, ran_for) else {
            say(&format!("{} {what}", self.name));
            self.phone.tell(Phase::Failed, format!("{} {what}", self.name));
            self.table.enter(&self.name, State::Failed);
            return false;
        };
        let millis = pause.wait.as_millis();
        match pause.told {
            Told::Each => {
                say(&format!("{} {what}; again in {millis} ms", self.name));
                if !success {
                    self.phone.tell(Phase::Failed, format!("{} {what}", self.name));
                }
            }
            Told::LastTime(times) => {
                let text = format!(
                    "{} {what}; {times} times in a row, so it is started again without a word until it runs well",
                    self.name
                );
                say(&text);
                if !success {
                    self.phone.tell(Phase::Failed, text);
                }
            }
            Told::Silent => {}
        }
        self.table.enter(&self.name, State::Pausing);
        match self.next_word(pause.wait) {
            Some(Word::Stop) => {
                say(&format!("{} is stopped", self.name));
                self.table.enter(&self.name, State::Stopped);
                false
            }
            _ => true,
        }
    }

    /// Waits for a word of a person.
    fn next_word(&self, patience: Duration) -> Option<Word> {
        let start = uptime();
        loop {
            let left = patience.saturating_sub(uptime().saturating_sub(start));
            match self.words.recv_timeout(left) {
                Ok(Word::Ended(_) | Word::Checked(_)) => {}
                Ok(word) => return Some(word),
                Err(_) => return None,
            }
        }
    }

    fn run_once(&self, backoff: &mut Backoff) -> Run {
        let start = uptime();
        self.table.change(&self.name, |status| {
            status.state = State::Starting;
            status.since = start;
            status.started = Some(start);
            status.health = Wellness::Unknown;
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
        let bundle = format!("{SERVICES}/{}", self.name);
        let pid = match self.children.start_telling(&bundle, &self.name, told) {
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
            if backoff.is_silent() {
                wait = wait.min(WELL.saturating_sub(ran_for)).max(Duration::from_millis(10));
            }
            match self.words.recv_timeout(wait) {
                Ok(Word::Ended(end)) => return self.ended(end),
                Ok(Word::Stop) => return self.end(pid, Run::Stopped),
                Ok(Word::Restart) => return self.end(pid, Run::Again),
                Ok(Word::Start) => {}
                Ok(Word::Checked(result)) => {
                    watch.asked = None;
                    watch.checked = uptime();
                    if let Err(what) = self.judge(&mut watch, result, ran_for) {
                        self.phone.tell(Phase::Failed, format!("{}: {what}", self.name));
                        let run = failed(format!("was not well: {what}"));
                        return self.end(pid, run);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return failed("was lost".to_owned()),
                Err(RecvTimeoutError::Timeout) => match &self.service.health {
                    None if !watch.is_up && uptime().saturating_sub(start) >= UP_AFTER => {
                        watch.is_up = true;
                        self.tell_up(State::Up);
                    }
                    None => {}
                    Some(health) => self.check_if_due(&mut watch, health),
                },
            }
        }
    }

    /// Asks the service how it is when it is time to, in a thread of its own: a check may hang.
    fn check_if_due(&self, watch: &mut Watch, health: &Health) {
        let now = uptime();
        if let Some(asked) = watch.asked {
            if now.saturating_sub(asked) >= health.timeout() + CHECK_SLACK {
                // Its answer, if it ever comes, counts as one more.
                watch.asked = Some(now);
                drop(self.inbox.send(Word::Checked(Err("its check does not end".to_owned()))));
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
                drop(inbox.send(Word::Checked(result)));
            });
        if let Err(error) = asking {
            drop(self.inbox.send(Word::Checked(Err(format!("the check cannot run: {error}")))));
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
            }
            return Ok(());
        };
        let was_up = self.table.get(&self.name).is_some_and(|status| status.was_up);
        // One that takes its time to come up is not ill yet.
        if !watch.is_up && (!was_up || ran_for < GRACE) {
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
        let what = match crate::container::take_reason(&format!("services-{}", self.name)) {
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
                Ok(Word::Ended(_)) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Tells, the first time, that the service is up; the last one makes the machine healthy.
    fn tell_up(&self, state: State) {
        let first = self.table.get(&self.name).is_some_and(|status| !status.was_up);
        self.table.change(&self.name, |status| status.was_up = true);
        self.table.enter(&self.name, state);
        if first {
            say(&format!("service {}", self.name));
            self.phone.tell_since(self.begun.get(), Phase::Service, self.name.as_str());
            if self.table.all_were_up() {
                let _ = self.healthy.send(());
            }
        }
    }
}

/// What is known of one run.
#[derive(Default)]
struct Watch {
    is_up: bool,
    /// When a check was begun that has not answered.
    asked: Option<Duration>,
    /// When the last one answered.
    checked: Duration,
    /// Failed checks one after the other.
    failures: u32,
}

impl Watch {
    /// Returns how long there is nothing to do.
    fn wait(&self, health: Option<&Health>) -> Duration {
        match health {
            None if self.is_up => FOREVER,
            None => UP_AFTER,
            Some(_) if self.asked.is_some() => UP_AFTER,
            Some(health) => {
                // Until it is up it is asked often: it may be a matter of moments.
                let up = health.interval();
                let interval = if self.is_up { up } else { UP_AFTER.min(up) };
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
        assert!(watch.wait(Some(&health)) <= UP_AFTER);
        watch.is_up = true;
        assert!(watch.wait(Some(&health)) > Duration::from_secs(3000));
        // While a check runs it is looked after.
        watch.asked = Some(Duration::ZERO);
        assert_eq!(watch.wait(Some(&health)), UP_AFTER);
        assert_eq!(watch.wait(None), FOREVER);
    }
}
