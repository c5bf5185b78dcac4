use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::blocking::blocking;
use super::key::{add_packages, key};
use super::pack::Packer;
use super::parts::unpack;
use super::resolve::Resolved;
use super::{BuildError, ComponentReport, contents};
use crate::lock::PackagePin;
use crate::manifest::{KernelEntry, SegmentCompression, SegmentEntry};
use crate::modules::{self, ModulesError, Needs};
use crate::oci::Image;
use crate::segment::Packing;
use crate::spec::{KernelSpec, Layout, Placed, Spec};
use crate::store::Store;
use crate::tree::Tree;
use crate::{hash, kernel, segment};

/// What is remembered of a kernel.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KernelParts {
    pub(super) kernel: KernelEntry,
    pub(super) modules: SegmentEntry,
    /// Microcode, which goes first.
    pub(super) ucode: Option<SegmentEntry>,
    /// Digest and length of the text of its configuration.
    config: Option<(Digest, u64)>,
    pub(super) at_start: Vec<String>,
    /// How the initrd is compressed, so that this kernel can unpack it.
    pub(super) compression: SegmentCompression,
    pub(super) warnings: Vec<String>,
}

/// What a kernel is made from.
struct Source<'a> {
    spec: &'a KernelSpec,
    origin: Origin<'a>,
    /// Packages with firmware.
    firmware: &'a [PackagePin],
    needs: Needs,
}

