use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::blocking::blocking;
use super::key::{add_packages, key};
use super::pack::{Packer, unpack};
use super::resolve::Resolved;
use super::{BuildError, ComponentReport, contents};
use crate::lock::PackagePin;
use crate::manifest::{KernelEntry, SegmentEntry};
use crate::modules::ModulesError;
use crate::oci::Image;
use crate::spec::{ModuleSelection, Placed, Spec};
use crate::{hash, kernel, modules, segment};

/// What is remembered of a kernel.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KernelParts {
    pub(super) kernel: KernelEntry,
    pub(super) modules: SegmentEntry,
    /// Microcode, which goes first.
    #[serde(default)]
    pub(super) ucode: Option<SegmentEntry>,
    pub(super) at_start: Vec<String>,
}

impl Packer<'_, '_> {
    /// Takes the kernel and its modules out of packages.
    pub(super) async fn kernel(
        &self,
        spec: &Spec,
        resolved: &Resolved,
    ) -> Result<KernelParts, BuildError> {
        if let Some(image) =
            spec.kernel.image.as_deref().and_then(|reference| resolved.image(reference))
        {
            return self.kernel_of_image(spec, image).await;
        }
        let packages = resolved.kernel.as_slice();
        let modules = spec.kernel.modules.as_ref();
        let selection = modules.map(|modules| (**modules).clone()).unwrap_or_default();
        self.kernel_of(packages, selection).await.map_err(|error| match error {
            BuildError::Modules(ModulesError::Unknown { name, release }) => BuildError::NoModule {
                place: modules.map_or(&spec.place, Placed::place).clone(),
                name,
                release,
            },
            other => other,
        })
    }

    async fn kernel_of(
        &self,
        packages: &[PackagePin],
        selection: ModuleSelection,
    ) -> Result<KernelParts, BuildError> {
        let started = Instant::now();
        let mut key = key("kernel", self.packing);
        add_packages(&mut key, packages);
        key.field(&format!("{selection:?}"));
        let key = key.finish();
        if let Some(known) = self.known_kernel(&key) {
            self.report(ComponentReport::kernel(&known.kernel, true, started));
            self.report(ComponentReport::segment(&known.modules, true, started));
            return Ok(known);
        }
        let _lock = self.lock(&key).await?;
        if let Some(known) = self.known_kernel(&key) {
            self.report(ComponentReport::kernel(&known.kernel, true, started));
            self.report(ComponentReport::segment(&known.modules, true, started));
            return Ok(known);
        }
        let paths = self.fetch(packages).await?;
        let task = self.progress.begin("packing kernel", None);
        let (store, packing) = (self.store.clone(), self.packing);
        let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
        let (name, pins) = (names.join(", "), packages.to_vec());
        let packed = blocking(move || -> Result<_, BuildError> {
            let tree = unpack(&paths)?;
            contents::remember(&store, &pins, &tree)?;
            let found = kernel::from_packages(&tree, &name)?;
            let modules = modules::collect(&tree, &found.release, &selection, &store.tmp_dir())?;
            let entry = KernelEntry {
                digest: store.put(&found.bytes)?,
                size: found.bytes.len() as u64,
                release: found.release,
                efi_stub: found.efi_stub,
            };
            let mut segment_key = hash::Hasher::default();
            segment_key.field("kernel-modules");
            segment_key.update(key.as_bytes());
            let segment_key = segment_key.finish();
            let mut segment =
                segment::write(&store, "kernel-modules", &segment_key, &modules.tree, packing)?;
            if modules.tree.is_empty() {
                segment.unpacked = 0;
            }
            let parts = KernelParts {
                kernel: entry,
                modules: segment,
                ucode: None,
                at_start: modules.at_start,
            };
            store.remember(&key, &parts)?;
            Ok(parts)
        })
        .await??;
        task.finish();
        self.report(ComponentReport::kernel(&packed.kernel, false, started));
        self.report(ComponentReport::segment(&packed.modules, false, started));
        Ok(packed)
    }

    /// Takes the kernel and all of its modules out of an image made for LinuxKit.
    async fn kernel_of_image(&self, spec: &Spec, image: &Image) -> Result<KernelParts, BuildError> {
        let started = Instant::now();
        let mut key = key("kernel-image", self.packing);
        key.update(Digest::as_bytes(&image.digest));
        let wanted = &spec.kernel;
        key.field(&format!("{:?} {:?} {:?}", wanted.binary, wanted.tar, wanted.ucode));
        let key = key.finish();
        let _lock = self.lock(&key).await?;
        let known = self.known_kernel(&key);
        let reused = known.is_some();
        let parts = match known {
            Some(known) => known,
            None => {
                let layers = self.layers(image).await?;
                let task = self.progress.begin("packing kernel", None);
                let (store, packing, wanted) = (self.store.clone(), self.packing, wanted.clone());
                let parts = blocking(move || -> Result<_, BuildError> {
                    let found = kernel::from_image(&layers.flatten(&store)?, &wanted)?;
                    let ucode = match found.ucode {
                        None => None,
                        Some(content) => Some(segment::write_raw(&store, "ucode", &content)?),
                    };
                    let mut segment_key = hash::Hasher::default();
                    segment_key.field("kernel-modules");
                    segment_key.update(key.as_bytes());
                    let name = "kernel-modules";
                    let segment_key = segment_key.finish();
                    let mut modules =
                        segment::write(&store, name, &segment_key, &found.modules, packing)?;
                    if found.modules.is_empty() {
                        modules.unpacked = 0;
                    }
                    let kernel = KernelEntry {
                        digest: store.put(&found.bytes)?,
                        size: found.bytes.len() as u64,
                        release: found.release,
                        efi_stub: found.efi_stub,
                    };
                    let parts = KernelParts { kernel, modules, ucode, at_start: Vec::new() };
                    store.remember(&key, &parts)?;
                    Ok(parts)
                })
                .await??;
                task.finish();
                parts
            }
        };
        self.report(ComponentReport::kernel(&parts.kernel, reused, started));
        self.report(ComponentReport::segment(&parts.modules, reused, started));
        Ok(parts)
    }

    fn known_kernel(&self, key: &Digest) -> Option<KernelParts> {
        let known: KernelParts = self.store.remembered(key)?;
        let there = self.store.holds(&known.kernel.digest, known.kernel.size)
            && self.store.holds(&known.modules.digest, known.modules.size);
        there.then_some(known)
    }
}
