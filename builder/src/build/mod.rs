//! Builds one version of an image: resolve, fetch, flatten each component, one segment per component, manifest.
//!
//! Each segment is remembered under the digest of what it is made from, so that a change of one service packs one
//! segment again.

mod components;
mod containers;
mod error;
mod export;
mod inputs;
mod not_yet;
mod signing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use kiln_types::{Arch, Digest, ImageRef};

pub use self::error::BuildError;
use self::inputs::Inputs;
use crate::deb::{Archive, ArchiveConfig};
use crate::fetch::Fetcher;
use crate::kernel::{self, Load};
use crate::manifest::{Manifest, PackageEntry, SCHEMA};
use crate::progress::{Progress, Silent};
use crate::spec;
use crate::store::{Store, VersionEntry};
use crate::trust::KeyDir;

/// What to build.
#[derive(Debug)]
pub struct BuildRequest<'a> {
    /// Specification files; later ones add to earlier ones.
    pub specs: Vec<PathBuf>,
    /// Name of the image, with a channel if it is not `latest`; otherwise that of the first file.
    pub name: Option<String>,
    /// What it runs on.
    pub arch: Arch,
    /// Where it goes.
    pub store: &'a Store,
    /// A directory to export kernel, initrd and kernel arguments to.
    pub out: Option<PathBuf>,
    /// Address of the Debian mirror; otherwise that of the host's apt.
    pub mirror: Option<String>,
    /// Keys to sign the version with; none signs nothing.
    pub keys: Option<KeyDir>,
    /// Where to show how far it is.
    pub progress: &'a dyn Progress,
}

impl<'a> BuildRequest<'a> {
    /// Asks for what these files describe, named by the first of them, with nothing exported and nothing shown.
    pub const fn new(store: &'a Store, specs: Vec<PathBuf>, arch: Arch) -> Self {
        Self {
            specs,
            name: None,
            arch,
            store,
            out: None,
            mirror: None,
            keys: None,
            progress: &Silent,
        }
    }
}

/// What was built.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// Name and channel.
    pub image: ImageRef,
    /// Digest of the manifest.
    pub version: Digest,
    /// What it consists of.
    pub manifest: Manifest,
    /// Components that had been packed before, from the same inputs.
    pub reused: Vec<String>,
}

/// Builds an image and puts it into the store.
///
/// # Errors
///
/// Fails when the specification is wrong, a package cannot be had, or something cannot be written. The index of the
/// store then still names what it named before.
pub async fn build(request: BuildRequest<'_>) -> Result<BuildReport, BuildError> {
    let spec = spec::load(&request.specs)?;
    not_yet::check(&spec)?;
    let image = image_name(&request)?;
    let epoch = source_date_epoch()?;
    let (arch, store) = (request.arch, request.store);
    let kernel_package = spec.kernel_package(arch)?;
    let cmdline = spec.kernel.cmdline.as_ref().and_then(|line| line.get(arch)).unwrap_or_default();

    // Before anything is fetched: without a key nothing can be published.
    let key = request.keys.as_ref().map(KeyDir::site_key).transpose()?;

    let fetcher = Fetcher::new(request.progress);
    let config = ArchiveConfig {
        mirror: request.mirror.clone(),
        suite: spec.debian.suite.clone(),
        components: spec.debian.components.clone(),
        keyring: None,
        cache: store.cache_dir(),
    };
    let archive = Archive::open(config, &fetcher).await?;
    let index = archive.packages(arch).await?;
    let inputs = Inputs::fetch(&spec, kernel_package, &index, &archive).await?;

    let built = components::Components {
        store: store.clone(),
        progress: request.progress,
        mtime: epoch.unwrap_or(0),
        reused: Vec::new(),
        roots: BTreeMap::new(),
    };
    let (kernel, segments, reused) = built.pack(&spec, &image, arch, &inputs).await?;
    let manifest = Manifest {
        schema: SCHEMA,
        image: image.name().to_owned(),
        arch,
        min_ram: kernel::min_ram(&Load {
            arch,
            kernel: kernel::memory_of(&store.artifact(&kernel.digest)).unwrap_or(5 * kernel.size),
            segments: &segments,
        }),
        kernel,
        segments,
        cmdline: cmdline.to_owned(),
        packages: packages(&inputs),
        sources: Vec::new(),
        sbom: None,
    };
    let version = store.put(&manifest.to_canonical_json().map_err(BuildError::Manifest)?)?;
    let created = epoch.map_or_else(now, u64::from);
    let mut entry = VersionEntry::new(version, created, manifest.download_size());
    if let Some(key) = &key {
        let recipe = signing::recipe(&request.specs, &manifest, created);
        entry = signing::sign(entry, store, key, &manifest, &recipe)?;
    }
    store.publish(&image, arch, entry)?;
    if let Some(dir) = &request.out {
        export::export(store, &manifest, dir)?;
    }
    Ok(BuildReport { image, version, manifest, reused })
}

fn image_name(request: &BuildRequest<'_>) -> Result<ImageRef, BuildError> {
    let stem = || Some(request.specs.first()?.file_stem()?.to_string_lossy().into_owned());
    let name = request.name.clone().or_else(stem).unwrap_or_default();
    Ok(name.parse()?)
}

/// Returns the time that everything in the image has, where the environment sets one
/// (reproducible-builds.org/specs/source-date-epoch).
fn source_date_epoch() -> Result<Option<u32>, BuildError> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    text.parse().map(Some).map_err(|_| BuildError::SourceDateEpoch(text.into_owned()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn packages(inputs: &Inputs) -> Vec<PackageEntry> {
    let all = inputs.kernel.iter().chain(inputs.containers.values().flatten());
    let by_entry: BTreeMap<_, _> = all.map(|package| (package.entry.clone(), ())).collect();
    by_entry.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_image_can_be_read_for_every_architecture() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/images/demo.yml");
        let spec = spec::load(&[PathBuf::from(dir)]).unwrap();
        assert_eq!(spec.kernel_package(Arch::X86_64).unwrap(), "linux-image-cloud-amd64");
        assert_eq!(spec.kernel_package(Arch::Arm64).unwrap(), "linux-image-cloud-arm64");
    }
}
