use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use kiln::lab::{FirmwareImages, Site};
use kiln_builder::deb::{self, Archive, ArchiveConfig};
use kiln_builder::fetch::Fetcher;
use kiln_builder::output::Stub;
use kiln_builder::progress::Silent;
use kiln_builder::tree::TreePath;
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

/// Fetches shim and GRUB beside the other loaders, once for all runs. Needs the host's network, as [`image`] does.
pub(crate) fn secure_loaders() -> anyhow::Result<()> {
    alone(|site, outside| outside.block_on(site.clone().with_secure_boot().fetch_loaders()))
}

/// Fetches the UEFI firmware of Debian 13 for an architecture, whatever the host has, once for all runs. Needs the host's
/// network, as [`image`] does.
pub(crate) fn firmware_of_debian_13(arch: Arch) -> anyhow::Result<FirmwareImages> {
    let (package, folder, files) = match arch {
        Arch::X86_64 => ("ovmf", "OVMF", ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"]),
        Arch::Arm64 => ("qemu-efi-aarch64", "AAVMF", ["AAVMF_CODE.no-secboot.fd", "AAVMF_VARS.fd"]),
    };
    alone(|_, outside| {
        let config = ArchiveConfig::new(store().join("cache"));
        ensure!(config.suite == "trixie", "the suite is {}", config.suite);
        let fetcher = Fetcher::new(&Silent);
        let (package, version) = outside.block_on(async {
            let archive = Archive::open(config, &fetcher).await?;
            let index = archive.packages(arch).await?;
            let package = index.get(package).with_context(|| format!("no package {package}"))?;
            anyhow::Ok((archive.fetch(package).await?, package.version.to_string()))
        })?;
        let to = work_folder().join("firmware").join(version.replace('/', "_"));
        let [code, variables] = files.map(|file| to.join(file));
        if !code.exists() || !variables.exists() {
            fs::create_dir_all(&to)?;
            let tree = deb::unpack(&package)?;
            for name in files {
                let path = TreePath::new(&format!("usr/share/{folder}/{name}"))?;
                let content = tree.content(&path).with_context(|| format!("no {path}"))?;
                let whole = to.join(format!("{name}.new"));
                fs::write(&whole, content.read_all(MAX_FIRMWARE)?)?;
                fs::rename(whole, to.join(name))?;
            }
        }
        Ok(FirmwareImages { code, variables })
    })
}

/// qemu's flash chips for arm64 have 64 MB.
const MAX_FIRMWARE: u64 = 64 << 20;

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
