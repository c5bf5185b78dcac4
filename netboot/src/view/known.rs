//! What the view takes from the inventory, as one value: read from the database, or as it was when that was last reached.

use std::borrow::Borrow;

use kiln_inventory::{Contents, Flag, Group, Machine, MachineId, Store, StoreError, Stored};
use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use crate::secrets::SecretDoc;

/// All of the inventory that decisions depend on. Secrets are sealed in it, as they are in the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    machines: Vec<Machine>,
    groups: Vec<Stored<Group>>,
    pub(super) rest: Rest,
}

/// What changes without a word in the log of changes, and what there is little of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rest {
    pub(super) secrets: Vec<Stored<SecretDoc>>,
    /// What each cordoned machine last ran well.
    pub(super) well: Well,
    pub(super) ignored: Vec<Mac>,
}

/// The image that machines ran well last, with its version.
pub(super) type Well = Vec<(MachineId, (ImageRef, Digest, Arch))>;

impl Known {
    /// Returns how many machines there are.
    pub(crate) const fn machines(&self) -> usize {
        self.machines.len()
    }

    /// Reads it from the database.
    pub(crate) async fn read(inventory: &Store) -> Result<Self, StoreError> {
        let Contents { machines, groups, .. } = inventory.contents().await?;
        let rest = Rest::read(inventory, &cordoned(&machines)).await?;
        Ok(Self { machines, groups, rest })
    }

    /// Returns the machines and groups. No change is known to be in them.
    pub(super) fn contents(&self) -> Contents {
        let (machines, groups) = (self.machines.clone(), self.groups.clone());
        Contents { machines, groups, ..Contents::default() }
    }
}

/// Returns the machines that stay at what they last ran well.
pub(super) fn cordoned<T: Borrow<Machine>>(machines: &[T]) -> Vec<MachineId> {
    let machines = machines.iter().map(Borrow::borrow);
    machines.filter(|machine| machine.spec.is(Flag::Cordoned)).map(|machine| machine.id).collect()
}

/// Returns what machines ran well last.
pub(super) async fn well(inventory: &Store, machines: &[MachineId]) -> Result<Well, StoreError> {
    let mut well = Vec::new();
    for &machine in machines {
        let last = inventory.last_healthy(machine).await?;
        well.extend(last.map(|last| (machine, last)));
    }
    Ok(well)
}

impl Rest {
    async fn read(inventory: &Store, cordoned: &[MachineId]) -> Result<Self, StoreError> {
        Ok(Self {
            secrets: inventory.all().await?,
            well: well(inventory, cordoned).await?,
            ignored: inventory.ignored_macs().await?,
        })
    }
}
