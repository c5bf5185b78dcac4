//! What a running build says: its log, and how far it is.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Lines of the log that are kept for each image.
const LINES: usize = 1000;
/// The longest line that is kept.
const LINE: usize = 2000;
/// Pieces of work that are shown at a time.
const TASKS: usize = 64;

/// One line of the log of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// Counts up from 1, over all builds of the image.
    pub id: u64,
    /// The text.
    pub text: String,
}

/// One event on the standard error of `kiln build --progress json`.
#[derive(Debug, Deserialize)]
struct Event {
    task: String,
    #[serde(default)]
    done: u64,
    total: Option<u64>,
    #[serde(default)]
    finished: bool,
}

/// Log and progress of the builds of one image.
#[derive(Debug, Default)]
pub(super) struct Live {
    lines: VecDeque<LogLine>,
    last: u64,
    tasks: BTreeMap<String, (u64, Option<u64>)>,
    newest: String,
}

impl Live {
    /// Begins a new build. The log goes on.
    pub(super) fn begin(&mut self, text: &str) {
        self.tasks.clear();
        self.newest.clear();
        self.log(text);
    }

    /// Takes one line of the standard error of a build: an event, or text for the log.
    pub(super) fn take(&mut self, line: &str) {
        match serde_json::from_str::<Event>(line) {
            Ok(event) => self.event(event),
            Err(_) => self.log(line),
        }
    }

    fn event(&mut self, event: Event) {
        let known = self.tasks.contains_key(&event.task);
        if event.finished {
            self.tasks.remove(&event.task);
            return;
        }
        if !known {
            if self.tasks.len() >= TASKS {
                return;
            }
            self.log(&event.task);
        }
        self.newest.clone_from(&event.task);
        self.tasks.insert(event.task, (event.done, event.total));
    }

    /// Adds a line to the log.
    pub(super) fn log(&mut self, text: &str) {
        let text: String = text.trim_end().chars().filter(|c| !c.is_control()).take(LINE).collect();
        if text.is_empty() {
            return;
        }
        self.last += 1;
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(LogLine { id: self.last, text });
    }

    /// Returns the lines after one, and the number of the last.
    pub(super) fn after(&self, id: u64) -> (Vec<LogLine>, u64) {
        (self.lines.iter().filter(|line| line.id > id).cloned().collect(), self.last)
    }

    /// Says how far the build is, in a few words.
    pub(super) fn progress(&self) -> Option<String> {
        let (done, total) = self.tasks.get(&self.newest).or_else(|| self.tasks.values().next())?;
        let task = if self.tasks.contains_key(&self.newest) {
            &self.newest
        } else {
            self.tasks.keys().next()?
        };
        let mib = |bytes: u64| bytes >> 20;
        Some(match total {
            Some(total) if *total > 0 => {
                let percent = done.saturating_mul(100) / total;
                format!("{task}: {} % of {} MiB", percent.min(100), mib(*total).max(1))
            }
            _ if *done >= 1 << 20 => format!("{task}: {} MiB", mib(*done)),
            _ => task.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_progress_and_other_lines_the_log() {
        let mut live = Live::default();
        live.begin("building web for arm64");
        assert_eq!(live.progress(), None);
        live.take(r#"{"task":"fetching busybox","done":0,"total":4194304}"#);
        live.take(r#"{"task":"fetching busybox","done":1048576,"total":4194304}"#);
        assert_eq!(live.progress().unwrap(), "fetching busybox: 25 % of 4 MiB");
        live.take(r#"{"task":"packing web","done":3145728}"#);
        assert_eq!(live.progress().unwrap(), "packing web: 3 MiB");
        live.take(r#"{"task":"packing web","finished":true}"#);
        assert_eq!(live.progress().unwrap(), "fetching busybox: 25 % of 4 MiB");
        live.take("kiln: warning: \u{1b}[1mfile capabilities are lost");
        let (lines, last) = live.after(1);
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        let warning = "kiln: warning: [1mfile capabilities are lost";
        assert_eq!(texts, ["fetching busybox", "packing web", warning]);
        assert_eq!(last, 4);
    }

    #[test]
    fn a_talkative_build_does_not_fill_the_memory() {
        let mut live = Live::default();
        for n in 0..5 * LINES {
            live.take(&format!("{n} {}", "x".repeat(10 * LINE)));
            live.take(&format!(r#"{{"task":"t{n}","done":{n}}}"#));
        }
        let (lines, _) = live.after(0);
        assert_eq!(lines.len(), LINES);
        assert!(lines.iter().all(|line| line.text.len() <= LINE) && live.tasks.len() <= TASKS);
    }
}
