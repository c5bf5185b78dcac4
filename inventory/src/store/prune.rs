//! What is too old goes, a little at a time.

use super::db::query;
use super::row::word;
use super::{Store, StoreError};
use crate::Outcome;

const OLD: &str = "what is too old";

/// Rows that go in one transaction, so that nobody waits long for the next one.
const BATCH: i64 = 500;

/// What is too old: everything before these moments, in milliseconds since 1970. Nothing goes without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cutoff {
    /// Boots with their timelines, and orders.
    pub boots: Option<i64>,
    /// What was seen on the network.
    pub sightings: Option<i64>,
    /// The log of changes.
    pub changes: Option<i64>,
}

impl Store {
    /// Removes some of what is too old, and returns how much that was: call it again until that is nothing, and let
    /// others write in between. A boot that is under way, or whose system still reports, stays; so does the last good one
    /// of each machine, and the newest change, on which the next one builds.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn prune(&self, cutoff: Cutoff) -> Result<u64, StoreError> {
        let mut gone = self.prune_answers().await?;
        if let Some(before) = cutoff.boots {
            gone += query(
                "DELETE FROM boots WHERE id IN (SELECT id FROM boots b WHERE started < $1 \
                 AND outcome <> $2 AND NOT EXISTS (SELECT 1 FROM boot_tokens WHERE boot = b.id) \
                 AND NOT (outcome = $3 AND machine > 0 AND NOT EXISTS (SELECT 1 FROM boots later \
                 WHERE later.machine = b.machine AND later.outcome = $3 AND (later.started, later.id) > (b.started, b.id))) \
                 ORDER BY id LIMIT $4)",
            )
            .bind(before)
            .bind(word(&Outcome::Booting))
            .bind(word(&Outcome::Healthy))
            .bind(BATCH)
            .execute(&self.db)
            .await
            .map_err(|source| StoreError::writing(OLD, source))?;
            let old = "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE ended < $1 \
                       ORDER BY id LIMIT $2)";
            gone += self.remove_old(old, before).await?;
        }
        if let Some(before) = cutoff.sightings {
            let old = "DELETE FROM sightings WHERE (mac, asker) IN (SELECT mac, asker FROM sightings \
                       WHERE last < $1 ORDER BY last LIMIT $2)";
            gone += self.remove_old(old, before).await?;
        }
        if let Some(before) = cutoff.changes {
            // From the oldest on without a gap, even where the clock was set back between two of them.
            let old = "DELETE FROM changes WHERE id IN (SELECT id FROM changes WHERE id < COALESCE(\
                       (SELECT MIN(id) FROM changes WHERE at >= $1), (SELECT MAX(id) FROM changes)) \
                       ORDER BY id LIMIT $2)";
            gone += self.remove_old(old, before).await?;
        }
        Ok(gone)
    }

    /// Removes a batch of what a statement finds to be older than a moment.
    async fn remove_old(&self, statement: &'static str, before: i64) -> Result<u64, StoreError> {
        let removed = query(statement).bind(before).bind(BATCH).execute(&self.db).await;
        removed.map_err(|source| StoreError::writing(OLD, source))
    }
}
