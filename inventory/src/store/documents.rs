//! Nouns that are kept as one document each: groups, tokens, webhooks, rules, users.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::db::{On, Tx, query};
use super::edit::{Edit, Step};
use super::row::{damaged, json};
use super::{Store, StoreError};
use crate::Seal;

const DOCUMENTS: &str = "documents";

/// A noun that is kept as one JSON document, in the table `documents`. It needs no table and no migration of its own:
///
/// ```text
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// pub struct Group { pub name: String, pub selector: Selector, pub priority: i64, … }
///
/// impl Document for Group {
///     const NOUN: &'static str = "group";
///     fn name(&self) -> &str { &self.name }
///     fn check(&self) -> Result<(), String> { … }          // what a group cannot be
/// }
///
/// let group: Stored<Group> = store.acting("uid 0").add(&group).await?;          // id, revision 1
/// let groups: Vec<Stored<Group>> = store.all::<Group>().await?;
/// store.change(group.id, &other, Some(group.revision)).await?;                  // None: whatever it is now
/// store.remove::<Group>(group.id, None).await?;
/// ```
///
/// Each of these writes one row of the log of changes in the same transaction, and numbers the document anew where it
/// really changed. Several changes that belong together are made by [`Store::edit`], which has the same methods.
pub trait Document: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync {
    /// The word for it, as in the command line: it is stored with every document and every change.
    const NOUN: &'static str;

    /// Its name. No two documents of one noun have the same.
    fn name(&self) -> &str;

    /// By what else it is found, such as the hash of a token. No two documents of one noun have the same.
    fn key(&self) -> Option<&str> {
        None
    }

    /// Refuses what it cannot be, in one sentence that says what to do.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Takes over from what is there what files may leave out, such as secrets.
    fn keep(&mut self, now: &Self) {
        let _ = now;
    }

    /// Seals what may not be written in the clear, as it is sealed now where it is the same.
    ///
    /// # Errors
    ///
    /// Says why it cannot be.
    fn seal(&mut self, seal: &dyn Seal, now: Option<&Self>) -> Result<(), String> {
        let _ = (seal, now);
        Ok(())
    }

    /// Takes out of a document what may not be in the log of changes.
    fn hide(document: &mut Value) {
        let _ = document;
    }
}

/// A document as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored<T> {
    /// Our own id: it never names another one.
    pub id: i64,
    /// 1 at first, and one more with every change.
    pub revision: i64,
    /// What an operator says.
    #[serde(flatten)]
    pub document: T,
}

const ALL: &str = "SELECT id, revision, document FROM documents WHERE noun = $1 ORDER BY id";

type Row = (i64, i64, String);

fn read<T: Document>((id, revision, text): Row) -> Result<Stored<T>, StoreError> {
    let document = serde_json::from_str(&text).map_err(|_| damaged(T::NOUN, &text))?;
    Ok(Stored { id, revision, document })
}

pub(super) fn shown<T: Document>(document: &T) -> Value {
    let mut value = serde_json::to_value(document).unwrap_or_default();
    T::hide(&mut value);
    value
}

/// Returns every document of a noun, oldest first.
pub(super) async fn all<'a, T: Document>(
    on: impl Into<On<'a>>,
) -> Result<Vec<Stored<T>>, StoreError> {
    let rows: Vec<Row> =
        query(ALL).bind(T::NOUN).fetch_all(on).await.map_err(StoreError::reading(DOCUMENTS))?;
    rows.into_iter().map(read).collect()
}

