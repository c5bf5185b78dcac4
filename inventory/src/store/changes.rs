//! The log of changes: who made which noun what, as a chain of hashes.

use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::FromRow;

use super::apply::places;
use super::db::{Tx, query, query_made};
use super::row::{damaged, parse, parse_word, word};
use super::{Store, StoreError};

const CHANGES: &str = "changes";

macro_rules! columns {
    () => {
        "id, at, actor, noun, subject, name, verb, before, after, previous, hash"
    };
}

/// What was done to a noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// It is new.
    Add,
    /// It is another than before.
    Change,
    /// It is gone.
    Remove,
    /// Somebody was refused.
    Deny,
}

/// One change of a noun. Secrets are in neither of its documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number: each has the next one.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Who did it.
    pub actor: String,
    /// What kind of noun: `machine`, `group` …
    pub noun: String,
    /// Its id; of an order or a lease, that of the machine.
    pub subject: i64,
    /// Its name then: the new one where that is what changed.
    pub name: String,
    /// What was done.
    pub verb: Verb,
    /// The noun before.
    #[serde(with = "document", skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    /// The noun afterwards.
    #[serde(with = "document", skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// The hash of the change before this one; nothing for the first of all.
    pub previous: Option<Digest>,
    /// SHA-256 of all that is above.
    pub hash: Digest,
}

/// What [`Store::verify_changes`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many changes there are.
    pub changes: u64,
    /// The hash of the newest. Who keeps it elsewhere can tell whether the end of the log was cut off.
    pub last: Option<Digest>,
    /// The first change that is not what was written, or does not follow the one before it.
    pub broken: Option<i64>,
}

/// Stored as text, because the hash is that of the text; shown as the document that it is.
mod document {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use serde_json::Value;

    #[allow(clippy::ref_option, reason = "what serde calls")]
    pub(super) fn serialize<S: Serializer>(
        text: &Option<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let value = text.as_deref().map(|text| {
            serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
        });
        value.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        Ok(Option::<Value>::deserialize(deserializer)?.map(|value| value.to_string()))
    }
}

#[derive(FromRow)]
struct ChangeRow {
    id: i64,
    at: i64,
    actor: String,
    noun: String,
    subject: i64,
    name: String,
    verb: String,
    before: Option<String>,
    after: Option<String>,
    previous: String,
    hash: String,
}

impl ChangeRow {
    fn read(self) -> Result<Change, StoreError> {
        let previous = Some(self.previous).filter(|hash| !hash.is_empty());
        Ok(Change {
            id: self.id,
            at: self.at,
            actor: self.actor,
            noun: self.noun,
            subject: self.subject,
            name: self.name,
            verb: parse_word("a verb", &self.verb)?,
            before: self.before,
            after: self.after,
            previous: previous.map(|hash| parse("a hash", &hash)).transpose()?,
            hash: parse("a hash", &self.hash)?,
        })
    }
}

impl Change {
    /// Before the first one.
    fn none() -> Self {
        Self {
            id: 0,
            at: 0,
            actor: String::new(),
            noun: String::new(),
            subject: 0,
            name: String::new(),
            verb: Verb::Add,
            before: None,
            after: None,
            previous: None,
            hash: Digest::from_bytes([0; 32]),
        }
    }

    pub(super) async fn last(tx: &mut Tx) -> Result<Self, StoreError> {
        let row: Option<ChangeRow> =
            query(concat!("SELECT ", columns!(), " FROM changes ORDER BY id DESC LIMIT 1"))
                .fetch_optional(tx)
                .await
                .map_err(StoreError::reading(CHANGES))?;
        row.map_or_else(|| Ok(Self::none()), ChangeRow::read)
    }

    /// Returns the change that follows this one.
    pub(super) fn next(
        &self,
        at: i64,
        actor: &str,
        verb: Verb,
        (noun, subject, name): (&str, i64, &str),
        (before, after): (Option<String>, Option<String>),
    ) -> Self {
        let mut change = Self {
            id: self.id + 1,
            at,
            actor: actor.to_owned(),
            noun: noun.to_owned(),
            subject,
            name: name.to_owned(),
            verb,
            before,
            after,
            previous: (self.id > 0).then_some(self.hash),
            hash: self.hash,
        };
        change.hash = change.sum();
        change
    }

