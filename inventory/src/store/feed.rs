//! What happened in boots, over all of them, in the order in which it was written.

use sqlx::FromRow;

use super::backup::tables::last_id;
use super::db::query;
use super::row::parse_word;
use super::{Store, StoreError};
use crate::{BootId, MachineId, Phase};

const EVENTS: &str = "boot events";

/// One event of some boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// Its number: a later one has a higher number.
    pub id: i64,
    /// The boot.
    pub boot: BootId,
    /// The machine.
    pub machine: MachineId,
    /// Its name when it booted.
    pub machine_name: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What it was.
    pub phase: Phase,
    /// More about it.
    pub detail: String,
}

#[derive(FromRow)]
struct FeedRow {
    id: i64,
    boot: i64,
    machine: i64,
    machine_name: String,
    at: i64,
    phase: String,
    detail: String,
}

impl Store {
    /// Returns the events of boots after that with this number, oldest first, at most as many as asked for.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn boot_events_since(
        &self,
        id: i64,
        limit: u32,
    ) -> Result<Vec<FeedEvent>, StoreError> {
        let rows: Vec<FeedRow> = query(
            "SELECT e.id, e.boot, b.machine, b.machine_name, e.at, e.phase, e.detail \
             FROM boot_events e JOIN boots b ON b.id = e.boot WHERE e.id > $1 ORDER BY e.id LIMIT $2",
        )
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(EVENTS))?;
        let read = |row: FeedRow| {
            Ok(FeedEvent {
                id: row.id,
                boot: BootId(row.boot),
                machine: MachineId(row.machine),
                machine_name: row.machine_name,
                at: row.at,
                phase: parse_word("a phase", &row.phase)?,
                detail: row.detail,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Returns the number of the newest event of a boot, 0 before the first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn last_boot_event(&self) -> Result<i64, StoreError> {
        let (id,): (i64,) = query("SELECT COALESCE(MAX(id), 0) FROM boot_events")
            .fetch_one(&self.db)
            .await
            .map_err(StoreError::reading(EVENTS))?;
        Ok(id)
    }

    /// Returns the highest number that an event of a boot has ever had, also where that event is too old to be kept.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn highest_boot_event(&self) -> Result<i64, StoreError> {
        let mut tx = self.db.begin_read().await.map_err(StoreError::reading(EVENTS))?;
        Ok(last_id(&mut tx, "boot_events").await?.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_stores::stores;
    use super::super::tests::{new_boot, open_boot};
    use crate::BootEvent;

    #[tokio::test]
    async fn the_highest_number_stays_when_events_go() {
        for (_home, store) in stores().await {
            assert_eq!(store.highest_boot_event().await.unwrap(), 0);
            let boot = open_boot(&store, &new_boot()).await;
            let events = [1, 2, 3].map(|at| BootEvent::new(at, crate::Phase::Dhcp, ""));
            store.add_events(boot.id, &events).await.unwrap();
            assert_eq!(store.highest_boot_event().await.unwrap(), 3);
            super::query("DELETE FROM boots").execute(&store.db).await.unwrap();
            assert_eq!(store.last_boot_event().await.unwrap(), 0);
            assert_eq!(store.highest_boot_event().await.unwrap(), 3);
        }
    }
}
