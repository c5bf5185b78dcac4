//! An inventory whose database cannot be reached yet: a server starts with what it knew, and writes again later.

use std::path::Path;

use sqlx::postgres::PgConnectOptions;

use super::db::Db;
use super::{Database, Store, StoreError, postgres_options, postgres_pool};

/// A place where no server ever listens, so that whoever asks is told at once.
const NOWHERE: &str = "/dev/null";

impl Store {
    /// Returns a shared inventory as this server last used it, without a connection: whatever asks it is told that the
    /// database cannot be reached, until [`reached`](Self::reached). Nothing where it is in a file.
    pub fn away(database: &Database, server: i64, newest: i64) -> Option<Self> {
        let Database::Postgres(_) = database else { return None };
        let nowhere = PgConnectOptions::new_without_pgpass().socket(Path::new(NOWHERE));
        let db = Db::Postgres(postgres_pool().connect_lazy_with(nowhere));
        let newest = tokio::sync::watch::Sender::new(newest);
        Some(Self { db, actor: "server".into(), server, file: None, newest, seal: None })
    }

    /// Lets this inventory and its clones use the database from now on, as the same server. Its tables are up to date:
    /// somebody has [connected](Self::connect) to it before.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or this is no inventory that was [away](Self::away).
    pub async fn reached(&self, database: &Database) -> Result<(), StoreError> {
        if let (Database::Postgres(url), Db::Postgres(pool)) = (database, &self.db) {
            let options = postgres_options(url);
            pool.set_connect_options(options.map_err(|e| StoreError::opening(database, e))?);
        }
        let last = self.last_change().await?;
        self.is_at_change(last);
        Ok(())
    }

    /// Returns the number by which the servers of a shared inventory tell this one from others; 0 where there are none.
    pub const fn server(&self) -> i64 {
        self.server
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::Mac;

    use super::super::test_stores::stores;
    use super::*;
    use crate::NewMachine;

    #[tokio::test]
    async fn an_inventory_that_is_away_says_so_at_once_and_goes_on_where_it_was() {
        let [(file, _), (home, store)] = stores().await;
        assert!(Store::away(&file.database, 0, 0).is_none());
        let entered = store.serving("one", "host", &[]).await.unwrap();
        let spec = NewMachine::new("n1", [Mac::new([2, 0, 0, 0, 0, 1])]);
        store.add_machine(&spec).await.unwrap();

        let away = Store::away(&home.database, entered.server(), 0).unwrap();
        let begin = tokio::time::Instant::now();
        let errors = [
            away.machines().await.unwrap_err(),
            away.add_machine(&NewMachine::new("n2", [Mac::new([2, 0, 0, 0, 0, 2])]))
                .await
                .unwrap_err(),
        ];
        assert!(begin.elapsed() < super::super::BUSY, "nobody waits for what is not there");
        for error in errors {
            assert!(error.is_unavailable(), "{error}");
            assert!(error.to_string().contains("cannot be reached; see whether"), "{error}");
        }
        let mut news = away.watch_changes();
        away.clone().reached(&home.database).await.unwrap();
        assert!(news.has_changed().unwrap(), "who follows changes hears of what was missed");
        assert_eq!(*news.borrow_and_update(), store.last_change().await.unwrap());
        assert_eq!(away.machines().await.unwrap().len(), 1);
        assert_eq!(away.server(), entered.server());
    }
}
