//! What the builder promises.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use kiln_types::Arch;

use crate::rig::{self, Case, IMAGE, Need, image, kiln, store, work_folder};

/// What the kernel and the initrd of the demo image may weigh for x86_64.
const LIMIT: u64 = 24_000_000;

pub(super) fn cases() -> Vec<Case> {
    let small = [Need::KilnInit(Arch::X86_64)];
    [Arch::X86_64, Arch::Arm64]
        .into_iter()
        .map(|arch| {
            let name = format!("build::{arch}_is_the_same_from_two_empty_stores");
            Case::new(name, &[Need::KilnInit(arch), Need::Program], move || same_bytes(arch))
        })
        .chain([Case::new("build::the_demo_image_is_small", &small, is_small)])
        .collect()
}

fn same_bytes(arch: Arch) -> anyhow::Result<()> {
    // Fetches the packages into the shared store.
    image(arch)?;
    let folder = tempfile::Builder::new().prefix("stores-").tempdir_in(work_folder())?;
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let (one, two) = (build(arch, &one)?, build(arch, &two)?);
    ensure!(one.len() > 6, "that are too few files: {one:?}");
    ensure!(one.keys().eq(two.keys()), "the files differ: {one:?} and {two:?}");
    for (name, path) in &one {
        ensure!(fs::read(path)? == fs::read(&two[name])?, "{name} differs");
    }
    Ok(())
}

/// Builds in an empty store and returns all files that come of it: the artifacts by the names they have in the store,
/// which are their digests, and what `--out` writes. Only packages are taken from elsewhere.
fn build(arch: Arch, folder: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let (store, out) = (folder.join("store"), folder.join("out"));
    link(&rig::store().join("cache/deb"), &store.join("cache/deb"))?;
    let lock = folder.join("demo.lock");
    let [store_text, out_text, lock] = [&store, &out, &lock].map(|path| path.display().to_string());
    let arch = arch.to_string();
    let finished = kiln(&[
        "build",
        IMAGE,
        "--arch",
        &arch,
        "--store",
        &store_text,
        "--out",
        &out_text,
        "--lock",
        &lock,
        // Each store would sign with a key of its own.
        "--no-sign",
    ])?;
    ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
    let mut files = BTreeMap::new();
    for folder in [store.join("blobs/sha256"), out] {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
        }
    }
    Ok(files)
}

/// Makes a folder of links to the files in another. The builder replaces files and never changes one.
pub(super) fn link(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link(&entry.path(), &to)?;
        } else {
            fs::hard_link(entry.path(), to)?;
        }
    }
    Ok(())
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
