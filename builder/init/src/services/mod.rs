//! Containers in their order: first `onboot` one by one, then the services side by side.

mod keeper;
mod once;
mod order;
mod run;
mod table;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::uptime;
use crate::config::Service;
use crate::error::BootError;
use crate::phone::Phone;
use crate::process::Children;
use keeper::{Keeper, Word};

pub(crate) use once::{run_onboot, run_onshutdown};
pub(crate) use table::{State, Status, Table, Wellness};

const SERVICES: &str = "/containers/services";
/// How long a service has to stop by itself; then it is made to.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long whoever waits for that does so: one that was killed needs a moment to be gone.
const END_PATIENCE: Duration = Duration::from_secs(8);
/// How long a person waits for a service that is to come up.
const START_PATIENCE: Duration = Duration::from_secs(30);

static RUNNING: OnceLock<Services> = OnceLock::new();

/// The services of this machine, for everyone who wants something of them.
#[derive(Debug)]
pub(crate) struct Services {
    table: Arc<Table>,
    /// Where the keeper of each service hears what it is to do.
    inboxes: BTreeMap<String, Sender<Word>>,
    after: BTreeMap<String, Vec<String>>,
}

/// Starts a thread for each service that starts it in its turn and keeps it. The receiver gets one
/// message when all have run well.
pub(crate) fn start(
    settings: &BTreeMap<String, Service>,
    children: &Arc<Children>,
    phone: &Phone,
) -> Result<Receiver<()>, BootError> {
    let (healthy, receiver) = channel();
    let names = bundles(SERVICES);
    let table = Arc::new(Table::new(&names));
    if names.is_empty() {
        let _ = healthy.send(());
    }
    let mut services =
        Services { table: Arc::clone(&table), inboxes: BTreeMap::new(), after: BTreeMap::new() };
    for name in names {
        let service = settings.get(&name).cloned().unwrap_or_default();
        services.after.insert(name.clone(), service.after.clone());
        let (inbox, words) = channel();
        services.inboxes.insert(name.clone(), inbox.clone());
        let keeper = Keeper {
            name: name.clone(),
            service,
            children: Arc::clone(children),
            phone: phone.clone(),
            table: Arc::clone(&table),
            healthy: healthy.clone(),
            inbox,
            words,
            begun: Cell::default(),
            starts: Cell::default(),
        };
        std::thread::Builder::new()
            .name(format!("keep {name}"))
            .stack_size(128 * 1024)
            .spawn(move || keeper.run())
            .map_err(|source| BootError::StartThread("service", source))?;
    }
    let _ = RUNNING.set(services);
    Ok(receiver)
}

/// Returns the services, once they have been started.
pub(crate) fn running() -> Option<&'static Services> {
    RUNNING.get()
}

impl Services {
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Starts a service that does not run, and waits until it is up. Returns what is to be told.
    pub(crate) fn start(&self, name: &str) -> Result<String, String> {
        let status = self.known(name)?;
        if matches!(status.state, State::Up | State::Starting) {
            return Ok(format!("{name} runs already"));
        }
        self.tell(name, Word::Start);
        self.wait_until_up(name, status.since)
    }

    /// Stops a service, which then stays so until it is started.
    pub(crate) fn stop(&self, name: &str) -> Result<String, String> {
        self.known(name)?;
        self.tell(name, Word::Stop);
        let patience = END_PATIENCE * 2;
        let stopped = |status: &Status| status.state == State::Stopped;
        match self.table.wait(name, patience, stopped) {
            Some(status) if stopped(&status) => {
                let users = order::direct_users(&self.after, name);
                let mut text = format!("{name} is stopped until it is started");
                if !users.is_empty() {
                    text.push_str(&format!("; what comes after it goes on: {}", users.join(", ")));
                }
                Ok(text)
            }
            _ => Err(format!("{name} does not stop")),
        }
    }

    /// Ends a service, and starts it at once.
    pub(crate) fn restart(&self, name: &str) -> Result<String, String> {
        self.known(name)?;
        let now = uptime();
        self.tell(name, Word::Restart);
        self.wait_until_up(name, now)
    }

    /// Stops everything at the end of the machine: who comes after others goes before them. Whoever does not stop by
    /// itself is made to; all together have this long.
    pub(crate) fn stop_all(&self, patience: Duration) {
        let start = uptime();
        for wave in order::waves_of_stops(&self.after) {
            for name in &wave {
                self.tell(name, Word::Stop);
            }
            for name in &wave {
                let left = patience.saturating_sub(uptime().saturating_sub(start));
                let ended = |status: &Status| status.state.is_final();
                self.table.wait(name, left.min(END_PATIENCE), ended);
            }
        }
    }

    fn known(&self, name: &str) -> Result<Status, String> {
        self.table.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.inboxes.keys().map(String::as_str).collect();
            let all = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("there is no service {name:?}; the services are: {all}")
        })
    }

    fn tell(&self, name: &str, word: Word) {
        if let Some(inbox) = self.inboxes.get(name) {
            let _ = inbox.send(word);
        }
    }

    /// Waits for a state that came after a moment.
    fn wait_until_up(&self, name: &str, moment: Duration) -> Result<String, String> {
        let settled = |status: &Status| {
            let ended = matches!(status.state, State::Pausing | State::Done | State::Failed);
            // One that ends at once is not said to be up.
            status.since > moment && (ended || status.state == State::Up && status.is_steady)
        };
        match self.table.wait(name, START_PATIENCE, settled) {
            Some(status) if settled(&status) => match status.state {
                State::Up => Ok(format!("{name} is up")),
                State::Done => Ok(format!("{name} {}", status.last)),
                _ => Err(format!("{name} {}; see its log", status.last)),
            },
            Some(status) => Ok(format!(
                "{name} is {} after {} s",
                status.state.word(),
                START_PATIENCE.as_secs()
            )),
            None => Err(format!("there is no service {name:?}")),
        }
    }
}

fn bundles(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(directory)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
