use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use kiln::lab::Site;
use kiln_builder::deb::ArchiveConfig;
use kiln_builder::fetch::Fetcher;
use kiln_builder::output::Stub;
use kiln_builder::progress::Silent;
use kiln_types::{Arch, ImageRef};
use tokio::runtime::{self, Runtime};

/// The image that the machines boot, which is also the one of `kiln demo`.
pub(crate) const IMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/images/demo.yml");

/// Returns the folder for what is kept from run to run: it is in the target folder.
pub(crate) fn work_folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Returns the store that all boot cases share.
pub(crate) fn store() -> PathBuf {
    work_folder().join("store")
}

/// Fetches the loaders, once for all runs. Needs the host's network, as [`image`] does.
pub(crate) fn loaders() -> anyhow::Result<()> {
    alone(|site, outside| outside.block_on(site.fetch_loaders()))
}

/// Builds the image for an architecture, once in a run, and fetches the loaders. Needs the host's network, so it is
/// called before the private one is entered.
pub(crate) fn image(arch: Arch) -> anyhow::Result<ImageRef> {
    static BUILT: Mutex<Vec<(Arch, ImageRef)>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, image)) = built.iter().find(|(other, _)| *other == arch) {
        return Ok(image.clone());
    }
    let image = alone(|site, outside| {
        outside.block_on(site.fetch_loaders())?;
        outside.block_on(site.build(Path::new(IMAGE), &[arch]))
    })?;
    built.push((arch, image.clone()));
    Ok(image)
}

/// Builds an image of a case's own for an architecture, and fetches the loaders. Needs the host's network, as [`image`]
/// does.
pub(crate) fn made(spec: &Path, arch: Arch) -> anyhow::Result<ImageRef> {
    alone(|site, outside| {
        outside.block_on(site.fetch_loaders())?;
        outside.block_on(site.build(spec, &[arch]))
    })
}

/// Fetches systemd's stub. Needs the host's network, as [`image`] does.
pub(crate) fn stub(arch: Arch) -> anyhow::Result<Stub> {
    alone(|_, outside| {
        let fetcher = Fetcher::new(&Silent);
        let config = ArchiveConfig::new(store().join("cache"));
        Ok(outside.block_on(Stub::obtain(config, &fetcher, arch))?)
    })
}

/// Works on the shared store while no other run or case does: they wait at a file lock.
fn alone<T>(work: impl FnOnce(&Site, &Runtime) -> anyhow::Result<T>) -> anyhow::Result<T> {
    fs::create_dir_all(work_folder())?;
    let path = work_folder().join("store.lock");
    let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    let outside = runtime::Builder::new_current_thread().enable_all().build()?;
    work(&Site::new(work_folder(), &store()), &outside)
}
