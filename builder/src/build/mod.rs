//! Builds one version of an image: resolve, fetch, flatten each component, one segment per component, manifest.
//!
//! ```text
//! spec ─► resolve (lock) ─► component: key ─┬─ known: its segment ──────────────────────┬─► manifest ─► sign, publish
//!                                           └─ lock key ─► fetch ─► flatten ─► segment ─┘
//! ```
//!
//! Each segment is remembered under the digest of what it is made from, so that a change of one service packs one
//! segment again. Components are packed in parallel; builds that run at the same time wait for each other's.

mod assemble;
mod blocking;
mod component;
mod contents;
mod elf;
mod error;
mod export;
mod fetch;
mod files;
mod init;
mod keep;
mod kernel;
mod key;
mod losses;
mod modules;
mod pack;
mod packages;
mod parts;
mod reach;
mod report;
mod request;
mod resolve;
mod settings;
mod signing;
mod state;
mod tar;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use kiln_types::ImageRef;

use self::assemble::{Assembled, assemble, has_kiln_init};
pub use self::error::BuildError;
pub use self::export::stub_pin;
pub use self::fetch::{FetchReport, fetch};
pub use self::keep::KeepError;
use self::pack::Packer;
use self::packages::Packages;
use self::report::Steps;
pub use self::report::{BuildReport, ComponentReport, StepReport};
pub use self::request::{BuildRequest, LockUse, Update, UpdateKind};
use self::resolve::Resolved;
pub use self::settings::BuildSettings;
use crate::fetch::Fetcher;
use crate::kernel::{Load, min_ram};
use crate::lock::{Change, Lock, LockError};
use crate::manifest::{Manifest, SCHEMA, SegmentCompression, SourceEntry};
use crate::oci::{Images, Reference};
use crate::output::Format;
use crate::segment::Packing;
use crate::spec::{self, InitSpec, Spec};
use crate::store::VersionEntry;
use crate::trust::KeyDir;

/// Builds an image and puts it into the store.
///
/// # Errors
///
/// Fails when the specification is wrong, a package cannot be had, or something cannot be written. The index of the
/// store then still names what it named before.
pub async fn build(request: BuildRequest<'_>) -> Result<BuildReport, BuildError> {
    let mut steps = Steps::begin();
    let spec = spec::load(&request.specs)?;
    let image = image_name(&request)?;
    let epoch = epoch(&request)?;
    let (arch, store) = (request.arch, request.store);
    // Before anything is fetched: without a key nothing can be published.
    let key = request.keys.as_ref().map(KeyDir::site_key).transpose()?;
    let fetcher = Fetcher::new(request.progress);
    let packages = packages(&request, &spec, &fetcher);
    let sources = sources(&request, &spec).await?;
    let mut warnings = spec.warnings();
    let old = old_lock(&request)?;
    let mut resolved = Resolved::new(&spec, &packages, &sources, &old, &request.lock_use).await?;
    resolved
        .add_stub(&spec, &packages, export::needs_stub(&request), &old, &request.lock_use)
        .await?;
    let locked = check_lock(&request, &old, &resolved.lock)?;
    warnings.extend(packages.warnings());
    steps.end("resolve");

    let packing = packing(&request, &spec, epoch);
    let packer = Packer::new(store, &packages, &sources, packing, request.progress);
    let Assembled { kernel, memory, segments, components } =
        assemble(&packer, &spec, &image, &resolved).await?;
    let (kernel, config) = (kernel.kernel.clone(), kernel.config());
    warnings.extend(packer.warnings());
    steps.end("pack");

    let cmdline = spec.kernel.cmdline.as_ref().and_then(|line| line.get(arch)).unwrap_or_default();
    if !kernel.efi_stub {
        warnings.push(format!(
            "kernel {} has no EFI stub: machines with UEFI cannot start it",
            kernel.release
        ));
    }
    let sbom = packer.contents(&spec, image.name(), &kernel, &resolved).await?;
    let manifest = Manifest {
        schema: SCHEMA,
        image: image.name().to_owned(),
        arch,
        min_ram: min_ram(&Load { arch, kernel: memory, segments: &segments }),
        kernel,
        segments,
        cmdline: cmdline.to_owned(),
        packages: resolved.package_entries(),
        sources: source_entries(&spec, &resolved),
        sbom: Some(sbom),
    };
    let canonical = manifest.to_canonical_json().map_err(BuildError::Manifest)?;
    let version = store.put(&canonical)?;
    let settings = BuildSettings { release: request.release, epoch: packer.packing.mtime };
    let created = epoch.map_or_else(now, u64::from);
    let mut entry = VersionEntry::new(version, created, manifest.download_size())
        .with(SPEC, store.put(spec.to_yaml()?.as_bytes())?)
        .with(LOCK, store.put(resolved.lock.only(arch).to_text()?.as_bytes())?)
        .with(SETTINGS, store.put(&settings.to_json().map_err(BuildError::Manifest)?)?);
    if let Some(config) = config {
        entry = entry.with(KERNEL_CONFIG, config);
    }
    if let Some(key) = &key {
        let recipe = signing::recipe(&request.specs, &manifest, &settings, created);
        entry = signing::sign(entry, store, key, &manifest, &recipe)?;
    }
    store.publish(&image, arch, entry)?;
    if let Some(path) = &request.lock
        && let Err(error) = save_lock(path, &resolved.lock)
    {
        warnings.push(format!("{error}; the next build may take other packages"));
    }
    steps.end("publish");
    let mut written = Vec::new();
    if let Some(dir) = &request.out {
        written = {
            let stub = resolved.stub.as_ref();
            export::export(&request, &manifest, &packages, stub, dir).await?
        };
        if request.formats.contains(&Format::Tar) {
            let path = dir.join(format!("{}{}", image.name(), Format::Tar.suffix(arch)));
            written.push(packer.tar(&spec, &resolved, components, path).await?);
        }
        steps.end("export");
    }
    let reports = packer.reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(BuildReport {
        image,
        arch,
        version,
        size: manifest.download_size(),
        unpacked: manifest.segments.iter().map(|segment| segment.unpacked).sum(),
        min_ram: manifest.min_ram,
        components: in_order(reports, &manifest),
        steps: steps.done,
        warnings,
        locked,
        files: written,
        manifest,
    })
}

