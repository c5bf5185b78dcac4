//! Tells the server how far this boot has come.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use serde::Serialize;

use crate::clock::{self, millis, uptime_millis};
use crate::config::Machine;
use crate::console::say;
use crate::error::BootError;
use crate::http::{self, Limits, Request, Server};
use crate::kmsg;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// More than this is only kept in part while the server cannot be reached.
const MOST_WAITING: usize = 256;
const LONGEST_DETAIL: usize = 512;
/// The server has a line to say at most.
const LARGEST_ANSWER: usize = 4096;

/// How far the boot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Init,
    Modules,
    Link,
    Network,
    Volumes,
    Start,
    Onboot,
    Waiting,
    Service,
    Restart,
    Healthy,
    Failed,
}

#[derive(Debug, Serialize)]
struct Event {
    phase: Phase,
    detail: String,
    /// When it was, since the kernel started.
    millis: u64,
    /// How long it lasted until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    took: Option<u64>,
}

enum Note {
    Event(Event),
    NetworkIsUp,
}

/// Where events are handed in; never blocks, and without a server does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Phone(Option<Sender<Note>>);

impl Phone {
    /// Starts the thread that tells the server.
    pub(crate) fn start(
        server: Option<&Server>,
        machine: Option<&Machine>,
    ) -> Result<Self, BootError> {
        let (Some(server), Some(machine)) = (server, machine) else { return Ok(Self(None)) };
        let (sender, receiver) = channel();
        let (server, boot, token) = (server.clone(), machine.boot, machine.token.clone());
        std::thread::Builder::new()
            .name("phone".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || Caller { server, boot, token }.run(&receiver))
            .map_err(|source| BootError::StartThread("phone", source))?;
        Ok(Self(Some(sender)))
    }

    /// Tells what happened just now.
    pub(crate) fn tell(&self, phase: Phase, detail: impl Into<String>) {
        self.hand_in(phase, detail.into(), uptime_millis(), None);
    }

    /// Tells what began at `start`, a time since the kernel started, and is done now.
    pub(crate) fn tell_since(&self, start: Duration, phase: Phase, detail: impl Into<String>) {
        let now = uptime_millis();
        self.hand_in(phase, detail.into(), now, Some(now.saturating_sub(millis(start))));
    }

    /// Tells what happened at `when`, a time since the kernel started.
    pub(crate) fn tell_of(&self, when: Duration, phase: Phase, detail: impl Into<String>) {
        self.hand_in(phase, detail.into(), millis(when), None);
    }

    fn hand_in(&self, phase: Phase, mut detail: String, millis: u64, took: Option<u64>) {
        while detail.len() > LONGEST_DETAIL {
            detail.pop();
        }
        self.note(Note::Event(Event { phase, detail, millis, took }));
    }

    /// Before this nothing is sent.
    pub(crate) fn network_is_up(&self) {
        self.note(Note::NetworkIsUp);
    }

    fn note(&self, note: Note) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(note);
        }
    }
}

struct Caller {
    server: Server,
    boot: i64,
    token: String,
}

impl Caller {
    fn run(&self, notes: &Receiver<Note>) {
        let mut waiting: Vec<Event> = Vec::new();
        let mut reachable = false;
        let mut retry = FIRST_RETRY;
        let mut log_is_told = false;
        loop {
            // With something to send, waits only as long as until the next try.
            let note = if reachable && !waiting.is_empty() {
                match notes.recv_timeout(retry) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    other => other.ok(),
                }
            } else {
                match notes.recv() {
                    Ok(note) => Some(note),
                    Err(_) => return,
                }
            };
            let mut note = note;
            while let Some(next) = note {
                match next {
                    Note::NetworkIsUp => reachable = true,
                    Note::Event(event) if waiting.len() < MOST_WAITING => waiting.push(event),
                    // The last ones say most about how it ended.
                    Note::Event(event) => {
                        waiting.remove(MOST_WAITING / 2);
                        waiting.push(event);
                    }
                }
                note = notes.try_recv().ok();
            }
            if !reachable || waiting.is_empty() {
                continue;
            }
            match self.send(&waiting) {
                Some(status) if (200..300).contains(&status) => {
                    let failed = waiting.iter().any(|event| event.phase == Phase::Failed);
                    if failed && !log_is_told {
                        log_is_told = true;
                        self.send_kernel_log();
                    }
                    waiting.clear();
                    retry = FIRST_RETRY;
                }
                Some(status) if (400..500).contains(&status) && status != 408 && status != 429 => {
                    say(&format!("the server does not take the events of this boot: {status}"));
                    return;
                }
                Some(_) | None => retry = (retry * 2).min(LONGEST_RETRY),
            }
        }
    }

    /// Tells what the kernel wrote before the boot failed. Once: the server keeps one log of a boot, and what it does
    /// not take now is on the console as well.
    fn send_kernel_log(&self) {
        let log = kmsg::last_lines();
        if log.is_empty() {
            return;
        }
        let path = format!("/agent/{}/kernel-log", self.boot);
        let request = Request::post(&path, &self.token, &log);
        if let Err(error) = http::ask(&self.server, &request, Limits::SHORT, LARGEST_ANSWER) {
            say(&format!("the server does not get the log of the kernel: {error}"));
        }
    }

    /// Returns the status of the answer.
    fn send(&self, events: &[Event]) -> Option<u16> {
        let body = serde_json::to_vec(events).ok()?;
        let path = format!("/phone-home/{}", self.boot);
        let request = Request::post(&path, &self.token, &body);
        let answer = http::ask(&self.server, &request, Limits::SHORT, LARGEST_ANSWER).ok()?;
        if let Some(date) = answer.date() {
            clock::hear(date);
        }
        Some(answer.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_the_server_reads_them() {
        let event = |took| Event { phase: Phase::Healthy, detail: String::new(), millis: 12, took };
        assert_eq!(
            serde_json::to_string(&[event(None), event(Some(3))]).unwrap(),
            r#"[{"phase":"healthy","detail":"","millis":12},{"phase":"healthy","detail":"","millis":12,"took":3}]"#
        );
    }
}
