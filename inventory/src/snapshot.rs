use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use crate::{Artifact, Bake, Machine};

/// Everything that a decision depends on, at one moment. Cheap to share and never changed: a new one replaces it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    machines: Vec<Arc<Machine>>,
    by_mac: HashMap<Mac, usize>,
    /// What each image and channel names, by architecture.
    pub images: BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>,
    /// What machines get that the inventory does not know.
    pub unknown: UnknownMachines,
    /// What the server is about to build, by name of the image and architecture.
    pub bakes: BTreeMap<String, BTreeMap<Arch, Bake>>,
}

impl Snapshot {
    /// Indexes the machines. Where two of them claim one address, the older machine has it.
    pub fn new(
        mut machines: Vec<Arc<Machine>>,
        images: BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>,
        unknown: UnknownMachines,
    ) -> Self {
        machines.sort_by_key(|machine| machine.id);
        let mut by_mac = HashMap::new();
        for (index, machine) in machines.iter().enumerate() {
            for mac in &machine.spec.macs {
                by_mac.entry(*mac).or_insert(index);
            }
        }
        Self { machines, by_mac, images, unknown, bakes: BTreeMap::new() }
    }

    /// Returns the machine that has an interface with this hardware address.
    pub fn machine_by_mac(&self, mac: Mac) -> Option<&Arc<Machine>> {
        self.by_mac.get(&mac).and_then(|index| self.machines.get(*index))
    }

    /// Returns every machine, oldest first.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }
}

/// One version of an image: what its manifest says that matters to booting it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageVersion {
    /// Digest of the manifest.
    pub version: Digest,
    /// The kernel.
    pub kernel: Artifact,
    /// Whether UEFI can start the kernel: it has an EFI stub.
    pub efi_stub: bool,
    /// The initrd, in order.
    pub segments: Vec<Artifact>,
    /// Kernel arguments.
    pub cmdline: String,
}

/// What machines get that the inventory does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownMachines {
    /// No answer to anything that wants to boot. It is recorded.
    #[default]
    Ignore,
    /// An address and a script that shows how to add the machine, and asks again until someone does.
    Hold,
}
