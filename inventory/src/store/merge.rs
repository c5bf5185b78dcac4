use std::collections::BTreeSet;

use kiln_types::Mac;

use super::db::query;
use super::machines::check;
use super::{Edit, StoreError};
use crate::{Machine, MachineId};

impl Edit<'_> {
    /// Makes one machine of two: the second gives what it has to the first, its boots included, and is gone. Of what they
    /// said of themselves that of the newer boot stays. Secrets that are no metadata are the caller's: they are sealed for
    /// one machine. Nothing when one of them is not there.
    ///
    /// # Errors
    ///
    /// When one of them is locked, they are the same, or the database cannot be written.
    pub async fn merge_machines(
        &mut self,
        into: MachineId,
        from: MachineId,
    ) -> Result<Option<Machine>, StoreError> {
        if into == from {
            return Err(StoreError::Invalid("a machine cannot be merged into itself".to_owned()));
        }
        let Some(first) = self.machine(into, None).await? else { return Ok(None) };
        query(
            "INSERT INTO machine_facts (machine, boot, at, facts) \
             SELECT $1, boot, at, facts FROM machine_facts WHERE machine = $2 \
             ON CONFLICT (machine) DO UPDATE \
             SET boot = excluded.boot, at = excluded.at, facts = excluded.facts \
             WHERE excluded.at > machine_facts.at",
        )
        .bind(into.0)
        .bind(from.0)
        .execute(&mut self.tx)
        .await
        .map_err(|source| StoreError::writing("facts of a machine", source))?;
        let Some(second) = self.remove_machine(from, None).await? else { return Ok(None) };
        let all = first.spec.merged(&second.spec);
        check(&all)?;
        // What one of them has is sealed for both.
        let merged = self.put_machine(first, &all).await?;
        query("UPDATE boots SET machine = $1 WHERE machine = $2")
            .bind(into.0)
            .bind(from.0)
            .execute(&mut self.tx)
            .await
            .map_err(|source| StoreError::writing("boots", source))?;
        Ok(Some(merged))
    }

    /// Makes two machines of one: the second has these interfaces and boots nothing yet. Nothing when it is not there.
    ///
    /// # Errors
    ///
    /// When the machine is locked or does not have these interfaces, the name is taken, or the database cannot be written.
    pub async fn split_machine(
        &mut self,
        id: MachineId,
        name: &str,
        macs: &BTreeSet<Mac>,
    ) -> Result<Option<(Machine, Machine)>, StoreError> {
        let Some(whole) = self.machine(id, None).await? else { return Ok(None) };
        let (rest, new) = whole.spec.split(name, macs).map_err(StoreError::Invalid)?;
        let Some(rest) = self.change_machine(id, &rest, Some(whole.revision)).await? else {
            return Ok(None);
        };
        let new = self.add_machine(&new).await?;
        Ok(Some((rest, new)))
    }

    /// Returns how many boots a machine has.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn boots_of(&mut self, id: MachineId) -> Result<i64, StoreError> {
        let (count,): (i64,) = query("SELECT COUNT(*) FROM boots WHERE machine = $1")
            .bind(id.0)
            .fetch_one(&mut self.tx)
            .await
            .map_err(StoreError::reading("boots"))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_stores::stores;
    use super::super::tests::machine;
    use crate::{BootId, StoredFacts};

    #[tokio::test]
    async fn what_the_newer_boot_said_of_a_box_stays_when_machines_become_one() {
        for (_home, store) in stores().await {
            // Numbers of boots do not tell which is newer.
            let facts = |at: i64| StoredFacts {
                boot: BootId(100 - at),
                at,
                facts: format!("{{\"at\":{at}}}"),
            };
            for (number, of_first, of_second, stays) in [
                (1, Some(3), Some(4), Some(4)),
                (2, Some(4), Some(3), Some(4)),
                (3, None, Some(3), Some(3)),
                (4, Some(3), None, Some(3)),
                (5, None, None, None),
            ] {
                let mut ids = Vec::new();
                for (name, boot, last) in [("a", of_first, 1), ("b", of_second, 2)] {
                    let spec = machine(&format!("{name}{number}"), &[number * 10 + last]);
                    let id = store.add_machine(&spec).await.unwrap().id;
                    if let Some(boot) = boot {
                        store.set_facts(id, &facts(boot)).await.unwrap();
                    }
                    ids.push(id);
                }
                let mut edit = store.edit().await.unwrap();
                edit.merge_machines(ids[0], ids[1]).await.unwrap().unwrap();
                edit.commit().await.unwrap();
                let told = store.facts(ids[0]).await.unwrap();
                assert_eq!(told, stays.map(facts), "{number}");
                assert_eq!(store.facts(ids[1]).await.unwrap(), None);
            }
        }
    }
}
