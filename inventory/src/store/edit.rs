//! Changes of nouns: all that belong together in one transaction, each with its row in the log of changes.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::changes::{Change, Verb};
use super::db::{Tx, query};
use super::row::json;
use super::{Store, StoreError};

const CHANGES: &str = "changes";

/// Rows of the log that are written by one statement.
const ROWS: usize = 250;

/// The number of the lock that writers of nouns take in PostgreSQL, so that the log of changes is one line. SQLite has
/// one writer at a time in any case.
const ONE_WRITER: &str = "SELECT pg_advisory_xact_lock(5495115)";

/// Tells the other servers of one PostgreSQL that there are changes.
const TELL: &str = "SELECT pg_notify('kiln_changes', $1)";

/// Tells the other servers something when what is written is there for them.
pub(super) async fn tell(tx: &mut Tx, what: &str) -> Result<(), sqlx::Error> {
    if matches!(tx, Tx::Postgres(_)) {
        query(TELL).bind(what).execute(tx).await?;
    }
    Ok(())
}

/// Changes that are made together or not at all: [`Store::edit`] begins, [`commit`](Edit::commit) ends. Dropped before,
/// nothing has changed, so that a dry run is an edit without its end. After an error an edit is of no more use.
pub struct Edit<'s> {
    pub(super) store: &'s Store,
    pub(super) tx: Tx,
    at: i64,
    last: Change,
    first: i64,
}

impl std::fmt::Debug for Edit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edit").field("first", &self.first).finish_non_exhaustive()
    }
}

/// One row for the log: what was there only before is removed, what is there only after is added.
#[derive(Debug)]
pub struct Step<'a> {
    /// What kind of noun.
    pub noun: &'static str,
    /// Its id; of an order or a lease, that of the machine.
    pub subject: i64,
    /// Its name.
    pub name: &'a str,
    /// What it was, without secrets.
    pub before: Option<Value>,
    /// What it is from now on, or what was asked.
    pub after: Option<Value>,
}

impl Step<'_> {
    const fn verb(&self) -> Verb {
        match (&self.before, &self.after) {
            (None, _) => Verb::Add,
            (_, None) => Verb::Remove,
            _ => Verb::Change,
        }
    }
}

impl Store {
    /// Starts a transaction that writes what an edit may write too: one waits for the other.
    pub(super) async fn write_alone(&self, what: &'static str) -> Result<Tx, StoreError> {
        let mut tx = self.write(what).await?;
        if matches!(tx, Tx::Postgres(_)) {
            let alone = query(ONE_WRITER).execute(&mut tx).await;
            alone.map_err(|source| StoreError::writing(what, source))?;
        }
        Ok(tx)
    }

    /// Begins to change nouns. Others wait until it is committed or dropped, so that nothing slow may happen meanwhile.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn edit(&self) -> Result<Edit<'_>, StoreError> {
        let mut tx = self.write_alone(CHANGES).await?;
        let last = Change::last(&mut tx).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at = i64::try_from(now).unwrap_or(i64::MAX);
        Ok(Edit { store: self, tx, at, first: last.id, last })
    }

    /// Writes down what was done to something that is in no transaction of the inventory.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn record(&self, step: Step<'_>) -> Result<(), StoreError> {
        let mut edit = self.edit().await?;
        edit.log(step).await?;
        edit.commit().await?;
        Ok(())
    }
}

impl Edit<'_> {
    /// Writes down a change of a noun, or something that was done.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn log(&mut self, step: Step<'_>) -> Result<(), StoreError> {
        let documents = (step.before.as_ref().map(json), step.after.as_ref().map(json));
        self.write(step.verb(), (step.noun, step.subject, step.name), documents).await
    }

    /// Writes down many changes at once.
    pub(super) async fn log_all(&mut self, steps: Vec<Step<'_>>) -> Result<(), StoreError> {
        for steps in steps.chunks(ROWS) {
            let mut changes = Vec::with_capacity(steps.len());
            for step in steps {
                let documents = (step.before.as_ref().map(json), step.after.as_ref().map(json));
                let noun = (step.noun, step.subject, step.name);
                self.last =
                    self.last.next(self.at, &self.store.actor, step.verb(), noun, documents);
                changes.push(self.last.clone());
            }
            Change::write_all(&changes, &mut self.tx).await?;
        }
        Ok(())
    }

    /// Writes down what was asked for in vain.
    pub(super) async fn deny(
        &mut self,
        noun: &str,
        name: &str,
        asked: &Value,
    ) -> Result<(), StoreError> {
        self.write(Verb::Deny, (noun, 0, name), (None, Some(json(asked)))).await
    }

    async fn write(
        &mut self,
        verb: Verb,
        noun: (&str, i64, &str),
        documents: (Option<String>, Option<String>),
    ) -> Result<(), StoreError> {
        let change = self.last.next(self.at, &self.store.actor, verb, noun, documents);
        change.write(&mut self.tx).await?;
        self.last = change;
        Ok(())
    }

    /// Returns the number of the last change that was there when the edit began.
    pub const fn began_at(&self) -> i64 {
        self.first
    }

    /// Returns how many changes were made so far.
    pub fn changes(&self) -> i64 {
        self.last.id - self.first
    }

    /// Makes the changes last. Returns the number of the last one.
    ///
    /// # Errors
    ///
    /// When the database cannot be written. Nothing has changed then.
    pub async fn commit(mut self) -> Result<i64, StoreError> {
        let failed = |source| StoreError::writing(CHANGES, source);
        let last = self.last.id;
        if last == self.first {
            return Ok(last);
        }
        tell(&mut self.tx, &last.to_string()).await.map_err(failed)?;
        self.tx.commit().await.map_err(failed)?;
        self.store.saw_change(last);
        Ok(last)
    }
}