impl Store {
    /// Returns every document of a noun, oldest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn all<T: Document>(&self) -> Result<Vec<Stored<T>>, StoreError> {
        all(&self.db).await
    }

    /// Returns the document with a name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn named<T: Document>(&self, name: &str) -> Result<Option<Stored<T>>, StoreError> {
        let row: Option<Row> =
            query("SELECT id, revision, document FROM documents WHERE noun = $1 AND name = $2")
                .bind(T::NOUN)
                .bind(name)
                .fetch_optional(&self.db)
                .await
                .map_err(StoreError::reading(DOCUMENTS))?;
        row.map(read).transpose()
    }

    /// Returns the document with a key.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn keyed<T: Document>(&self, key: &str) -> Result<Option<Stored<T>>, StoreError> {
        let row: Option<Row> =
            query("SELECT id, revision, document FROM documents WHERE noun = $1 AND lookup = $2")
                .bind(T::NOUN)
                .bind(key)
                .fetch_optional(&self.db)
                .await
                .map_err(StoreError::reading(DOCUMENTS))?;
        row.map(read).transpose()
    }

    /// Adds a document.
    ///
    /// # Errors
    ///
    /// When it is refused, its name or key is taken, or the database cannot be written.
    pub async fn add<T: Document>(&self, document: &T) -> Result<Stored<T>, StoreError> {
        let mut edit = self.edit().await?;
        let added = edit.add(document).await?;
        edit.commit().await?;
        Ok(added)
    }

    /// Changes a document and returns it as it is now, or nothing when there is none. One that is the same already keeps
    /// its revision.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), and [`StoreError::Changed`] when its revision is another than expected.
    pub async fn change<T: Document>(
        &self,
        id: i64,
        document: &T,
        expected: Option<i64>,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let mut edit = self.edit().await?;
        let changed = edit.change(id, document, expected).await?;
        edit.commit().await?;
        Ok(changed)
    }

    /// Removes a document and returns it, or nothing when there is none.
    ///
    /// # Errors
    ///
    /// When the database cannot be written, and [`StoreError::Changed`] when its revision is another than expected.
    pub async fn remove<T: Document>(
        &self,
        id: i64,
        expected: Option<i64>,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let mut edit = self.edit().await?;
        let removed = edit.remove(id, expected).await?;
        edit.commit().await?;
        Ok(removed)
    }
}