/// Looks anew for what the lock file says, as far as the request asks for it, writes the file and returns what moved.
/// Nothing is built.
///
/// # Errors
///
/// Fails when the specification is wrong, when something cannot be found, and when the lock file cannot be written.
pub async fn update(request: BuildRequest<'_>) -> Result<Vec<Change>, BuildError> {
    let spec = spec::load(&request.specs)?;
    let fetcher = Fetcher::new(request.progress);
    let packages = packages(&request, &spec, &fetcher);
    let sources = sources(&request, &spec).await?;
    let old = old_lock(&request)?;
    let mut resolved = Resolved::new(&spec, &packages, &sources, &old, &request.lock_use).await?;
    resolved.add_stub(&spec, &packages, false, &old, &request.lock_use).await?;
    let changes = old.only(request.arch).changes_to(&resolved.lock.only(request.arch));
    if let Some(path) = &request.lock {
        let mut new = old.without(request.arch);
        // What moved is said by the new one; the other architectures keep what they have.
        let mut merged = resolved.lock;
        merged.extend(&new);
        std::mem::swap(&mut new, &mut merged);
        new.save(path)?;
    }
    Ok(changes)
}

/// The attachment of a version that holds the joined specification.
pub const SPEC: &str = "spec";
/// The attachment of a version that holds its lock.
pub const LOCK: &str = "lock";

/// The attachment of a version that holds its [`BuildSettings`].
pub const SETTINGS: &str = "settings";

/// The attachment of a version that holds the configuration of its kernel, where that is known.
pub const KERNEL_CONFIG: &str = "kernel-config";

/// How well segments are compressed with zstd.
mod segment_level {
    /// Fast to pack and to unpack.
    pub(super) const USUAL: i32 = 3;
    /// As small as it is worth.
    pub(super) const RELEASE: i32 = 19;
}

/// Returns how the segments of a build are written.
fn packing(request: &BuildRequest<'_>, spec: &Spec, epoch: Option<u32>) -> Packing {
    Packing {
        mtime: epoch.unwrap_or(0),
        compression: SegmentCompression::Zstd,
        level: if request.release { segment_level::RELEASE } else { segment_level::USUAL },
        // LinuxKit's own init would leave the marks in the root file system.
        marked: has_kiln_init(spec),
    }
}

fn packages<'a>(request: &BuildRequest<'_>, spec: &Spec, fetcher: &'a Fetcher<'a>) -> Packages<'a> {
    Packages::new(request, &spec.debian, fetcher)
}

