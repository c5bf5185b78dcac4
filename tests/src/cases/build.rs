//! What the builder promises.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use kiln_types::Arch;

use crate::rig::{Case, IMAGE, Need, image, kiln, store, work_folder};

/// What the kernel and the initrd of the demo image may weigh for x86_64.
const LIMIT: u64 = 24_000_000;

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::KilnInit(Arch::X86_64), Need::Program];
    vec![
        Case::new("build::two_empty_stores_get_the_same_bytes", &needs, same_bytes),
        Case::new("build::the_demo_image_is_small", &needs, is_small),
    ]
}

fn build(store: &Path) -> anyhow::Result<()> {
    let store = store.display().to_string();
    let finished = kiln(&["build", IMAGE, "--arch", "x86_64", "--store", &store])?;
    ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
    Ok(())
}

fn same_bytes() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("stores-").tempdir_in(work_folder())?;
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    build(&one)?;
    build(&two)?;
    let (one, two) = (blobs(&one)?, blobs(&two)?);
    ensure!(!one.is_empty(), "the store is empty");
    ensure!(one.keys().eq(two.keys()), "the files differ: {one:?} and {two:?}");
    for (name, path) in &one {
        ensure!(fs::read(path)? == fs::read(&two[name])?, "{name} differs");
    }
    Ok(())
}

/// Returns the artifacts of a store by their names, which are their digests.
fn blobs(store: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    fs::read_dir(store.join("blobs/sha256"))?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        })
        .collect()
}

fn is_small() -> anyhow::Result<()> {
    let image = image(Arch::X86_64)?;
    let store = kiln_builder::store::Store::open(store())?;
    let index = store.index()?;
    let entry = index.images.get(image.name()).and_then(|arches| arches.get(&Arch::X86_64));
    let version = entry.and_then(|entry| entry.channels.get(image.channel()));
    let version = version.ok_or_else(|| anyhow::anyhow!("the index lacks {image}"))?;
    let manifest = store.manifest(version)?;
    let parts =
        || manifest.segments.iter().map(|segment| (segment.component.as_str(), segment.size));
    let total = manifest.kernel.size + parts().map(|(_, size)| size).sum::<u64>();
    ensure!(
        total <= LIMIT,
        "kernel ({}) and initrd have {total} bytes: {:?}",
        manifest.kernel.size,
        parts().collect::<Vec<_>>()
    );
    Ok(())
}
