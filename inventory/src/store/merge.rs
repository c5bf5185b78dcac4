use std::collections::BTreeSet;

use kiln_types::Mac;

use super::db::query;
use super::{Store, StoreError};
use crate::{Machine, MachineId};

impl Store {
    /// Makes one machine of two: the second gives what it has to the first, its boots included, and is gone. Nothing when
    /// one of them is not there.
    ///
    /// # Errors
    ///
    /// When one of them is locked, they are the same, or the database cannot be written.
    pub async fn merge_machines(
        &self,
        into: MachineId,
        from: MachineId,
    ) -> Result<Option<Machine>, StoreError> {
        if into == from {
            return Err(StoreError::Invalid("a machine cannot be merged into itself".to_owned()));
        }
        let mut edit = self.edit().await?;
        let Some(first) = edit.machine(into, None).await? else { return Ok(None) };
        let Some(second) = edit.remove_machine(from, None).await? else { return Ok(None) };
        let all = first.spec.merged(&second.spec);
        // What one of them has is sealed for both.
        let merged = edit.put_machine(first, &all).await?;
        query("UPDATE boots SET machine = $1 WHERE machine = $2")
            .bind(into.0)
            .bind(from.0)
            .execute(&mut edit.tx)
            .await
            .map_err(|source| StoreError::writing("boots", source))?;
        edit.commit().await?;
        Ok(Some(merged))
    }

    /// Makes two machines of one: the second has these interfaces and boots nothing yet. Nothing when it is not there.
    ///
    /// # Errors
    ///
    /// When the machine is locked or does not have these interfaces, the name is taken, or the database cannot be written.
    pub async fn split_machine(
        &self,
        id: MachineId,
        name: &str,
        macs: &BTreeSet<Mac>,
    ) -> Result<Option<(Machine, Machine)>, StoreError> {
        let mut edit = self.edit().await?;
        let Some(whole) = edit.machine(id, None).await? else { return Ok(None) };
        let (rest, new) = whole.spec.split(name, macs).map_err(StoreError::Invalid)?;
        let Some(rest) = edit.change_machine(id, &rest, Some(whole.revision)).await? else {
            return Ok(None);
        };
        let new = edit.add_machine(&new).await?;
        edit.commit().await?;
        Ok(Some((rest, new)))
    }
}