    /// Returns what its hash has to be.
    fn sum(&self) -> Digest {
        let previous = self.previous.map(|digest| digest.hex());
        let all = (
            (previous, self.id, self.at, &self.actor, &self.noun, self.subject),
            (&self.name, self.verb, &self.before, &self.after),
        );
        // JSON keeps the fields apart, whatever is in them.
        Digest::from_bytes(Sha256::digest(super::row::json(&all)).into())
    }

    pub(super) async fn write(&self, tx: &mut Tx) -> Result<(), StoreError> {
        Self::write_all(std::slice::from_ref(self), tx).await
    }

    /// Writes changes that follow each other by one statement.
    pub(super) async fn write_all(changes: &[Self], tx: &mut Tx) -> Result<(), StoreError> {
        let text = format!(
            concat!("INSERT INTO changes (", columns!(), ") VALUES {}"),
            places(changes.len(), 11)
        );
        let insert = changes.iter().fold(query_made(text), |query, change| {
            query
                .bind(change.id)
                .bind(change.at)
                .bind(&change.actor)
                .bind(&change.noun)
                .bind(change.subject)
                .bind(&change.name)
                .bind(word(&change.verb))
                .bind(&change.before)
                .bind(&change.after)
                .bind(change.previous.map(|digest| digest.hex()).unwrap_or_default())
                .bind(change.hash.hex())
        });
        insert.execute(tx).await.map_err(|source| StoreError::writing(CHANGES, source))?;
        Ok(())
    }

    /// Returns what a document was before or after the change.
    ///
    /// # Errors
    ///
    /// When the database holds something else than a document.
    pub fn document(text: Option<&str>) -> Result<Option<Value>, StoreError> {
        text.map(|text| serde_json::from_str(text).map_err(|_| damaged("a document", text)))
            .transpose()
    }
}

impl Store {
    /// Writes down that the actor was refused, and what he had asked for.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn record_denial(
        &self,
        noun: &'static str,
        name: &str,
        asked: Value,
    ) -> Result<(), StoreError> {
        let mut edit = self.edit().await?;
        edit.deny(noun, name, &asked).await?;
        edit.commit().await?;
        Ok(())
    }

    /// Returns the changes after that with this number, oldest first, at most as many as asked for. From 0 on, all that
    /// are kept.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn changes_since(&self, id: i64, limit: u32) -> Result<Vec<Change>, StoreError> {
        let rows: Vec<ChangeRow> = query(concat!(
            "SELECT ",
            columns!(),
            " FROM changes WHERE id > $1 ORDER BY id LIMIT $2"
        ))
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(CHANGES))?;
        rows.into_iter().map(ChangeRow::read).collect()
    }

    /// Returns the number of the newest change, 0 before the first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn last_change(&self) -> Result<i64, StoreError> {
        let (id,): (i64,) = query("SELECT COALESCE(MAX(id), 0) FROM changes")
            .fetch_one(&self.db)
            .await
            .map_err(StoreError::reading(CHANGES))?;
        Ok(id)
    }

    /// Checks that every change that is kept is as it was written and follows the one before it.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn verify_changes(&self) -> Result<Verified, StoreError> {
        let mut found = Verified { changes: 0, last: None, broken: None };
        let mut before: Option<Change> = None;
        loop {
            let from = before.as_ref().map_or(0, |change| change.id);
            let rows = match self.changes_since(from, 1000).await {
                Ok(rows) if rows.is_empty() => return Ok(found),
                Ok(rows) => rows,
                // A word that no change has: the row is another than was written, one of those after the last good one.
                Err(StoreError::Row { .. }) => {
                    found.broken = Some(from + 1);
                    return Ok(found);
                }
                Err(error) => return Err(error),
            };
            for change in rows {
                let follows = before.as_ref().is_none_or(|before| {
                    change.id == before.id + 1 && change.previous == Some(before.hash)
                });
                if !follows || change.hash != change.sum() {
                    found.broken = Some(change.id);
                    return Ok(found);
                }
                found.changes += 1;
                found.last = Some(change.hash);
                before = Some(change);
            }
        }
    }
}
