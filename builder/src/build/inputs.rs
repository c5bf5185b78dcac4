use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_types::Digest;

use super::BuildError;
use crate::deb::{Archive, Package, PackageIndex};
use crate::hash::Hasher;
use crate::manifest::PackageEntry;
use crate::spec::{Place, Placed, Spec};

/// Changed whenever the same inputs would give other bytes.
const RECIPE: &str = "6";
/// Packages that a kernel is made of; the others that it depends on make an initrd and boot loader entries.
const KERNEL_PACKAGES: [&str; 3] = ["linux-image-", "linux-modules-", "linux-binary-"];

/// Every package that an image is made from, on disk and checked.
pub(super) struct Inputs {
    /// Packages of the kernel.
    pub(super) kernel: Vec<Fetched>,
    /// Packages of each container, by the names it asks for.
    pub(super) containers: BTreeMap<Vec<String>, Vec<Fetched>>,
}

/// A package on disk.
#[derive(Clone)]
pub(super) struct Fetched {
    pub(super) entry: PackageEntry,
    pub(super) path: PathBuf,
}

impl Inputs {
    pub(super) async fn fetch(
        spec: &Spec,
        kernel: &str,
        index: &PackageIndex,
        archive: &Archive<'_>,
    ) -> Result<Self, BuildError> {
        let resolve = |component: &str, place: &Place, names: &[String]| {
            index.resolve(names).map_err(|source| BuildError::Resolve {
                place: place.clone(),
                component: component.to_owned(),
                source,
            })
        };
        let place = spec.kernel.deb.as_ref().map_or(&spec.place, Placed::place);
        let mut packages = resolve("kernel", place, &[kernel.to_owned()])?;
        packages.retain(|package| {
            package.name == kernel || KERNEL_PACKAGES.iter().any(|p| package.name.starts_with(p))
        });
        // Everything is resolved before anything is fetched: an unknown package is told at once.
        let mut wanted = BTreeMap::new();
        for container in spec.containers() {
            let name = &container.name;
            let packages = resolve(name.as_str(), name.place(), &container.deb)?;
            wanted.insert(container.deb.clone(), packages);
        }
        let kernel = fetch_all(archive, packages).await?;
        let mut containers = BTreeMap::new();
        for (names, packages) in wanted {
            containers.insert(names, fetch_all(archive, packages).await?);
        }
        Ok(Self { kernel, containers })
    }
}

async fn fetch_all(
    archive: &Archive<'_>,
    packages: Vec<&Package>,
) -> Result<Vec<Fetched>, BuildError> {
    let mut fetched = Vec::new();
    for package in packages {
        let path = archive.fetch(package).await?;
        let entry = PackageEntry {
            name: package.name.clone(),
            version: package.version.as_str().to_owned(),
            arch: package.arch.clone(),
            sha256: package.sha256,
        };
        fetched.push(Fetched { entry, path });
    }
    Ok(fetched)
}

/// Begins the key that a result is remembered under.
pub(super) fn key(what: &str, packages: &[Fetched], mtime: u32) -> Hasher {
    let mut hasher = Hasher::default();
    for field in [what, RECIPE, env!("CARGO_PKG_VERSION"), &mtime.to_string()] {
        hasher.field(field);
    }
    for package in packages {
        hasher.update(Digest::as_bytes(&package.entry.sha256));
    }
    hasher
}
