//! The database of a shared inventory may be away when a server starts: the whole rack came back from a power cut, and
//! the server of the database takes longest. What was known when it was last reached is in a file beside the leases;
//! machines boot from that, nothing else can be asked or changed, and the database is looked for until it is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_builder::durable;
use kiln_builder::hash::sha256;
use kiln_inventory::{Database, Duid, SpareBoots, Store, StoreError};
use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::inventory::enter;
use crate::boots::Boots;
use crate::dhcp::v6;
use crate::orders::Orders;
use crate::settings::Settings;
use crate::trouble::Trouble;
use crate::view::{Known, View, ViewError};

const FILE: &str = "last-known.json";
/// Of the file.
const VERSION: u32 = 1;
/// The file is not written more often than that, and at least so often: what machines last ran well changes without a
/// word in the log of changes.
const REST: Duration = Duration::from_secs(2);
const SELDOM: Duration = Duration::from_secs(300);
/// The part of the numbers that a server takes which starts without the database. It may start again before that is back.
const PART: usize = 4;
/// First and longest wait before the database is looked for again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The inventory as a server starts with it.
pub(super) struct Opened {
    pub(super) inventory: Store,
    /// Of this server, where others may share the inventory.
    pub(super) identity: Option<Duid>,
    /// What is known while the database is away.
    pub(super) known: Option<Known>,
    /// For boots that begin until the database is reached.
    pub(super) spare: SpareBoots,
}

/// What was known when the database was last reached.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LastKnown {
    version: u32,
    /// Where it was, without a password.
    database: String,
    /// By what the database knows this server.
    identity: String,
    server: i64,
    /// The newest change.
    newest: i64,
    /// Numbers for boots of a server that starts with this.
    #[serde(default)]
    spare: SpareBoots,
    known: Known,
}

/// Opens the inventory, or takes what was last known of it where its database cannot be reached.
pub(super) async fn open(settings: &Settings) -> Result<Opened, ServeError> {
    let database = settings.database();
    let failed = |source| ServeError::OpenInventory(database.clone(), source);
    let error = match Store::connect(&database).await {
        Ok(inventory) => {
            let (inventory, identity) = enter(settings, inventory, failed).await?;
            return Ok(Opened { inventory, identity, known: None, spare: SpareBoots::default() });
        }
        Err(error) => error,
    };
    if database.file().is_some() || !error.is_unavailable() {
        return Err(failed(error));
    }
    let identity = identity(settings)?;
    let path = settings.data_dir.join(FILE);
    let (at, who) = (database.clone(), identity.clone());
    let read = move || {
        let last = LastKnown::read(&path)?.if_of(&at, &who)?;
        Ok::<_, String>(last.take_numbers(&path))
    };
    let last = tokio::task::spawn_blocking(read).await;
    let last = last.map_err(|stopped| stopped.to_string()).flatten();
    let nothing = |why, source| ServeError::NothingKnown {
        database: database.clone(),
        why,
        source: Box::new(source),
    };
    match last {
        Ok((LastKnown { server, newest, known, .. }, spare)) => {
            let inventory = Store::away(&database, server, newest).ok_or_else(|| failed(error))?;
            tracing::warn!(
                %database,
                machines = known.machines(),
                "the database cannot be reached; machines get what was known of them, and nothing can be changed until it is back"
            );
            Ok(Opened { inventory, identity: Some(identity), known: Some(known), spare })
        }
        Err(why) => Err(nothing(why, error)),
    }
}

fn identity(settings: &Settings) -> Result<Duid, ServeError> {
    let path = settings.data_dir.join("server-id");
    v6::server_id(&path).map_err(|source| ServeError::ServerId(path, source))
}

impl LastKnown {
    fn read(path: &Path) -> Result<Self, String> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err("this server has never reached it".to_owned());
            }
            Err(error) => return Err(format!("{} cannot be read ({error})", path.display())),
        };
        let other = |error: String| format!("{} makes no sense ({error})", path.display());
        let version = serde_json::from_slice::<Version>(&text).map_err(|e| other(e.to_string()))?;
        if version.version != VERSION {
            return Err(format!("{} is of another version of Kiln", path.display()));
        }
        serde_json::from_slice(&text).map_err(|error| other(error.to_string()))
    }

    /// Takes numbers out of the file for good: the server that starts next does not use them as well.
    fn take_numbers(mut self, path: &Path) -> (Self, SpareBoots) {
        let spare = self.spare.split(self.spare.len().div_ceil(PART));
        let written = serde_json::to_vec(&self)
            .map_err(io::Error::from)
            .and_then(|bytes| durable::replace(path, &bytes, 0o600));
        match written {
            Ok(()) => (self, spare),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                let file = path.display();
                tracing::warn!(error, path = %file, "no boot can be numbered before the database is reached");
                (self, SpareBoots::default())
            }
        }
    }

    fn if_of(self, database: &Database, identity: &Duid) -> Result<Self, String> {
        if self.database != database.to_string() || self.identity != identity.to_string() {
            return Err(format!("what this server last knew is of {}", self.database));
        }
        Ok(self)
    }
}

/// The only part of the file that every version of it has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Keeps the file as the inventory is.
pub(super) struct Memory {
    pub(super) database: Database,
    pub(super) identity: Duid,
    pub(super) inventory: Store,
    path: PathBuf,
    /// Numbers that are in the file.
    spare: SpareBoots,
    /// Of what is in the file.
    written: Option<Digest>,
}

impl Memory {
    pub(super) fn new(settings: &Settings, identity: Duid, inventory: Store) -> Self {
        let (database, path) = (settings.database(), settings.data_dir.join(FILE));
        // Those that the file has may be of a database that was put back since.
        let spare = SpareBoots::default();
        Self { database, identity, inventory, path, spare, written: None }
    }

