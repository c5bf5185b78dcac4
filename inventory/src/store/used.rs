//! Which versions machines use.

use std::collections::BTreeSet;

use kiln_types::Digest;

use super::db::query;
use super::row::{parse, word};
use super::{Store, StoreError};
use crate::Outcome;

impl Store {
    /// Returns the versions that machines run or last ran well: of each machine that of its newest boot, that of its
    /// newest healthy one, and those of boots whose system still reports.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn used_versions(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let rows: Vec<(String,)> = query(
            "SELECT DISTINCT version FROM (SELECT id, version, outcome, \
             ROW_NUMBER() OVER (PARTITION BY machine ORDER BY started DESC, id DESC) AS back, \
             ROW_NUMBER() OVER (PARTITION BY machine, outcome ORDER BY started DESC, id DESC) AS back_alike \
             FROM boots WHERE version IS NOT NULL) AS numbered \
             WHERE back = 1 OR (outcome = $1 AND back_alike = 1) \
             OR EXISTS (SELECT 1 FROM boot_tokens WHERE boot = numbered.id)",
        )
        .bind(word(&Outcome::Healthy))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading("boots"))?;
        rows.into_iter().map(|(version,)| parse("a version", &version)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_stores::stores;
    use super::super::tests::{new_boot, open_boot};
    use super::*;
    use crate::{MachineId, NewBoot};

    fn version(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    #[tokio::test]
    async fn what_each_machine_runs_or_last_ran_well_is_used_however_many_booted_since() {
        for (_home, store) in stores().await {
            assert_eq!(store.used_versions().await.unwrap(), BTreeSet::new());
            let boot = async |machine, number: Option<u8>, outcome| {
                let new = NewBoot {
                    machine: MachineId(machine),
                    version: number.map(version),
                    ..new_boot()
                };
                let mut boot = open_boot(&store, &new).await;
                boot.outcome = outcome;
                store.update_boot(&boot).await.unwrap();
                boot.id
            };
            boot(3, Some(1), Outcome::Healthy).await;
            boot(3, Some(2), Outcome::Healthy).await;
            // Its system runs on while others are tried.
            let reports = boot(3, Some(3), Outcome::Failed).await;
            store.keep_token(reports, &version(0)).await.unwrap();
            boot(3, Some(4), Outcome::Failed).await;
            boot(3, Some(5), Outcome::Failed).await;
            boot(3, None, Outcome::Failed).await;
            for machine in 100..200 {
                boot(machine, Some(6), Outcome::Healthy).await;
            }
            let used = store.used_versions().await.unwrap();
            assert_eq!(used, [2, 3, 5, 6].map(version).into());
        }
    }
}
