use std::collections::BTreeSet;

use kiln_types::Mac;

use super::db::query;
use super::{Edit, StoreError};
use crate::{Machine, MachineId};

impl Edit<'_> {
    /// Makes one machine of two: the second gives what it has to the first, its boots included, and is gone. Nothing when
    /// one of them is not there.
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
        let Some(second) = self.remove_machine(from, None).await? else { return Ok(None) };
        let all = first.spec.merged(&second.spec);
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
