//! Finds what is well-formed but makes no sense.

mod containers;
mod network;
mod order;
mod owners;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::Arch;

pub(super) use self::settings::settings;
use super::place::{Place, Placed};
use super::{FileSpec, InitSpec, SourceFile, Spec, SpecError, VolumeFormat};
use crate::oci::Reference;

/// Where the kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSource<'a> {
    /// A Debian package.
    Package {
        /// Its name.
        name: &'a str,
        /// Where it is named.
        place: &'a Place,
    },
    /// An image with a kernel and a tar of its modules.
    Image(&'a Placed<Reference>),
}

impl Spec {
    /// Returns where the kernel comes from, or nothing when there is none.
    ///
    /// # Errors
    ///
    /// Fails when there is a kernel, but none for the architecture.
    pub fn kernel_source(&self, arch: Arch) -> Result<Option<KernelSource<'_>>, SpecError> {
        if let Some(image) = &self.kernel.image {
            return Ok(Some(KernelSource::Image(image)));
        }
        let Some(deb) = &self.kernel.deb else {
            return Ok(None);
        };
        let place = deb.place();
        match deb.get(arch) {
            Some(name) => Ok(Some(KernelSource::Package { name, place })),
            None => {
                let problem = format!("there is no kernel package for {arch} here");
                Err(SpecError::wrong(place, problem))
            }
        }
    }

    /// Returns where the kernel comes from, once everything is there that a machine needs to boot.
    ///
    /// # Errors
    ///
    /// Fails when there is no kernel for the architecture or nothing to run first.
    pub fn bootable(&self, arch: Arch) -> Result<KernelSource<'_>, SpecError> {
        if self.init.is_empty() {
            let problem = "`init` is missing; add `init: [kiln]`";
            return Err(SpecError::wrong(&self.place, problem));
        }
        self.kernel_source(arch)?.ok_or_else(|| {
            let problem = "there is no kernel; add `kernel: {deb: …}` or `kernel: {image: …}`";
            SpecError::wrong(&self.place, problem)
        })
    }

    /// Returns the kernel's package, once everything is there that a machine needs to boot.
    ///
    /// # Errors
    ///
    /// Fails when there is no kernel for the architecture or nothing to run first, or when the kernel is an image.
    pub fn kernel_package(&self, arch: Arch) -> Result<&str, SpecError> {
        match self.bootable(arch)? {
            KernelSource::Package { name, .. } => Ok(name),
            KernelSource::Image(image) => {
                let problem = "this kernel is an image, not a Debian package";
                Err(SpecError::wrong(image.place(), problem))
            }
        }
    }
}

/// Checks a whole specification.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    check_kernel(spec)?;
    check_init(spec)?;
    unique("service", spec.services.iter().map(|service| (service.name.as_str(), &service.name)))?;
    unique("volume", spec.volumes.iter().map(|volume| (volume.name.as_str(), &volume.name)))?;
    order::check(&spec.services)?;
    check_given(spec)?;
    containers::check(spec)?;
    for volume in &spec.volumes {
        let name = volume.name.as_str();
        let oci = volume.format.as_ref().filter(|format| ***format == VolumeFormat::Oci);
        if let Some(format) = oci.filter(|_| volume.image.is_none()) {
            let problem = format!("volume `{name}` has the format `oci` and no `image` to keep so");
            return Err(SpecError::wrong(format.place(), problem));
        }
        if oci.is_none() && !volume.platforms.is_empty() {
            let problem = format!("`platforms` of volume `{name}` needs `format: oci`");
            return Err(SpecError::wrong(volume.name.place(), problem));
        }
    }
    for file in &spec.files {
        check_file(file).map_err(|problem| SpecError::wrong(file.path.place(), problem))?;
    }
    owners::check(spec)?;
    network::check(spec)?;
    if let Some(problem) = spec.debian.problem() {
        return Err(SpecError::wrong(&spec.place, problem));
    }
    for source in &spec.debian.sources {
        if let Some(problem) = source.problem() {
            return Err(SpecError::wrong(source.place(), problem));
        }
    }
    if let Some(state) = &spec.state
        && let Some(problem) = state.problem(spec)
    {
        return Err(SpecError::wrong(state.place(), problem));
    }
    if let Some(watchdog) = &spec.watchdog
        && let Some(problem) = watchdog.problem(spec)
    {
        return Err(SpecError::wrong(watchdog.place(), problem));
    }
    Ok(())
}

