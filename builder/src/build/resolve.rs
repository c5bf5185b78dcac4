use std::collections::BTreeMap;

use super::packages::{Packages, Wanted};
use super::{BuildError, LockUse};
use crate::lock::{Lock, PackagePin};
use crate::manifest::PackageEntry;
use crate::spec::{Placed, Spec};

/// Packages that a kernel is made of; the others that it depends on make an initrd and boot loader entries.
const KERNEL_PACKAGES: [&str; 3] = ["linux-image-", "linux-modules-", "linux-binary-"];

/// What every name in a specification means.
pub(super) struct Resolved {
    /// Packages of the kernel.
    pub(super) kernel: Vec<PackagePin>,
    /// Packages of each container, by the names it asks for.
    pub(super) containers: BTreeMap<Vec<String>, Vec<PackagePin>>,
    /// All of that.
    pub(super) lock: Lock,
}

impl Resolved {
    /// Resolves everything before anything is fetched: what is unknown is told at once.
    pub(super) async fn new(
        spec: &Spec,
        packages: &Packages<'_>,
        old: &Lock,
        lock_use: &LockUse,
    ) -> Result<Self, BuildError> {
        let mut lock = Lock::default();
        let kernel = spec.kernel_package(packages.arch)?.to_owned();
        let keep =
            |name: &str| name == kernel || KERNEL_PACKAGES.iter().any(|p| name.starts_with(p));
        let wanted = Wanted {
            component: "kernel",
            place: spec.kernel.deb.as_ref().map_or(&spec.place, Placed::place),
            names: std::slice::from_ref(&kernel),
            keep: Some(&keep),
        };
        let kernel = packages.closure(&wanted, old, lock_use, &mut lock).await?;
        let mut containers = BTreeMap::new();
        for container in spec.containers().filter(|container| !container.deb.is_empty()) {
            if containers.contains_key(&container.deb) {
                continue;
            }
            let wanted = Wanted {
                component: container.name.as_str(),
                place: container.name.place(),
                names: &container.deb,
                keep: None,
            };
            let found = packages.closure(&wanted, old, lock_use, &mut lock).await?;
            containers.insert(container.deb.clone(), found);
        }
        Ok(Self { kernel, containers, lock })
    }

    /// Returns every package, sorted.
    pub(super) fn package_entries(&self) -> Vec<PackageEntry> {
        let all = self.kernel.iter().chain(self.containers.values().flatten());
        let mut entries: Vec<_> = all
            .map(|pin| PackageEntry {
                name: pin.name.clone(),
                version: pin.version.clone(),
                arch: pin.arch.clone(),
                sha256: pin.sha256,
            })
            .collect();
        entries.sort();
        entries.dedup();
        entries
    }
}