    /// Writes it, and again when something has changed, until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut news = self.inventory.watch_changes();
        let mut trouble = Trouble::new(
            "what is known of machines is not kept for a start without the database",
            "what is known of machines is kept again",
        );
        loop {
            news.mark_unchanged();
            let begun = Instant::now();
            match self.save().await {
                Ok(()) => trouble.over(None),
                Err(error) => trouble.failed(None, &crate::cli::chain(&*error)),
            }
            // A large inventory that changes all the time may take a twentieth of it.
            let rest = begun.elapsed().saturating_mul(19).max(REST);
            let changed = async {
                tokio::time::sleep(rest).await;
                let _ = tokio::time::timeout(SELDOM, news.changed()).await;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = changed => {}
            }
        }
        if news.has_changed().unwrap_or(false) {
            let _ = tokio::time::timeout(REST, self.save()).await;
        }
    }

    async fn save(&mut self) -> Result<(), crate::dhcp::BoxError> {
        // Before the rest is read: what comes meanwhile is read once more afterwards.
        let newest = self.inventory.last_change().await?;
        if self.spare.wants_more() {
            self.spare = self.inventory.spare_boots().await?;
        }
        let last = LastKnown {
            version: VERSION,
            database: self.database.to_string(),
            identity: self.identity.to_string(),
            server: self.inventory.server(),
            newest,
            spare: self.spare.clone(),
            known: Known::read(&self.inventory).await?,
        };
        let path = self.path.clone();
        let before = self.written.take();
        let write = move || -> Result<Digest, crate::dhcp::BoxError> {
            let bytes = serde_json::to_vec(&last)?;
            let digest = sha256(&bytes);
            if before != Some(digest) {
                durable::replace(&path, &bytes, 0o600)?;
            }
            Ok(digest)
        };
        self.written = Some(tokio::task::spawn_blocking(write).await??);
        Ok(())
    }
}

/// What has to hear that the database is back.
pub(super) struct Waiting {
    pub(super) settings: Settings,
    pub(super) inventory: Store,
    pub(super) view: Arc<View>,
    pub(super) boots: Boots,
    pub(super) orders: Orders,
    pub(super) leases6: v6::Ledger,
}

/// The database is not used yet.
#[derive(Debug, thiserror::Error)]
enum NotBack {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("this server cannot enter itself")]
    Enter(#[source] ServeError),
    #[error("the database has been replaced by another one; start this server anew")]
    Another,
}

impl Waiting {
    /// Looks for the database until it is there, and goes on with it.
    pub(super) async fn run(self, stop: CancellationToken, death: mpsc::Sender<String>) {
        let mut wait = AGAIN.0;
        let mut told = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(AGAIN.1);
            let error = match self.go_on().await {
                Ok(()) => {
                    tracing::info!("the database is reached; the inventory can be changed again");
                    return;
                }
                Err(error) => error,
            };
            let text = crate::cli::chain(&error);
            if matches!(error, NotBack::Another) {
                let _ = death.try_send(text);
                return;
            }
            // A database that a newer Kiln has changed meanwhile is not touched, and machines go on booting.
            if text != told {
                tracing::warn!(error = text, "the database is not used yet");
                told = text;
            }
        }
    }

    async fn go_on(&self) -> Result<(), NotBack> {
        let database = self.settings.database();
        let store = Store::connect(&database).await?;
        let entered = enter(&self.settings, store.clone(), |source| {
            ServeError::OpenInventory(database.clone(), source)
        });
        let read = async {
            let (entered, _) = entered.await.map_err(NotBack::Enter)?;
            Ok((entered.server(), entered.leases6().await?.0))
        };
        let read: Result<_, NotBack> = read.await;
        store.close().await;
        let (server, leases6) = read?;
        if server != self.inventory.server() {
            return Err(NotBack::Another);
        }
        // Before one can be written.
        self.leases6.learn(leases6);
        self.boots.go_on_with(database).await?;
        if self.view.lost_secrets().is_none() {
            super::inventory::seal(&self.inventory).await?;
        }
        self.orders.take_up().await?;
        self.view.is_back().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_last_known_is_read_only_where_it_is_whole_and_of_this_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let never = LastKnown::read(&path).unwrap_err();
        assert_eq!(never, "this server has never reached it");
        let database: Database = "postgres://kiln:hunter2@db/kiln".parse().unwrap();
        let identity = Duid::new(&[0, 4, 1, 2, 3]).unwrap();
        let last = || LastKnown {
            version: VERSION,
            database: database.to_string(),
            identity: identity.to_string(),
            server: 3,
            newest: 7,
            spare: SpareBoots::default(),
            known: Known::default(),
        };
        let bytes = serde_json::to_vec(&last()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
        fs::write(&path, &bytes).unwrap();
        assert_eq!(LastKnown::read(&path).unwrap(), last());
        let other: Database = "postgres://kiln@other/kiln".parse().unwrap();
        let why = last().if_of(&other, &identity).unwrap_err();
        assert_eq!(why, "what this server last knew is of postgres://kiln@db:5432/kiln");
        assert!(last().if_of(&database, &Duid::new(&[0, 4, 9]).unwrap()).is_err());
        for (text, message) in [
            (&bytes[..bytes.len() / 2], "makes no sense"),
            (&br#"{"version":2,"all":"else"}"#[..], "of another version"),
            (&b"\0\xff"[..], "makes no sense"),
        ] {
            fs::write(&path, text).unwrap();
            let why = LastKnown::read(&path).unwrap_err();
            assert!(why.contains(message) && why.contains(FILE), "{why}");
        }
    }
}
