//! The inventory on disk, by sqlx: a file of SQLite, or a database of PostgreSQL.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::watch;

pub use answers::Asked;
pub use apply::{Applied, Outline, Source};
pub use backup::{BackupError, BackupFile, BackupSummary, verify_backup};
pub use changes::{Change, Verb, Verified};
pub use contents::Contents;
pub use database::{Database, ParseDatabaseError, PostgresUrl};
pub use documents::{Document, Stored};
pub use edit::{Edit, Step};
pub use error::StoreError;
pub use facts::StoredFacts;
pub use feed::FeedEvent;
pub use history::WhichBoots;
pub use news::{Changed, Mark, News};
pub use prune::Cutoff;
pub use servers::{BLOCK, Pools};
pub use spare::SpareBoots;
pub use tokens::TakenUp;

use crate::Seal;
use db::{Db, Tx};

mod anew;
mod answers;
mod apply;
#[cfg(test)]
mod apply_tests;
mod away;
mod backup;
#[cfg(test)]
mod backup_tests;
mod boots;
#[cfg(test)]
mod change_tests;
mod changes;
mod contents;
#[cfg(test)]
mod contents_tests;
mod database;
mod db;
mod discovered;
#[cfg(test)]
mod discovered_tests;
mod documents;
mod edit;
mod error;
mod facts;
mod feed;
mod history;
mod leases;
mod leases6;
mod machines;
mod merge;
#[cfg(test)]
mod migration_tests;
mod news;
#[cfg(test)]
mod order_tests;
mod orders;
mod prune;
mod row;
#[cfg(test)]
mod server_tests;
mod servers;
mod sightings;
mod spare;
mod states;
#[cfg(test)]
mod test_stores;
#[cfg(test)]
mod tests;
mod tokens;
mod used;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Longest wait for another writer of the same file, such as a backup, or of the same rows.
const BUSY: Duration = Duration::from_secs(5);

/// The inventory. Clones share its connections.
///
/// What a method wrote is on disk when it returns: an address that was acknowledged to a machine must not be
/// given to another one after a power cut.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    /// Who makes the changes.
    actor: Arc<str>,
    /// Which of the servers that share the inventory this is; 0 where there is no other.
    server: i64,
    /// The file as it was opened: what is written to one that was moved away would be lost.
    file: Option<Arc<OpenFile>>,
    /// The number of the newest change that is known here.
    newest: watch::Sender<i64>,
    /// What seals the secrets of metadata before they are written.
    seal: Option<Arc<dyn Seal>>,
}

impl Store {
    /// Opens an inventory in a file of SQLite, creates it where there is none, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, is no database, or was written by a newer Kiln. The file is then
    /// as it was.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::connect(&Database::Sqlite(path.to_owned())).await
    }

    /// Opens an inventory wherever it is, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and when the server cannot be reached.
    pub async fn connect(database: &Database) -> Result<Self, StoreError> {
        let failed = |source| StoreError::opening(database, source);
        let (db, migrated, file) = match database {
            Database::Sqlite(path) => {
                private_file(path)
                    .map_err(|source| StoreError::Open { database: database.clone(), source })?;
                let pool = sqlite(path).await.map_err(failed)?;
                let migrated = SQLITE.run(&pool).await;
                (Db::Sqlite(pool), migrated, OpenFile::new(path))
            }
            Database::Postgres(url) => {
                let pool = postgres(url).await.map_err(failed)?;
                let migrated = POSTGRES.run(&pool).await;
                (Db::Postgres(pool), migrated, None)
            }
        };
        let database = database.clone();
        let (actor, newest) = ("server".into(), watch::Sender::new(0));
        let store = Self { db, actor, server: 0, file: file.map(Arc::new), newest, seal: None };
        let opened = match migrated {
            Ok(()) => store.last_change().await,
            Err(MigrateError::VersionMissing(version)) => {
                Err(StoreError::TooNew { database, version })
            }
            Err(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                Err(StoreError::opening(&database, source))
            }
            Err(source) => Err(StoreError::Migrate { database, source }),
        };
        match opened {
            Ok(last) => {
                store.saw_change(last);
                Ok(store)
            }
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// Returns the same inventory, whose changes are made by someone: they are in the log of changes under that name.
    #[must_use]
    pub fn acting(&self, actor: &str) -> Self {
        Self { actor: actor.into(), ..self.clone() }
    }

    /// Returns the same inventory, which writes the secrets of metadata only as they are sealed.
    #[must_use]
    pub fn sealing(&self, seal: Arc<dyn Seal>) -> Self {
        Self { seal: Some(seal), ..self.clone() }
    }

    /// Returns what tells the number of the newest change whenever there is a new one.
    pub fn watch_changes(&self) -> watch::Receiver<i64> {
        self.newest.subscribe()
    }

    /// Tells who waits for changes that there is one.
    fn saw_change(&self, id: i64) {
        self.newest.send_if_modified(|newest| {
            let more = id > *newest;
            *newest = id.max(*newest);
            more
        });
    }

    /// Tells them what the database has as its newest one: another one than before, and an older one where a backup was
    /// put in its place.
    fn is_at_change(&self, id: i64) {
        self.newest.send_if_modified(|newest| std::mem::replace(newest, id) != id);
    }

    /// Closes the connections; SQLite folds its log into the file. Other clones fail from then on.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// Starts a transaction that writes.
    async fn write(&self, what: &'static str) -> Result<Tx, StoreError> {
        if let Some(file) = self.file.as_ref().filter(|file| !file.is_there()) {
            return Err(StoreError::Gone { database: Database::Sqlite(file.path.clone()) });
        }
        self.db.begin_write().await.map_err(|source| StoreError::writing(what, source))
    }
}

/// Which file was opened under a path.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenFile {
    fn new(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }

    fn is_there(&self) -> bool {
        std::fs::metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode))
    }
}

async fn sqlite(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new();
    pool.max_connections(4).acquire_timeout(Duration::from_secs(30)).connect_with(options).await
}

async fn postgres(url: &PostgresUrl) -> Result<PgPool, sqlx::Error> {
    postgres_pool().connect_with(postgres_options(url)?).await
}

fn postgres_options(url: &PostgresUrl) -> Result<PgConnectOptions, sqlx::Error> {
    let busy = BUSY.as_millis().to_string();
    let options = url.options()?.application_name("kiln");
    let busy = ("lock_timeout", busy.as_str());
    Ok(options.options([busy, ("idle_in_transaction_session_timeout", "60s")]))
}

fn postgres_pool() -> PgPoolOptions {
    // A server that is gone is told soon: what boots does not wait for it, and who asks gets an answer.
    PgPoolOptions::new().max_connections(8).acquire_timeout(BUSY)
}

/// Makes the file, so that it is private from its first moment: it names machines and their networks. SQLite gives
/// its side files the same mode.
fn private_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}
