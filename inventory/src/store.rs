//! The inventory on disk: SQLite by sqlx, one file.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};

pub use error::StoreError;
pub use facts::StoredFacts;

mod boots;
mod error;
mod facts;
mod leases;
mod leases6;
mod machines;
#[cfg(test)]
mod order_tests;
mod orders;
mod row;
mod sightings;
#[cfg(test)]
mod tests;
mod tokens;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Longest wait for another writer of the same file, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

/// The database of one server. Clones share its connections.
///
/// What a method wrote is on disk when it returns: an address that was acknowledged to a machine must not be
/// given to another one after a power cut.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, creates it where there is none, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, is no database, or was written by a newer Kiln. The file is then
    /// as it was.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        private_file(path).map_err(open)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true);
        let failed = |source| StoreError::opening(path, source);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options)
            .await
            .map_err(failed)?;
        match MIGRATIONS.run(&pool).await {
            Ok(()) => Ok(Self { pool }),
            Err(error) => {
                pool.close().await;
                Err(match error {
                    MigrateError::VersionMissing(version) => {
                        StoreError::TooNew { path: path.to_owned(), version }
                    }
                    MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                        failed(source)
                    }
                    source => StoreError::Migrate { path: path.to_owned(), source },
                })
            }
        }
    }

    /// Closes the connections and folds the log into the file. Other clones fail from then on.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Starts a transaction that holds the write lock from its start, so that it cannot fail half-way because
    /// of another writer.
    async fn write(&self, what: &'static str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(|source| StoreError::writing(what, source))
    }
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
