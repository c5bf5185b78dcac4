//! What the view takes from the inventory, as one value: read from the database, or as it was when that was last reached.

use kiln_inventory::{Flag, Group, Machine, MachineId, Store, StoreError, Stored};
use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use crate::secrets::SecretDoc;

/// All of the inventory that decisions depend on. Secrets are sealed in it, as they are in the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(super) machines: Vec<Machine>,
    pub(super) groups: Vec<Stored<Group>>,
    pub(super) secrets: Vec<Stored<SecretDoc>>,
    /// What each cordoned machine last ran well.
    pub(super) well: Vec<(MachineId, (ImageRef, Digest, Arch))>,
    pub(super) ignored: Vec<Mac>,
}

impl Known {
    /// Returns how many machines there are.
    pub(crate) const fn machines(&self) -> usize {
        self.machines.len()
    }

    /// Reads it from the database.
    pub(crate) async fn read(inventory: &Store) -> Result<Self, StoreError> {
        let machines = inventory.machines().await?;
        let mut well = Vec::new();
        for machine in machines.iter().filter(|machine| machine.spec.is(Flag::Cordoned)) {
            let last = inventory.last_healthy(machine.id).await?;
            well.extend(last.map(|last| (machine.id, last)));
        }
        Ok(Self {
            groups: inventory.all().await?,
            secrets: inventory.all().await?,
            well,
            ignored: inventory.ignored_macs().await?,
            machines,
        })
    }
}