fn unique<'a, T: 'a>(
    what: &str,
    names: impl Iterator<Item = (&'a str, &'a Placed<T>)>,
) -> Result<(), SpecError> {
    let mut met = BTreeMap::new();
    for (name, placed) in names {
        if let Some(first) = met.insert(name, placed.place()) {
            let problem = format!(
                "{what} `{name}` is there twice, first at {first}; give one of them another name"
            );
            return Err(SpecError::wrong(placed.place(), problem));
        }
    }
    Ok(())
}

/// Checks that folders and files with images are the same where they are written in the same way: that is what the lock
/// file knows them by.
fn check_given(spec: &Spec) -> Result<(), SpecError> {
    let mut met = BTreeMap::new();
    for (reference, place) in spec.image_refs() {
        let Some(given) = reference.given() else { continue };
        let (first, there) =
            *met.entry(reference.to_string()).or_insert_with(|| (given.path(), place));
        if first != given.path() {
            let (first, second) = (first.display(), given.path().display());
            let problem = format!(
                "`{reference}` is `{second}` here and `{first}` at {there}; write one of them in another way"
            );
            return Err(SpecError::wrong(place, problem));
        }
    }
    Ok(())
}

fn check_kernel(spec: &Spec) -> Result<(), SpecError> {
    let kernel = &spec.kernel;
    let Some(deb) = &kernel.deb else {
        return Ok(());
    };
    if kernel.image.is_some() {
        return Err(SpecError::wrong(deb.place(), "a kernel has `image` or `deb`, not both"));
    }
    let of_images = [("binary", &kernel.binary), ("tar", &kernel.tar), ("ucode", &kernel.ucode)];
    match of_images.iter().find(|(_, value)| value.as_ref().is_some_and(|v| !v.is_empty())) {
        Some((key, _)) => {
            let problem =
                format!("`{key}` names a file of a kernel's image; this kernel is a package");
            Err(SpecError::wrong(deb.place(), problem))
        }
        None => Ok(()),
    }
}

fn check_init(spec: &Spec) -> Result<(), SpecError> {
    match spec.init.iter().filter(|entry| ***entry == InitSpec::Kiln).nth(1) {
        Some(again) => Err(SpecError::wrong(again.place(), "`kiln` is in `init` twice")),
        None => Ok(()),
    }
}

fn check_file(file: &FileSpec) -> Result<(), String> {
    let given = [
        file.contents.is_some(),
        file.source.is_some(),
        file.metadata.is_some(),
        file.symlink.is_some(),
        file.directory,
    ];
    let path = file.path.as_str();
    match given.iter().filter(|given| **given).count() {
        1 if file.optional && file.source.is_none() => {
            Err(format!("file `/{path}` is optional, which only a `source` can be"))
        }
        1 if file.symlink.as_ref().is_some_and(|to| to.is_empty() || to.contains('\0')) => {
            Err(format!("the link `/{path}` leads nowhere; `symlink` needs a path"))
        }
        1 if file.source.as_ref().is_some_and(SourceFile::is_dir) => {
            Err(format!("the source of file `/{path}` is a directory; only files can be copied"))
        }
        1 => Ok(()),
        _ => Err(format!(
            "file `/{path}` needs exactly one of `contents`, `source`, `metadata`, `symlink` and \
             `directory: true`",
        )),
    }
}

/// Names of all containers, which users and groups can be called after.
fn container_names(spec: &Spec) -> BTreeSet<&str> {
    spec.containers().map(|container| container.name.as_str()).collect()
}
