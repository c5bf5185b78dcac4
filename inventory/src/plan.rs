use std::sync::Arc;

use kiln_types::{Arch, Digest, ImageRef};
use serde::Serialize;

use crate::{Machine, Reason};

/// What [`decide`](crate::decide) found: what the machine gets, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The machine, where the inventory knows it.
    pub machine: Option<Arc<Machine>>,
    /// What it gets.
    pub plan: Plan,
    /// Why, in the order in which it was found.
    pub reasons: Vec<Reason>,
}

/// What a sighting is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Plan {
    /// Boot this version.
    Boot(BootPlan),
    /// An address and nothing else: the machine is known and is to run what it has, or no boot is asked for.
    Address,
    /// An address and a script that says why it waits, and asks again.
    Hold,
    /// An answer that fails at once, with the reason on the screen where the loader can show one.
    Refuse,
    /// No answer at all; another server may give one.
    Ignore,
}

/// One version of an image, in the files that a machine fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootPlan {
    /// Image and channel the version was found by.
    pub image: ImageRef,
    /// Digest of its manifest.
    pub version: Digest,
    /// Architecture it was built for.
    pub arch: Arch,
    /// The kernel.
    pub kernel: Artifact,
    /// The initrd, in the order in which the kernel reads it.
    pub segments: Vec<Artifact>,
    /// Kernel arguments.
    pub cmdline: String,
}

/// One file of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// What it is, for people: `kernel`, `init`, `web`.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}
