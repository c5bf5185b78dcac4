use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{Progress, Task};

/// Between two events of one piece of work.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes events for programs to standard error: one JSON object on each line.
///
/// ```text
/// {"task":"packing web","done":0}
/// {"task":"busybox","done":65536,"total":1048576}
/// {"task":"packing web","done":0,"finished":true}
/// ```
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// How many pieces of work of one name run.
    running: Arc<Mutex<BTreeMap<String, usize>>>,
}

#[derive(Serialize)]
struct Event<'a> {
    task: &'a str,
    done: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    finished: bool,
}

impl Event<'_> {
    fn write(&self) {
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            // Whoever listens may have gone; the work goes on.
            let _ = std::io::stderr().write_all(&line);
        }
    }
}

impl Events {
    /// Returns a writer of events.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Progress for Events {
    fn begin(&self, name: &str, total: Option<u64>) -> Box<dyn Task> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running.entry(name.to_owned()).or_default() += 1;
        Event { task: name, done: 0, total, finished: false }.write();
        let all = Arc::clone(&self.running);
        Box::new(Running { all, name: name.to_owned(), done: 0, total, told: Instant::now() })
    }
}

#[derive(Debug)]
struct Running {
    all: Arc<Mutex<BTreeMap<String, usize>>>,
    name: String,
    done: u64,
    total: Option<u64>,
    told: Instant,
}

impl Running {
    fn event(&self, finished: bool) {
        Event { task: &self.name, done: self.done, total: self.total, finished }.write();
    }
}

impl Task for Running {
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            self.event(false);
        }
    }

    fn finish(self: Box<Self>) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.name);
                self.event(true);
            }
        }
    }
}
