//! The inventory on disk: SQLite by sqlx, one file.

use std::path::Path;

use kiln_types::Mac;

use crate::{Boot, BootEvent, BootId, Lease, Machine, MachineId, NewBoot, NewMachine, Sighting};

/// An operation of the [`Store`] that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing works yet.
    #[error("the store is not there yet")]
    Missing,
}

/// The database of one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {}

#[expect(clippy::unused_async, reason = "bodies follow")]
#[allow(missing_docs)]
impl Store {
    pub async fn open(_path: &Path) -> Result<Self, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn add_machine(&self, _machine: &NewMachine) -> Result<Machine, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn remove_machine(&self, _id: MachineId) -> Result<bool, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn commit_leases(&self, _leases: &[Lease]) -> Result<(), StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn open_boot(&self, _boot: &NewBoot) -> Result<Boot, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn update_boot(&self, _boot: &Boot) -> Result<(), StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn add_events(&self, _id: BootId, _events: &[BootEvent]) -> Result<(), StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn boots(&self, _limit: u32) -> Result<Vec<Boot>, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn boot(&self, _id: BootId) -> Result<Option<(Boot, Vec<BootEvent>)>, StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn record_sighting(&self, _s: &Sighting, _at: i64) -> Result<(), StoreError> {
        Err(StoreError::Missing)
    }
    pub async fn last_sighting(&self, _mac: Mac) -> Result<Option<(Sighting, i64)>, StoreError> {
        Err(StoreError::Missing)
    }
}
