//! What tasks of servers remember: beside the nouns, without a word in the log of changes, and without events.

use super::db::query;
use super::{Store, StoreError};

const STATES: &str = "what a task remembers";

impl Store {
    /// Returns what is remembered under a name, and its revision.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn recall(&self, name: &str) -> Result<Option<(i64, String)>, StoreError> {
        query("SELECT revision, document FROM documents WHERE noun = 'state' AND name = $1")
            .bind(name)
            .fetch_optional(&self.db)
            .await
            .map_err(StoreError::reading(STATES))
    }

    /// Remembers something under a name where its revision is still the expected one, or, without one, where there is
    /// nothing yet. Returns the new revision, or nothing when somebody else was faster.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn remember(
        &self,
        name: &str,
        expected: Option<i64>,
        text: &str,
    ) -> Result<Option<i64>, StoreError> {
        let row: Result<Option<(i64,)>, _> = match expected {
            None => {
                query(
                    "INSERT INTO documents (noun, name, document) VALUES ('state', $1, $2) \
                     ON CONFLICT DO NOTHING RETURNING revision",
                )
                .bind(name)
                .bind(text)
                .fetch_optional(&self.db)
                .await
            }
            Some(revision) => {
                query(
                    "UPDATE documents SET document = $2, revision = revision + 1 \
                     WHERE noun = 'state' AND name = $1 AND revision = $3 RETURNING revision",
                )
                .bind(name)
                .bind(text)
                .bind(revision)
                .fetch_optional(&self.db)
                .await
            }
        };
        let row = row.map_err(|source| StoreError::writing(STATES, source))?;
        Ok(row.map(|(revision,)| revision))
    }

    /// Forgets what is remembered under a name.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn forget(&self, name: &str) -> Result<(), StoreError> {
        query("DELETE FROM documents WHERE noun = 'state' AND name = $1")
            .bind(name)
            .execute(&self.db)
            .await
            .map_err(|source| StoreError::writing(STATES, source))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_stores::stores;

    #[tokio::test]
    async fn who_is_faster_remembers_and_nobody_hears_of_it() {
        for (_home, store) in stores().await {
            assert_eq!(store.recall("x").await.unwrap(), None);
            let first = store.remember("x", None, "1").await.unwrap().unwrap();
            assert_eq!(store.remember("x", None, "2").await.unwrap(), None);
            let second = store.remember("x", Some(first), "2").await.unwrap().unwrap();
            assert_eq!(store.remember("x", Some(first), "3").await.unwrap(), None);
            assert_eq!(store.recall("x").await.unwrap(), Some((second, "2".to_owned())));
            store.forget("x").await.unwrap();
            assert_eq!(store.recall("x").await.unwrap(), None);
            assert_eq!(store.last_change().await.unwrap(), 0);
        }
    }
}
