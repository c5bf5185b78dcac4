use std::path::PathBuf;

use kiln_types::{Arch, Digest};

use super::BuildError;
use super::blocking::blocking;
use super::component::init_images;
use super::pack::Packer;
use super::parts::unpack;
use super::resolve::Resolved;
use super::state;
use crate::deb;
use crate::hash::{Hasher, sha256};
use crate::init_binary;
use crate::lock::PackagePin;
use crate::manifest::{KernelEntry, PackageEntry};
use crate::oci::Image;
use crate::sbom::{self, About, ComponentSbom, DebianPackage, Origin};
use crate::spec::{InitSpec, Spec};
use crate::store::{Store, StoreError};
use crate::tree::Tree;

/// Changed whenever the same packages would be described in another way.
const RECIPE: &str = "2";

impl Packer<'_, '_> {
    /// Stores the list of everything that is in an image and returns its digest.
    pub(super) async fn contents(
        &self,
        spec: &Spec,
        image: &str,
        kernel: &KernelEntry,
        resolved: &Resolved,
    ) -> Result<Digest, BuildError> {
        let arch: Arch = self.packages.arch;
        let mut all = Vec::new();
        if spec.init.iter().any(|entry| **entry == InitSpec::Kiln) {
            all.push(sbom::of_init("init", sha256(&init_binary::load(arch)?)));
        }
        let mut modules = match spec.kernel.image.as_deref().and_then(|it| resolved.image(it)) {
            Some(image) => self.image_of("kernel-modules", image).await?,
            None => self.packages_of("kernel-modules", &resolved.kernel).await?,
        };
        sbom::add_kernel(&mut modules, &kernel.release, kernel.digest);
        all.push(modules);
        if !resolved.firmware.is_empty() {
            all.push(self.packages_of("kernel-firmware", &resolved.firmware).await?);
        }
        for image in init_images(spec, resolved) {
            all.push(self.image_of("init", &image).await?);
        }
        if spec.state.is_some() {
            all.push(self.packages_of(state::COMPONENT, &resolved.state).await?);
        }
        for volume in &spec.volumes {
            if let Some(image) = volume.image.as_deref().and_then(|it| resolved.image(it)) {
                all.push(self.image_of(&format!("volume-{}", volume.name.as_str()), image).await?);
            }
        }
        for container in spec.containers() {
            let name = container.name.as_str();
            if let Some(image) = container.image.as_deref().and_then(|it| resolved.image(it)) {
                all.push(self.image_of(name, image).await?);
            } else if let Some(pins) = resolved.containers.get(&container.deb) {
                all.push(self.packages_of(name, pins).await?);
            }
        }
        let about = About { image, arch, created: u64::from(self.packing.mtime) };
        Ok(self.store.put(&sbom::spdx(&about, &all).map_err(BuildError::Manifest)?)?)
    }

    /// Describes a component that is made of an image.
    async fn image_of(&self, component: &str, image: &Image) -> Result<ComponentSbom, BuildError> {
        let mut found: ComponentSbom = match self.store.remembered(&image_key(image)) {
            Some(known) => known,
            None => {
                // It was packed under another name, or is not a container.
                let layers = self.layers(image).await?;
                let (store, image) = (self.store.clone(), image.clone());
                blocking(move || -> Result<_, BuildError> {
                    let found = describe_image(&image, &layers.flatten(&store)?);
                    store.remember(&image_key(&image), &found)?;
                    Ok(found)
                })
                .await??
            }
        };
        component.clone_into(&mut found.component);
        Ok(found)
    }

    /// Describes a component that is made of packages, as it was found when they were unpacked.
    async fn packages_of(
        &self,
        component: &str,
        pins: &[PackagePin],
    ) -> Result<ComponentSbom, BuildError> {
        let mut found: ComponentSbom = match self.store.remembered(&key(pins)) {
            Some(known) => known,
            None => {
                // They were packed before anyone looked into them.
                let paths = self.fetch(pins).await?;
                let pins = pins.to_vec();
                blocking(move || describe(&pins, &paths, &unpack(&paths)?)).await??
            }
        };
        component.clone_into(&mut found.component);
        Ok(found)
    }
}

/// Remembers what is in packages that were just unpacked.
pub(super) fn remember(
    store: &Store,
    pins: &[PackagePin],
    paths: &[PathBuf],
    root: &Tree,
) -> Result<(), BuildError> {
    let key = key(pins);
    if store.remembered::<ComponentSbom>(&key).is_none() {
        store.remember(&key, &describe(pins, paths, root)?)?;
    }
    Ok(())
}

/// Remembers what is in an image that was just unpacked.
pub(super) fn remember_image(store: &Store, image: &Image, root: &Tree) -> Result<(), StoreError> {
    let key = image_key(image);
    match store.remembered::<ComponentSbom>(&key) {
        Some(_) => Ok(()),
        None => store.remember(&key, &describe_image(image, root)),
    }
}

fn describe_image(image: &Image, root: &Tree) -> ComponentSbom {
    let reference = image.reference.to_string();
    let origin = Origin::Image { reference: &reference, digest: image.digest, attestations: &[] };
    sbom::of_component("", &origin, root)
}

fn image_key(image: &Image) -> Digest {
    let mut hasher = Hasher::default();
    hasher.field("contents of an image");
    hasher.field(RECIPE);
    hasher.field(env!("CARGO_PKG_VERSION"));
    hasher.field(&image.reference.to_string());
    hasher.update(image.digest.as_bytes());
    hasher.finish()
}

/// Describes packages by their files, which are in the same order.
fn describe(
    pins: &[PackagePin],
    paths: &[PathBuf],
    root: &Tree,
) -> Result<ComponentSbom, BuildError> {
    let entries: Vec<_> = pins.iter().map(entry).collect();
    let controls = paths.iter().map(|path| deb::control(path)).collect::<Result<Vec<_>, _>>()?;
    let depends = sbom::dependencies(pins.iter().map(|pin| pin.name.as_str()).zip(&controls));
    let packages: Vec<_> = entries
        .iter()
        .map(|entry| DebianPackage {
            entry,
            depends: depends.get(entry.name.as_str()).cloned().unwrap_or_default(),
        })
        .collect();
    Ok(sbom::of_component("", &Origin::Debian(&packages), root))
}

pub(super) fn entry(pin: &PackagePin) -> PackageEntry {
    PackageEntry {
        name: pin.name.clone(),
        version: pin.version.clone(),
        arch: pin.arch.clone(),
        sha256: pin.sha256,
    }
}

fn key(pins: &[PackagePin]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.field("contents of packages");
    hasher.field(RECIPE);
    hasher.field(env!("CARGO_PKG_VERSION"));
    for pin in pins {
        hasher.update(pin.sha256.as_bytes());
    }
    hasher.finish()
}