enum Origin<'a> {
    Packages(&'a [PackagePin]),
    Image(&'a Image),
}

fn is_packed(spec: &Spec) -> bool {
    spec.containers().any(|it| spec.layout_of(it) == Layout::Packed)
}

/// Returns which modules an image cannot do without.
pub(super) fn needs(spec: &Spec) -> Needs {
    Needs::new(is_packed(spec), spec.state.is_some()).with(spec.network_modules())
}

impl KernelParts {
    /// Returns the digest of the text of its configuration.
    pub(super) fn config(&self) -> Option<Digest> {
        self.config.map(|(digest, _)| digest)
    }

    fn is_there(&self, store: &Store) -> bool {
        let entries = [&self.modules].into_iter().chain(&self.ucode);
        let entries = entries.map(|entry| (entry.digest, entry.size));
        let all = entries.chain([(self.kernel.digest, self.kernel.size)]).chain(self.config);
        all.into_iter().all(|(digest, size)| store.holds(&digest, size))
    }
}

impl<'a> Source<'a> {
    fn new(spec: &'a Spec, resolved: &'a Resolved) -> Self {
        let image = spec.kernel.image.as_deref().and_then(|reference| resolved.image(reference));
        Self {
            spec: &spec.kernel,
            origin: image.map_or(Origin::Packages(&resolved.kernel), Origin::Image),
            firmware: &resolved.firmware,
            needs: needs(spec),
        }
    }

    fn key(&self, packing: Packing) -> Digest {
        let mut key = key("kernel", packing);
        let spec = self.spec;
        match self.origin {
            Origin::Packages(packages) => add_packages(&mut key, packages),
            Origin::Image(image) => {
                key.update(Digest::as_bytes(&image.digest));
                key.field(&format!("{:?} {:?} {:?}", spec.binary, spec.tar, spec.ucode));
            }
        }
        key.field(&format!("{:?} {:?}", spec.modules.as_deref(), self.needs));
        key.field(&format!("{:?}", spec.firmware.as_deref()));
        add_packages(&mut key, self.firmware);
        key.finish()
    }
}

impl Packer<'_, '_> {
    /// Returns the kernel if it was packed before.
    pub(super) fn known_kernel(&self, spec: &Spec, resolved: &Resolved) -> Option<KernelParts> {
        let key = Source::new(spec, resolved).key(self.packing);
        let known: KernelParts = self.store.remembered(&key)?;
        known.is_there(&self.store).then_some(known)
    }

    /// Takes the kernel and its modules out of packages or an image, unless that was done before or is being done
    /// elsewhere.
    pub(super) async fn kernel(
        &self,
        spec: &Spec,
        resolved: &Resolved,
    ) -> Result<KernelParts, BuildError> {
        let started = Instant::now();
        let (parts, reused) = match self.known_kernel(spec, resolved) {
            Some(known) => (known, true),
            None => {
                let key = Source::new(spec, resolved).key(self.packing);
                let _lock = self.lock(&key).await?;
                match self.known_kernel(spec, resolved) {
                    Some(known) => (known, true),
                    None => (self.new_kernel(spec, resolved, key).await?, false),
                }
            }
        };
        self.report(ComponentReport::kernel(&parts.kernel, reused, started));
        let mark = modules_key(&Source::new(spec, resolved).key(self.packing));
        self.note_mark(&mark, &parts.modules.component);
        for segment in [&parts.modules].into_iter().chain(&parts.ucode) {
            self.report(ComponentReport::segment(segment, reused, started));
        }
        self.warn(parts.warnings.iter().cloned());
        Ok(parts)
    }

    async fn new_kernel(
        &self,
        spec: &Spec,
        resolved: &Resolved,
        key: Digest,
    ) -> Result<KernelParts, BuildError> {
        let Source { spec: wanted, origin, firmware, needs } = Source::new(spec, resolved);
        let packed = is_packed(spec);
        let (store, packing, wanted) = (self.store.clone(), self.packing, wanted.clone());
        let parts = self.module_parts(&wanted, firmware, needs).await?;
        let result = match origin {
            Origin::Packages(packages) => {
                let paths = self.fetch(packages).await?;
                let task = self.progress.begin("packing kernel", None);
                let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
                let (name, pins) = (names.join(", "), packages.to_vec());
                let processor = self.processor().await?;
                let result = blocking(move || -> Result<_, BuildError> {
                    let _processor = processor;
                    let tree = unpack(&paths)?;
                    contents::remember(&store, &pins, &paths, &tree)?;
                    let found = kernel::from_packages(&tree, &name)?;
                    let (modules, warning) = parts.of_packages(&store, &tree, &found.release)?;
                    store_kernel(&store, &key, &found, &modules, packed, packing, warning)
                })
                .await?;
                task.finish();
                result
            }
            Origin::Image(image) => {
                let layers = self.layers(image).await?;
                let task = self.progress.begin("packing kernel", None);
                let processor = self.processor().await?;
                let result = blocking(move || -> Result<_, BuildError> {
                    let _processor = processor;
                    let mut found = kernel::from_image(&layers.flatten(&store)?, &wanted)?;
                    let tree = std::mem::replace(&mut found.modules, Tree::new());
                    let (modules, warning) = parts.of_image(&store, tree, &found.release)?;
                    store_kernel(&store, &key, &found, &modules, packed, packing, warning)
                })
                .await?;
                task.finish();
                result
            }
        };
        result.map_err(|error| match error {
            BuildError::Modules(ModulesError::Unknown { name, release }) => BuildError::NoModule {
                place: spec.kernel.modules.as_ref().map_or(&spec.place, Placed::place).clone(),
                name,
                release,
            },
            other => other,
        })
    }
}

/// Returns the key of the modules of the kernel with this key.
fn modules_key(kernel: &Digest) -> Digest {
    let mut key = hash::Hasher::default();
    key.field("kernel-modules");
    key.update(kernel.as_bytes());
    key.finish()
}

/// Puts a kernel and what comes with it into the store, and remembers it.
fn store_kernel(
    store: &Store,
    key: &Digest,
    found: &kernel::KernelParts,
    modules: &modules::Modules,
    packed: bool,
    mut packing: Packing,
    warning: Option<String>,
) -> Result<KernelParts, BuildError> {
    packing.compression = found.initrd_compression();
    let kernel = KernelEntry {
        digest: store.put(&found.bytes)?,
        size: found.bytes.len() as u64,
        release: found.release.clone(),
        efi_stub: found.efi_stub,
    };
    let segment_key = modules_key(key);
    let mut segment =
        segment::write(store, "kernel-modules", &segment_key, &modules.tree, packing)?;
    if modules.tree.is_empty() {
        segment.unpacked = 0;
    }
    let ucode = found.ucode.as_ref();
    let ucode = ucode.map(|content| segment::write_raw(store, "ucode", content)).transpose()?;
    let config = match &found.config {
        Some(config) => {
            let text = config.to_text();
            Some((store.put(text.as_bytes())?, text.len() as u64))
        }
        None => None,
    };
    let parts = KernelParts {
        kernel,
        modules: segment,
        ucode,
        config,
        at_start: modules.at_start.clone(),
        compression: packing.compression,
        warnings: found.shortcomings(packed).into_iter().chain(warning).collect(),
    };
    store.remember(key, &parts)?;
    Ok(parts)
}
