//! What machines say about themselves, and the last words of kernels whose boot failed.

use super::db::query;
use super::{Store, StoreError};
use crate::{BootId, MachineId};

const FACTS: &str = "facts of a machine";
const LOG: &str = "the kernel log of a boot";
/// Kernel logs that are kept: of one machine, and of all together.
const LOGS_OF_MACHINE: i64 = 5;
pub(super) const LOGS: i64 = 200;

/// What a machine said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFacts {
    /// The boot in which it did.
    pub boot: BootId,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// JSON. The store does not look into it.
    pub facts: String,
}

impl Store {
    /// Keeps the facts of a machine in the place of those before. A machine that is not there any more has none.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn set_facts(
        &self,
        machine: MachineId,
        facts: &StoredFacts,
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO machine_facts (machine, boot, at, facts) \
             SELECT id, $2, $3, $4 FROM machines WHERE id = $1 \
             ON CONFLICT (machine) DO UPDATE \
             SET boot = excluded.boot, at = excluded.at, facts = excluded.facts",
        )
        .bind(machine.0)
        .bind(facts.boot.0)
        .bind(facts.at)
        .bind(&facts.facts)
        .execute(&self.db)
        .await
        .map_err(|source| StoreError::writing(FACTS, source))?;
        Ok(())
    }

    /// Returns what a machine said about itself last.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn facts(&self, machine: MachineId) -> Result<Option<StoredFacts>, StoreError> {
        let row: Option<(i64, i64, String)> =
            query("SELECT boot, at, facts FROM machine_facts WHERE machine = $1")
                .bind(machine.0)
                .fetch_optional(&self.db)
                .await
                .map_err(StoreError::reading(FACTS))?;
        Ok(row.map(|(boot, at, facts)| StoredFacts { boot: BootId(boot), at, facts }))
    }

    /// Returns the facts that machines told since a time, of at most so many machines behind one, in the order of machines.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn facts_since(
        &self,
        behind: MachineId,
        at: i64,
        limit: u32,
    ) -> Result<Vec<(MachineId, StoredFacts)>, StoreError> {
        let rows: Vec<(i64, i64, i64, String)> = query(
            "SELECT machine, boot, at, facts FROM machine_facts \
             WHERE machine > $1 AND at >= $2 ORDER BY machine LIMIT $3",
        )
        .bind(behind.0)
        .bind(at)
        .bind(i64::from(limit))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(FACTS))?;
        let told = |(machine, boot, at, facts)| {
            (MachineId(machine), StoredFacts { boot: BootId(boot), at, facts })
        };
        Ok(rows.into_iter().map(told).collect())
    }

    /// Keeps the kernel log of a boot, and forgets those of boots long past. A boot has one: a second is not taken.
    ///
    /// # Errors
    ///
    /// When the database cannot be written or there is no such boot.
    pub async fn add_kernel_log(&self, boot: BootId, at: i64, log: &str) -> Result<(), StoreError> {
        let failed = |source| StoreError::writing(LOG, source);
        let mut tx = self.write(LOG).await?;
        query(
            "INSERT INTO kernel_logs (boot, at, log) VALUES ($1, $2, $3) \
             ON CONFLICT (boot) DO NOTHING",
        )
        .bind(boot.0)
        .bind(at)
        .bind(log)
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        query(
            "DELETE FROM kernel_logs WHERE boot IN (SELECT boot FROM kernel_logs \
             JOIN boots ON boots.id = boot \
             WHERE machine = (SELECT machine FROM boots WHERE id = $1) \
             ORDER BY started DESC, boot DESC LIMIT 9223372036854775807 OFFSET $2)",
        )
        .bind(boot.0)
        .bind(LOGS_OF_MACHINE)
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        query(
            "DELETE FROM kernel_logs WHERE boot IN \
             (SELECT boot FROM kernel_logs ORDER BY at DESC, boot DESC LIMIT 9223372036854775807 OFFSET $1)",
        )
        .bind(LOGS)
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Returns what the kernel of a boot wrote before the boot failed.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn kernel_log(&self, boot: BootId) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = query("SELECT log FROM kernel_logs WHERE boot = $1")
            .bind(boot.0)
            .fetch_optional(&self.db)
            .await
            .map_err(StoreError::reading(LOG))?;
        Ok(row.map(|(log,)| log))
    }
}
