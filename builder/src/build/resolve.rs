use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_types::{Arch, Digest};

use super::packages::{Packages, Wanted};
use super::{BuildError, LockUse, state};
use crate::deb::ResolveError;
use crate::lock::{Lock, PackagePin};
use crate::manifest::PackageEntry;
use crate::oci::{Image, Images, Reference};
use crate::output::Stub;
use crate::spec::{Placed, Spec};

/// Packages that a kernel is made of; the others that it depends on make an initrd and boot loader entries.
const KERNEL_PACKAGES: [&str; 3] = ["linux-image-", "linux-modules-", "linux-binary-"];

/// The part of Debian's archive that most firmware is in (Debian Policy §2.2.3).
const NON_FREE_FIRMWARE: &str = "non-free-firmware";

/// What the lock file calls systemd's stub.
pub(super) const STUB: &str = "stub";

/// What every name in a specification means.
pub(super) struct Resolved {
    /// Packages of the kernel; none when it comes from an image.
    pub(super) kernel: Vec<PackagePin>,
    /// Packages with firmware.
    pub(super) firmware: Vec<PackagePin>,
    /// Every image, by its name.
    pub(super) images: BTreeMap<String, Image>,
    /// Packages of each container, by the names it asks for.
    pub(super) containers: BTreeMap<Vec<String>, Vec<PackagePin>>,
    /// Packages of the programs for the state partition; none without one.
    pub(super) state: Vec<PackagePin>,
    /// The package of systemd's stub, where it was asked for.
    pub(super) stub: Option<PackagePin>,
    /// All of that.
    pub(super) lock: Lock,
}

impl Resolved {
    /// Resolves everything before anything is fetched: what is unknown is told at once.
    pub(super) async fn new(
        spec: &Spec,
        packages: &Packages<'_>,
        sources: &Images<'_>,
        old: &Lock,
        lock_use: &LockUse,
    ) -> Result<Self, BuildError> {
        let mut lock = Lock::default();
        let images = images(spec, sources, packages.arch, old, lock_use, &mut lock).await?;
        let kernel = match &spec.kernel.image {
            Some(_) => Vec::new(),
            None => {
                let kernel = spec.kernel_package(packages.arch)?.to_owned();
                let keep = |name: &str| {
                    name == kernel || KERNEL_PACKAGES.iter().any(|p| name.starts_with(p))
                };
                let wanted = Wanted {
                    component: "kernel",
                    place: spec.kernel.deb.as_ref().map_or(&spec.place, Placed::place),
                    names: std::slice::from_ref(&kernel),
                    keep: Some(&keep),
                };
                packages.closure(&wanted, old, lock_use, &mut lock).await?
            }
        };
        let firmware = firmware(spec, packages, old, lock_use, &mut lock).await?;
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
        let state = match &spec.state {
            Some(state) => {
                let names = [state::PACKAGE.to_owned()];
                let wanted = Wanted {
                    component: state::COMPONENT,
                    place: state.place(),
                    names: &names,
                    keep: Some(&state::is_needed),
                };
                packages.closure(&wanted, old, lock_use, &mut lock).await?
            }
            None => Vec::new(),
        };
        Ok(Self { kernel, firmware, images, containers, state, stub: None, lock })
    }

    /// Resolves the package of systemd's stub: if it is needed, or if only the lock is to be brought up to date.
    pub(super) async fn add_stub(
        &mut self,
        spec: &Spec,
        packages: &Packages<'_>,
        needed: bool,
        old: &Lock,
        lock_use: &LockUse,
    ) -> Result<(), BuildError> {
        let names = [Stub::PACKAGE.to_owned()];
        let wanted = Wanted {
            component: STUB,
            place: &spec.place,
            names: &names,
            keep: Some(&|name| name == Stub::PACKAGE),
        };
        if needed || packages.knows(&wanted, old) {
            let found = packages.closure(&wanted, old, lock_use, &mut self.lock).await?;
            self.stub = found.into_iter().next();
        }
        Ok(())
    }

    /// Returns an image by its name. Every image of the specification is there.
    pub(super) fn image(&self, reference: &Reference) -> Option<&Image> {
        self.images.get(&reference.to_string())
    }

    /// Returns the index of an image, of all its architectures, or its manifest where it has none.
    pub(super) fn root(&self, image: &Image) -> Digest {
        let pin = self.lock.image(&image.reference.to_string());
        image.index.or_else(|| pin?.index).unwrap_or(image.digest)
    }

    /// Returns every package, sorted.
    pub(super) fn package_entries(&self) -> Vec<PackageEntry> {
        let all = self.kernel.iter().chain(&self.firmware).chain(&self.state);
        let all = all.chain(self.containers.values().flatten());
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

/// Finds the packages that the kernel's firmware is taken from. What they depend on is left out, but for further ones
/// with firmware: there are packages that are only a list of others.
async fn firmware(
    spec: &Spec,
    packages: &Packages<'_>,
    old: &Lock,
    lock_use: &LockUse,
    lock: &mut Lock,
) -> Result<Vec<PackagePin>, BuildError> {
    let Some(selection) = spec.kernel.firmware.as_ref().filter(|it| !it.packages().is_empty())
    else {
        return Ok(Vec::new());
    };
    let names = selection.packages();
    let keep = |name: &str| name.starts_with("firmware-") || names.iter().any(|it| it == name);
    let wanted =
        Wanted { component: "firmware", place: selection.place(), names, keep: Some(&keep) };
    packages.closure(&wanted, old, lock_use, lock).await.map_err(|error| match error {
        BuildError::Resolve { place, source: ResolveError::Unknown { name, .. }, .. }
            if !spec.debian.components.iter().any(|it| it == NON_FREE_FIRMWARE) =>
        {
            BuildError::NoFirmware { place, name }
        }
        other => other,
    })
}

/// Finds every image of a specification, several at a time: by the lock where it knows.
async fn images(
    spec: &Spec,
    sources: &Images<'_>,
    arch: Arch,
    old: &Lock,
    lock_use: &LockUse,
    lock: &mut Lock,
) -> Result<BTreeMap<String, Image>, BuildError> {
    const AT_A_TIME: usize = 4;
    let wanted: BTreeMap<_, _> = spec
        .image_refs()
        .into_iter()
        .map(|(reference, place)| (reference.to_string(), (reference, place)))
        .collect();
    let found: Vec<_> = stream::iter(wanted)
        .map(|(name, (reference, place))| async move {
            let anew = matches!(lock_use, LockUse::Update(update) if update.takes_image(&name));
            let pin = old.image(&name).filter(|_| !anew);
            let pin = pin.and_then(|pin| pin.manifests.get(&arch).copied().or(pin.index));
            match sources.resolve(reference, arch, pin).await {
                Ok(image) => Ok((name, image, pin)),
                Err(source) => Err(BuildError::Image {
                    place: place.clone(),
                    reference: name,
                    source: Box::new(source),
                }),
            }
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    let mut images = BTreeMap::new();
    for (name, image, pin) in found {
        // Where the manifest was asked for by its digest, its index is the one that is known already.
        let known = old.image(&name).and_then(|known| known.index);
        let index = image.index.or_else(|| known.filter(|_| pin.is_some()));
        lock.pin_image(&name, arch, index, image.digest);
        images.insert(name, image);
    }
    Ok(images)
}
