use std::net::IpAddr;
use std::sync::Arc;

use kiln_types::{Arch, Digest, ImageRef};
use serde::Serialize;

use crate::{Effective, Loader, Machine, Reason, fill_netconsole};

/// What [`decide`](crate::decide) found: what the machine gets, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The machine, where the inventory knows it.
    pub machine: Option<Arc<Machine>>,
    /// The settings that hold for it, where the inventory knows it.
    pub settings: Option<Arc<Effective>>,
    /// What it gets.
    pub plan: Plan,
    /// The loader by which firmware gets there.
    pub loader: Loader,
    /// Why, in the order in which it was found.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// Fills the addresses of the machine, where it is known, and of the server into the kernel's arguments.
    #[must_use]
    pub fn between(mut self, own: Option<IpAddr>, server: IpAddr) -> Self {
        if let Plan::Boot(plan) = &mut self.plan {
            plan.cmdline = fill_netconsole(&plan.cmdline, own, server);
        }
        self
    }
}

/// What a sighting is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Plan {
    /// Boot this version.
    Boot(BootPlan),
    /// An address and nothing else: the machine is known and is to run what it has, or no boot is asked for.
    Address,
    /// What the machine has on its own disk: it is sent on to its next way of booting at once.
    LocalDisk,
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

impl BootPlan {
    /// Returns the segments that go before the machine's own and those that go after it. It is as early as can be: the
    /// kernel stops where an initrd was cut off on its way or does not fit, and the machine has to know whom to tell. Only
    /// microcode goes before it, which the kernel looks for at the very beginning (`find_microcode_in_initrd`).
    pub fn around_machine(&self) -> (&[Artifact], &[Artifact]) {
        let before = |segment: &&Artifact| Self::goes_before_machine(&segment.name);
        self.segments.split_at(self.segments.iter().take_while(before).count())
    }

    /// Returns whether a segment of this name goes before the machine's own when it is among the first.
    pub fn goes_before_machine(name: &str) -> bool {
        name == MICROCODE
    }
}

/// The segment that the builder makes of processor microcode.
const MICROCODE: &str = "ucode";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_of_a_machine_comes_first_but_for_microcode() {
        let artifact = |name: &str| Artifact {
            name: name.to_owned(),
            digest: Digest::from_bytes([1; 32]),
            size: 1,
        };
        for (names, before) in
            [(&["ucode", "init", "web"][..], 1), (&["init", "ucode"], 0), (&[], 0)]
        {
            let plan = BootPlan {
                image: "web".parse().unwrap(),
                version: Digest::from_bytes([2; 32]),
                arch: Arch::X86_64,
                kernel: artifact("kernel"),
                segments: names.iter().map(|name| artifact(name)).collect(),
                cmdline: String::new(),
            };
            let (first, rest) = plan.around_machine();
            assert_eq!((first.len(), rest.len()), (before, names.len() - before));
        }
    }
}