impl Edit<'_> {
    /// Returns every document of a noun, as this edit sees them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn all<T: Document>(&mut self) -> Result<Vec<Stored<T>>, StoreError> {
        all(&mut self.tx).await
    }

    /// As [`Store::add`].
    ///
    /// # Errors
    ///
    /// As [`Store::add`].
    pub async fn add<T: Document>(&mut self, document: &T) -> Result<Stored<T>, StoreError> {
        self.free(document, 0).await?;
        let document = &self.sealed_document(document, None)?;
        let (id,): (i64,) = query(
            "INSERT INTO documents (noun, name, lookup, document) VALUES ($1, $2, $3, $4) \
             RETURNING id",
        )
        .bind(T::NOUN)
        .bind(document.name())
        .bind(document.key())
        .bind(json(document))
        .fetch_one(&mut self.tx)
        .await
        .map_err(|source| StoreError::writing(DOCUMENTS, source))?;
        let (name, after) = (document.name(), Some(shown(document)));
        self.log(Step { noun: T::NOUN, subject: id, name, before: None, after }).await?;
        Ok(Stored { id, revision: 1, document: document.clone() })
    }

    /// As [`Store::change`].
    ///
    /// # Errors
    ///
    /// As [`Store::change`].
    pub async fn change<T: Document>(
        &mut self,
        id: i64,
        document: &T,
        expected: Option<i64>,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let Some(now) = self.found::<T>(id, expected).await? else { return Ok(None) };
        let document = &self.sealed_document(document, Some(&now.document))?;
        if now.document == *document {
            return Ok(Some(now));
        }
        self.free(document, id).await?;
        let revision = self.put(id, now.revision, (&now.document, document)).await?;
        Ok(Some(Stored { id, revision, document: document.clone() }))
    }

    /// Returns a document with what is secret in it sealed.
    pub(super) fn sealed_document<T: Document>(
        &self,
        document: &T,
        now: Option<&T>,
    ) -> Result<T, StoreError> {
        let mut document = document.clone();
        if let Some(seal) = &self.store.seal {
            document.seal(&**seal, now).map_err(StoreError::Invalid)?;
        }
        Ok(document)
    }

    /// Writes a document that is sealed, and returns its revision.
    pub(super) async fn put<T: Document>(
        &mut self,
        id: i64,
        now: i64,
        (before, document): (&T, &T),
    ) -> Result<i64, StoreError> {
        let revision = now + 1;
        query(
            "UPDATE documents SET name = $1, lookup = $2, document = $3, revision = $4 WHERE id = $5",
        )
        .bind(document.name())
        .bind(document.key())
        .bind(json(document))
        .bind(revision)
        .bind(id)
        .execute(&mut self.tx)
        .await
        .map_err(|source| StoreError::writing(DOCUMENTS, source))?;
        let (before, after) = (Some(shown(before)), Some(shown(document)));
        self.log(Step { noun: T::NOUN, subject: id, name: document.name(), before, after }).await?;
        Ok(revision)
    }

    /// As [`Store::remove`].
    ///
    /// # Errors
    ///
    /// As [`Store::remove`].
    pub async fn remove<T: Document>(
        &mut self,
        id: i64,
        expected: Option<i64>,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let Some(now) = self.found::<T>(id, expected).await? else { return Ok(None) };
        query("DELETE FROM documents WHERE id = $1")
            .bind(id)
            .execute(&mut self.tx)
            .await
            .map_err(|source| StoreError::writing(DOCUMENTS, source))?;
        self.forget_secrets(T::NOUN, id).await?;
        let (name, before) = (now.document.name(), Some(shown(&now.document)));
        self.log(Step { noun: T::NOUN, subject: id, name, before, after: None }).await?;
        Ok(Some(now))
    }

    /// Removes the secrets of a noun that is removed. They are documents with the name `NOUN/ID/NAME`, and go without a
    /// word of their own in the log of changes.
    pub(super) async fn forget_secrets(&mut self, noun: &str, id: i64) -> Result<(), StoreError> {
        query("DELETE FROM documents WHERE noun = 'secret' AND name LIKE $1")
            .bind(format!("{noun}/{id}/%"))
            .execute(&mut self.tx)
            .await
            .map_err(|source| StoreError::writing(DOCUMENTS, source))?;
        Ok(())
    }

    /// Returns a document, when it is what the caller thinks it is.
    async fn found<T: Document>(
        &mut self,
        id: i64,
        expected: Option<i64>,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let row: Option<Row> =
            query("SELECT id, revision, document FROM documents WHERE id = $1 AND noun = $2")
                .bind(id)
                .bind(T::NOUN)
                .fetch_optional(&mut self.tx)
                .await
                .map_err(StoreError::reading(DOCUMENTS))?;
        let Some(now) = row.map(read::<T>).transpose()? else { return Ok(None) };
        StoreError::unless_same(T::NOUN, now.document.name(), now.revision, expected)?;
        Ok(Some(now))
    }

    /// Refuses what cannot be, and what another document has.
    async fn free<T: Document>(&mut self, document: &T, this: i64) -> Result<(), StoreError> {
        document.check().map_err(StoreError::Invalid)?;
        taken::<T>(&mut self.tx, document, this).await
    }
}

async fn taken<T: Document>(tx: &mut Tx, document: &T, this: i64) -> Result<(), StoreError> {
    let other: Option<(String,)> = query(
        "SELECT name FROM documents WHERE noun = $1 AND id <> $2 AND (name = $3 OR lookup = $4) LIMIT 1",
    )
    .bind(T::NOUN)
    .bind(this)
    .bind(document.name())
    .bind(document.key())
    .fetch_optional(tx)
    .await
    .map_err(StoreError::reading(DOCUMENTS))?;
    match other {
        None => Ok(()),
        Some((name,)) => Err(StoreError::Taken { noun: T::NOUN, name }),
    }
}
