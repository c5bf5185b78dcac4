//! Keeps one service: starts it in its turn, and again when it has ended. What happens while it runs is in `run`.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::{SERVICES, State, Table};
use crate::clock::uptime;
use crate::config::{Restart, Service};
use crate::console::say;
use crate::phone::{Phase, Phone};
use crate::process::{Children, End};
use crate::restart::{Backoff, Told};

/// How long a service waits for those it comes after. Also ends a circle.
const ORDER_PATIENCE: Duration = Duration::from_secs(30);
/// How often one that waits looks whether it is told to do something else.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a keeper is told.
#[derive(Debug)]
pub(super) enum Word {
    /// The program of the run that began then runs.
    Runs(Duration),
    Ended(End),
    /// What a check said of the run that began then.
    Checked(Duration, Result<(), String>),
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
    /// Hears once that every service has run well.
    pub(super) healthy: Sender<()>,
    pub(super) inbox: Sender<Word>,
    pub(super) words: Receiver<Word>,
    /// When its turn came.
    pub(super) begun: Cell<Duration>,
    /// How often its program began.
    pub(super) starts: Cell<u32>,
}

/// How one run of a service was over.
pub(super) enum Run {
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
                Ok(Word::Runs(_) | Word::Ended(_) | Word::Checked(..)) => {}
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
            self.tell_steady();
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
                Ok(Word::Runs(_) | Word::Ended(_) | Word::Checked(..)) => {}
                Ok(word) => return Some(word),
                Err(_) => return None,
            }
        }
    }
}
