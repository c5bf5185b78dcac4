//! Fetches loaders from Debian, each through the signed chain, and puts it in its place in one step.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_builder::deb::{self, Archive, ArchiveConfig};
use kiln_builder::durable;
use kiln_builder::fetch::Fetcher;
use kiln_builder::progress::Silent;
use kiln_builder::tree::TreePath;
use kiln_ipxe::LOADERS;
use kiln_types::Arch;

use super::origins::{self, Origin};
use super::{BoxError, EfiFile, Loaders, LoadersError, MAX_SIZE, PI};
use crate::settings::Settings;

/// Debian's package of iPXE.
const PACKAGE: &str = "ipxe";
/// Debian's package of the firmware of Raspberry Pis, in the component `non-free-firmware`.
const PI_PACKAGE: &str = "raspi-firmware";
/// Where that has the files.
const PI_PATH: &str = "usr/lib/raspi-firmware/";

/// Returns the archive that every loader is from, and where what comes from it is kept.
fn archive(settings: &Settings) -> ArchiveConfig {
    let mut config = ArchiveConfig::new(settings.store_dir.join("cache"));
    config.mirror.clone_from(&settings.mirror);
    config
}

/// Fetches the firmware of Raspberry Pis through the signed chain. The folder appears whole or not at all.
pub(super) async fn pi_firmware(settings: &Settings, dir: &Path) -> Result<(), BoxError> {
    tracing::info!("fetching the firmware of Raspberry Pis from Debian");
    let mut config = archive(settings);
    config.components.push("non-free-firmware".to_owned());
    let fetcher = Fetcher::new(&Silent);
    let archive = Archive::open(config, &fetcher).await?;
    let index = archive.packages(Arch::Arm64).await?;
    let found = index.get(PI_PACKAGE).ok_or("the suite has no such package")?;
    let origin = Origin::of(found);
    let package = archive.fetch(found).await?;
    let dir = dir.to_owned();
    let put = move || -> Result<(), BoxError> {
        let new = tempfile::Builder::new().prefix(".raspberry-pi-").tempdir_in(&dir)?;
        let tree = deb::unpack(&package)?;
        for (path, _) in tree.iter() {
            let Some(name) = path.as_str().strip_prefix(PI_PATH) else { continue };
            let Some(content) = tree.content(path) else { continue };
            let file = new.path().join(name);
            let parent = file.parent().ok_or("a file without a folder")?;
            std::fs::create_dir_all(parent)?;
            durable::replace(&file, &content.read_all(MAX_SIZE)?, 0o600)?;
        }
        std::fs::set_permissions(new.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(new.keep(), dir.join(PI))?;
        durable::sync_folder(&dir)?;
        Ok(origins::note(&dir, [(PI.to_owned(), origin)])?)
    };
    tokio::task::spawn_blocking(put).await?
}

/// Fetches files of UEFI, and U-Boot, through the signed chain, and puts each in its place in one step.
pub(super) async fn efi_files(
    settings: &Settings,
    wanted: &[&'static EfiFile],
    dir: &Path,
) -> Result<(), BoxError> {
    tracing::info!("fetching stubs and loaders from Debian");
    let fetcher = Fetcher::new(&Silent);
    let archive = Archive::open(archive(settings), &fetcher).await?;
    for arch in [Arch::X86_64, Arch::Arm64] {
        let mut of_arch = wanted.iter().filter(|file| file.arch == arch).peekable();
        if of_arch.peek().is_none() {
            continue;
        }
        let index = archive.packages(arch).await?;
        for file in of_arch {
            let lacking = || format!("the suite has no package {} for {arch}", file.package);
            let found = index.get(file.package).ok_or_else(lacking)?;
            let origin = Origin::of(found);
            let package = archive.fetch(found).await?;
            let (file, dir) = (*file, dir.to_owned());
            let put = move || -> Result<(), BoxError> {
                let tree = deb::unpack(&package)?;
                let content = tree.content(&TreePath::new(file.path)?);
                let content = content.ok_or_else(|| format!("no {} in it", file.path))?;
                let bytes = content.read_all(MAX_SIZE)?;
                durable::replace(&dir.join(file.name), &bytes, 0o600)?;
                Ok(origins::note(&dir, [(file.name.to_owned(), origin.with(&bytes))])?)
            };
            tokio::task::spawn_blocking(put).await??;
        }
    }
    Ok(())
}

pub(super) async fn ipxe(settings: &Settings, dir: PathBuf) -> Result<Loaders, LoadersError> {
    tracing::info!("fetching iPXE from Debian");
    let (package, origin) = fetch(archive(settings)).await.map_err(LoadersError::Package)?;
    let unpacked = tokio::task::spawn_blocking(move || install(&package, &origin, &dir)).await;
    unpacked.map_err(|e| LoadersError::Package(e.into()))?
}

/// Fetches the package through the signed chain. Its files are for every architecture.
async fn fetch(config: ArchiveConfig) -> Result<(PathBuf, Origin), BoxError> {
    let fetcher = Fetcher::new(&Silent);
    let archive = Archive::open(config, &fetcher).await?;
    let index = archive.packages(Arch::X86_64).await?;
    let package = index.get(PACKAGE).ok_or("the suite has no such package")?;
    Ok((archive.fetch(package).await?, Origin::of(package)))
}

/// Takes the loaders out of the package and puts each in its place in one step.
fn install(package: &Path, origin: &Origin, dir: &Path) -> Result<Loaders, LoadersError> {
    let tree = deb::unpack(package).map_err(|e| LoadersError::Package(e.into()))?;
    let write_error = |path: &Path, e| LoadersError::Write(path.to_owned(), e);
    std::fs::create_dir_all(dir).map_err(|e| write_error(dir, e))?;
    for loader in LOADERS {
        let path = dir.join(loader.name);
        let inside =
            TreePath::new(loader.package_path).map_err(|e| LoadersError::Package(e.into()))?;
        let Some(content) = tree.content(&inside) else {
            tracing::warn!(loader = loader.name, "not in Debian's package");
            continue;
        };
        let bytes = content.read_all(MAX_SIZE).map_err(|e| LoadersError::Package(e.into()))?;
        durable::replace(&path, &bytes, 0o600).map_err(|e| write_error(&path, e))?;
        let origin = [(loader.name.to_owned(), origin.with(&bytes))];
        origins::note(dir, origin).map_err(|e| write_error(dir, e))?;
    }
    Loaders::read(dir)
}