async fn sources<'a>(request: &BuildRequest<'a>, spec: &Spec) -> Result<Images<'a>, BuildError> {
    let mut settings = request.images.clone();
    settings.offline |= request.offline;
    let cache = request.store.cache_dir();
    let mut images = Images::open(&settings, &cache, request.progress)
        .map_err(|source| BuildError::Sources(Box::new(source)))?;
    let mut opened = BTreeSet::new();
    for (reference, place) in spec.image_refs() {
        if opened.insert(reference.to_string()) {
            images.open_given(reference, request.arch).await.map_err(|source| {
                let (place, reference) = (place.clone(), reference.to_string());
                BuildError::Image { place, reference, source: Box::new(source) }
            })?;
        }
    }
    Ok(images)
}

/// Returns which image each component came from.
fn source_entries(spec: &Spec, resolved: &Resolved) -> Vec<SourceEntry> {
    let entry = |component: &str, reference: &Reference| {
        let image = resolved.image(reference)?;
        Some(SourceEntry {
            component: component.to_owned(),
            reference: reference.to_string(),
            digest: image.digest,
        })
    };
    let kernel = spec.kernel.image.as_deref().and_then(|image| entry("kernel", image));
    let init = spec.init.iter().filter_map(|init| match &**init {
        InitSpec::Kiln => None,
        InitSpec::Image(image) => entry("init", image),
    });
    let volumes = spec.volumes.iter().filter_map(|volume| {
        entry(&format!("volume-{}", volume.name.as_str()), volume.image.as_deref()?)
    });
    let containers = spec
        .containers()
        .filter_map(|container| entry(container.name.as_str(), container.image.as_deref()?));
    kernel.into_iter().chain(init).chain(volumes).chain(containers).collect()
}

fn old_lock(request: &BuildRequest<'_>) -> Result<Lock, BuildError> {
    let read = request.lock.as_deref().map(Lock::load).transpose()?;
    Ok(read.flatten().unwrap_or_default())
}

/// Returns what a build adds to the lock, or refuses that.
fn check_lock(
    request: &BuildRequest<'_>,
    old: &Lock,
    new: &Lock,
) -> Result<Vec<Change>, BuildError> {
    let mut merged = old.clone();
    merged.extend(new);
    let changes = old.changes_to(&merged);
    if request.lock_use == LockUse::Locked && merged != *old {
        let path = request.lock.clone().unwrap_or_default();
        return Err(LockError::WouldChange { path, changes }.into());
    }
    Ok(if request.lock.is_some() { changes } else { Vec::new() })
}

/// Writes what is new into the lock file, over what another build may have written meanwhile.
fn save_lock(path: &Path, new: &Lock) -> Result<(), LockError> {
    let mut merged = Lock::load(path)?.unwrap_or_default();
    merged.extend(new);
    merged.save(path)
}

/// Sorts reports as the manifest lists the parts.
fn in_order(mut reports: Vec<ComponentReport>, manifest: &Manifest) -> Vec<ComponentReport> {
    let names = manifest.segments.iter().map(|segment| segment.component.as_str());
    let order: Vec<_> = ["kernel"].into_iter().chain(names).collect();
    reports.retain(|report| order.contains(&report.name.as_str()));
    reports.sort_by_key(|report| order.iter().position(|name| *name == report.name));
    reports
}

fn image_name(request: &BuildRequest<'_>) -> Result<ImageRef, BuildError> {
    let stem = || Some(request.specs.first()?.file_stem()?.to_string_lossy().into_owned());
    let name = request.name.clone().or_else(stem).unwrap_or_default();
    Ok(name.parse()?)
}

/// Returns the time that everything in the image has, where one is asked for.
fn epoch(request: &BuildRequest<'_>) -> Result<Option<u32>, BuildError> {
    request.epoch.map_or_else(source_date_epoch, |epoch| Ok(Some(epoch)))
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kiln_types::Arch;

    use super::*;

    #[test]
    fn the_demo_image_can_be_read_for_every_architecture() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/images/demo.yml");
        let spec = spec::load(&[PathBuf::from(dir)]).unwrap();
        assert_eq!(spec.kernel_package(Arch::X86_64).unwrap(), "linux-image-cloud-amd64");
        assert_eq!(spec.kernel_package(Arch::Arm64).unwrap(), "linux-image-cloud-arm64");
    }
}
