use std::collections::BTreeMap;

use kiln_types::ImageRef;

use super::component::{self, Component, Components, What};
use super::kernel::KernelParts;
use super::pack::Packer;
use super::resolve::Resolved;
use super::{BuildError, blocking, files, init, key, reach};
use crate::kernel::{Load, memory_of, min_ram};
use crate::manifest::{SegmentCompression, SegmentEntry};
use crate::segment::Packing;
use crate::spec::{Container, InitSpec, Spec, network};
use crate::tree::Tree;

/// Everything, packed.
pub(super) struct Assembled {
    pub(super) kernel: KernelParts,
    /// What the kernel takes for itself, in bytes.
    pub(super) memory: u64,
    /// In the order in which the kernel reads them.
    pub(super) segments: Vec<SegmentEntry>,
    /// What they were made from, but for the kernel.
    pub(super) components: Vec<Component>,
}

/// Packs everything.
pub(super) async fn assemble(
    packer: &Packer<'_, '_>,
    spec: &Spec,
    image: &ImageRef,
    resolved: &Resolved,
) -> Result<Assembled, BuildError> {
    let arch = packer.packages.arch;
    let containers = component::settle(spec, resolved)?;
    let known = packer.known_kernel(spec, resolved);
    // While the kernel is still to come, it is taken for one that can unpack what most can.
    let usual = packer.packing.compression;
    let meant = known.map_or(usual, |kernel| kernel.compression);
    let (kernel, (mut all, mut packed)) = tokio::try_join!(
        packer.kernel(spec, resolved),
        parts(packer, meant, spec, resolved, &containers)
    )?;
    if kernel.compression != meant {
        packer.forget_segments();
        (all, packed) = parts(packer, kernel.compression, spec, resolved, &containers).await?;
    }
    let packing = Packing { compression: kernel.compression, ..packer.packing };
    let artifact = packer.store.artifact(&kernel.kernel.digest);
    let memory = memory_of(&artifact).unwrap_or(5 * kernel.kernel.size);
    let mut segments: Vec<_> = kernel.ucode.iter().cloned().collect();
    let part = |name: &str, location: String, what| {
        let (name, source) = (name.to_owned(), String::new());
        Component { name, source, location, what }
    };
    let images = component::init_images(spec, resolved);
    let name = if images.is_empty() { "init" } else { "kiln-init" };
    if !images.is_empty() {
        let mut key = key::key("init-images", packing);
        images.iter().for_each(|image| key.update(image.digest.as_bytes()));
        let what = What::Init { images, key: key.finish() };
        let component = part("init", "init[0]".to_owned(), what);
        segments.push(packer.one(component.clone(), packing).await?);
        all.push(component);
    }
    let kiln = spec.init.iter().position(|entry| **entry == InitSpec::Kiln);
    if let Some(number) = kiln {
        let component = part(name, format!("init[{number}]"), What::Tree(init::tree(arch)?));
        segments.push(packer.one(component.clone(), packing).await?);
        all.push(component);
    }
    // What the image says of itself goes here: before anything large, so that kiln-init has it when the rest is missing.
    let about = segments.len();
    if kernel.modules.unpacked > 0 {
        segments.push(kernel.modules.clone());
    }
    segments.extend(packed);
    if !spec.files.is_empty() {
        let (whole, ids) = (spec.clone(), component::ids(spec));
        let tree = blocking::blocking(move || files::tree(&whole, &whole.files, &ids)).await??;
        let mut component = part("files", "files".to_owned(), What::Tree(tree));
        all.push(component.clone());
        if let What::Tree(tree) = &mut component.what {
            // The kernel would take owner and mode of a directory from the last segment that has it.
            let brought = packer.directories();
            tree.leave_out_implied(|path| brought.contains(path.as_str()));
        }
        segments.push(packer.one(component, packing).await?);
    }
    if let Some(number) = kiln {
        let containers = containers.as_slice();
        let mut said = init::About {
            image: image.name(),
            arch,
            onboot: containers.get(..spec.onboot.len()).unwrap_or_default(),
            services: containers.get(containers.len() - spec.services.len()..).unwrap_or_default(),
            modules: &kernel.at_start,
            parts: BTreeMap::new(),
            min_ram: None,
            network: spec.network.as_deref().map(|links| network::plan(links)),
            state: spec
                .state
                .as_ref()
                .map(|state| state.settle(component::bundles(spec).into_iter().zip(containers))),
            watchdog: spec.watchdog.as_ref().and_then(|watchdog| watchdog.millis()),
            diskless: spec.state.is_none() && !containers.iter().any(reach::reaches_disks),
        };
        let part = |said: &init::About<'_>| -> Result<_, BuildError> {
            Ok(part("image", format!("init[{number}]"), What::Tree(said.tree()?)))
        };
        // Other forms than an initrd do not arrive in parts.
        all.push(part(&said)?);
        said.parts = packer.marks();
        said.parts.retain(|_, name| segments.iter().any(|segment| segment.component == *name));
        said.min_ram = Some(min_ram(&Load { arch, kernel: memory, segments: &segments }));
        segments.insert(about, packer.one(part(&said)?, packing).await?);
    }
    Ok(Assembled { kernel, memory, segments, components: all })
}

/// Packs volumes and the files of containers, and in one small segment what else containers are: a change of a command
/// packs nothing that is large.
async fn parts(
    packer: &Packer<'_, '_>,
    compression: SegmentCompression,
    spec: &Spec,
    resolved: &Resolved,
    containers: &[Container],
) -> Result<(Vec<Component>, Vec<SegmentEntry>), BuildError> {
    let packing = Packing { compression, ..packer.packing };
    let components = Components { spec, arch: packer.packages.arch, resolved, packing };
    let list = components.list(containers)?;
    let mut settings = Tree::new();
    for component in &list {
        if let What::Container(bundle) = &component.what {
            settings.merge(bundle.settings()?);
        }
    }
    let mut work: Vec<_> = list.iter().filter(|it| it.what.has_files()).cloned().collect();
    if !settings.is_empty() {
        let (source, location) = (String::new(), String::new());
        let (name, what) = ("containers".to_owned(), What::Tree(settings));
        work.insert(0, Component { name, source, location, what });
    }
    Ok((list, packer.pack(work, packing).await?))
}

pub(super) fn has_kiln_init(spec: &Spec) -> bool {
    spec.init.iter().any(|entry| **entry == InitSpec::Kiln)
}
