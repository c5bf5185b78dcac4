//! The loaders that firmware fetches: iPXE, from Debian's package or a folder, held in memory (about 2 MB).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_builder::deb::{self, Archive, ArchiveConfig};
use kiln_builder::fetch::Fetcher;
use kiln_builder::hash::sha256;
use kiln_builder::progress::Silent;
use kiln_builder::tree::TreePath;
use kiln_inventory::Phase;
use kiln_ipxe::{Endpoints, LOADERS, MORE_LOADERS};
use kiln_types::{Arch, Digest};

use crate::boots::{Boots, Transfer};
use crate::made::{self, Made};
use crate::pieces::Pieces;
use crate::settings::Settings;
use crate::tftp;
use crate::view::View;

/// Debian's package of iPXE.
const PACKAGE: &str = "ipxe";
/// No loader is anywhere near this size.
const MAX_SIZE: u64 = 16 << 20;

/// Every loader that was found.
#[derive(Clone, Debug, Default)]
pub struct Loaders {
    files: HashMap<&'static str, (Bytes, Digest)>,
    /// The folder with the firmware of Raspberry Pis, where there is one.
    pi: Option<PathBuf>,
}

/// The folder with the firmware of Raspberry Pis, beside the loaders.
const PI: &str = "raspberry-pi";
/// Debian's package of it, in the component `non-free-firmware`.
const PI_PACKAGE: &str = "raspi-firmware";
/// Where that has the files.
const PI_PATH: &str = "usr/lib/raspi-firmware/";

/// A file of a package that there is one of for each architecture.
struct EfiFile {
    arch: Arch,
    package: &'static str,
    path: &'static str,
    name: &'static str,
}

impl EfiFile {
    const fn new(
        arch: Arch,
        package: &'static str,
        path: &'static str,
        name: &'static str,
    ) -> Self {
        Self { arch, package, path, name }
    }
}

const STUB_X64: EfiFile = EfiFile::new(
    Arch::X86_64,
    "systemd-boot-efi",
    "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    "linuxx64.efi.stub",
);
const STUB_ARM64: EfiFile = EfiFile::new(
    Arch::Arm64,
    "systemd-boot-efi",
    "usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
    "linuxaa64.efi.stub",
);
/// What programs with everything in them begin with.
const STUBS: &[EfiFile] = &[STUB_X64, STUB_ARM64];
/// shim asks for GRUB by a name of its own, in the folder that it came from.
const SECURE_BOOT: &[EfiFile] = &[
    EfiFile::new(Arch::X86_64, "shim-signed", "usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
    EfiFile::new(
        Arch::X86_64,
        "grub-efi-amd64-signed",
        "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        "grubx64.efi",
    ),
    EfiFile::new(Arch::Arm64, "shim-signed", "usr/lib/shim/shimaa64.efi.signed", "shimaa64.efi"),
    EfiFile::new(
        Arch::Arm64,
        "grub-efi-arm64-signed",
        "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
        "grubaa64.efi",
    ),
];
/// How long the start of the server waits for what not every machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// An error of any kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The loaders cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadersError {
    /// A folder has none.
    #[error("{} has none of {}; put at least one there, or leave [loaders] dir out to fetch them", .0.display(), names())]
    Empty(PathBuf),
    /// A file cannot be read.
    #[error("cannot read the loader {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write the loader {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A file is too large to be a loader.
    #[error("{} is too large to be a loader ({} MB at most)", .0.display(), MAX_SIZE >> 20)]
    TooLarge(PathBuf),
    /// The firmware of Raspberry Pis cannot be fetched.
    #[error(
        "cannot get the firmware of Raspberry Pis from Debian's package `raspi-firmware`; put it into the folder \
         `raspberry-pi` of [loaders] dir, or leave [loaders] raspberry-pi out"
    )]
    Pi(#[source] BoxError),
    /// Debian's package cannot be fetched or read.
    #[error(
        "cannot get iPXE from Debian's package `ipxe`; install that package, or name a folder with the files by [loaders] dir"
    )]
    Package(#[source] BoxError),
}

fn names() -> String {
    LOADERS.iter().map(|loader| loader.name).collect::<Vec<_>>().join(", ")
}

impl Loaders {
    /// Reads the loaders that a folder has.
    ///
    /// # Errors
    ///
    /// Fails when it has none, or one that cannot be read.
    pub fn read(dir: &Path) -> Result<Self, LoadersError> {
        let mut files = HashMap::new();
        let efi = STUBS.iter().chain(SECURE_BOOT).map(|file| file.name);
        let names = LOADERS.iter().chain(MORE_LOADERS).map(|loader| loader.name);
        for name in names.chain(efi) {
            let path = dir.join(name);
            match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(meta) if meta.len() > MAX_SIZE => return Err(LoadersError::TooLarge(path)),
                Ok(_) => {}
                Err(error) => return Err(LoadersError::Read(path, error)),
            }
            let bytes = std::fs::read(&path).map_err(|e| LoadersError::Read(path, e))?;
            let digest = sha256(&bytes);
            files.insert(name, (Bytes::from(bytes), digest));
        }
        if !LOADERS.iter().any(|loader| files.contains_key(loader.name)) {
            Err(LoadersError::Empty(dir.to_owned()))
        } else {
            let pi = Some(dir.join(PI)).filter(|dir| dir.is_dir());
            Ok(Self { files, pi })
        }
    }

    /// Returns a loader by its name, and its digest.
    pub fn get(&self, name: &str) -> Option<(Bytes, Digest)> {
        self.files.get(name).cloned()
    }

    /// Returns where a file of the firmware of Raspberry Pis is. The name has no part that leads out of the folder.
    pub(crate) fn pi_file(&self, name: &str) -> Option<PathBuf> {
        Some(self.pi.as_ref()?.join(name)).filter(|path| path.is_file())
    }

    /// Returns the stub that programs for an architecture begin with.
    pub fn stub(&self, arch: Arch) -> Option<Bytes> {
        let file = match arch {
            Arch::X86_64 => &STUB_X64,
            Arch::Arm64 => &STUB_ARM64,
        };
        self.files.get(file.name).map(|(bytes, _)| bytes.clone())
    }

    /// Returns whether every loader that any firmware wants is there.
    fn is_complete(&self) -> bool {
        LOADERS.iter().all(|loader| self.files.contains_key(loader.name))
    }
}

/// Returns the loaders that the settings name, or Debian's.
///
/// # Errors
///
/// Fails when there are none to be had.
pub async fn obtain(settings: &Settings) -> Result<Loaders, LoadersError> {
    if let Some(dir) = &settings.loaders_dir {
        return Loaders::read(dir);
    }
    let dir = settings.data_dir.join("loaders");
    let found = match Loaders::read(&dir) {
        Ok(loaders) if loaders.is_complete() => loaders,
        Ok(_) | Err(LoadersError::Empty(_)) => ipxe(settings, dir.clone()).await?,
        Err(error) => return Err(error),
    };
    if settings.raspberry_pi && found.pi.is_none() {
        pi_firmware(settings, &dir).await.map_err(LoadersError::Pi)?;
    }
    let mut wanted: Vec<&EfiFile> = STUBS.iter().collect();
    if settings.secure_boot {
        wanted.extend(SECURE_BOOT);
    }
    wanted.retain(|file| !found.files.contains_key(file.name));
    if wanted.is_empty() {
        return Loaders::read(&dir);
    }
    // Only machines that are set to need them do: the others boot without.
    let fetched = tokio::time::timeout(PATIENCE, efi_files(settings, &wanted, &dir)).await;
    let error: BoxError = match fetched {
        Ok(Ok(())) => return Loaders::read(&dir),
        Ok(Err(error)) => error,
        Err(late) => late.into(),
    };
    let names: Vec<_> = wanted.iter().map(|file| file.name).collect();
    let names = names.join(", ");
    tracing::warn!(
        error = &*error as &dyn std::error::Error,
        names,
        "not fetched from Debian; machines that are to boot by UKI or GRUB cannot"
    );
    Loaders::read(&dir)
}

/// Fetches the firmware of Raspberry Pis through the signed chain. The folder appears whole or not at all.
async fn pi_firmware(settings: &Settings, dir: &Path) -> Result<(), BoxError> {
    tracing::info!("fetching the firmware of Raspberry Pis from Debian");
    let mut config = ArchiveConfig::new(settings.store_dir.join("cache"));
    config.mirror.clone_from(&settings.mirror);
    config.components.push("non-free-firmware".to_owned());
    let fetcher = Fetcher::new(&Silent);
    let archive = Archive::open(config, &fetcher).await?;
    let index = archive.packages(Arch::Arm64).await?;
    let package = index.get(PI_PACKAGE).ok_or("the suite has no such package")?;
    let package = archive.fetch(package).await?;
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
            write(parent, &file, &content.read_all(MAX_SIZE)?)?;
        }
        std::fs::set_permissions(new.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(new.keep(), dir.join(PI))?;
        Ok(std::fs::File::open(&dir)?.sync_all()?)
    };
    tokio::task::spawn_blocking(put).await?
}

/// Reads a file that is no larger than any loader.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Fetches files of UEFI through the signed chain, and puts each in its place in one step.
async fn efi_files(
    settings: &Settings,
    wanted: &[&'static EfiFile],
    dir: &Path,
) -> Result<(), BoxError> {
    tracing::info!("fetching stubs and loaders of UEFI from Debian");
    let mut config = ArchiveConfig::new(settings.store_dir.join("cache"));
    config.mirror.clone_from(&settings.mirror);
    let fetcher = Fetcher::new(&Silent);
    let archive = Archive::open(config, &fetcher).await?;
    for arch in [Arch::X86_64, Arch::Arm64] {
        let mut of_arch = wanted.iter().filter(|file| file.arch == arch).peekable();
        if of_arch.peek().is_none() {
            continue;
        }
        let index = archive.packages(arch).await?;
        for file in of_arch {
            let lacking = || format!("the suite has no package {} for {arch}", file.package);
            let package = archive.fetch(index.get(file.package).ok_or_else(lacking)?).await?;
            let (file, dir) = (*file, dir.to_owned());
            let put = move || -> Result<(), BoxError> {
                let tree = deb::unpack(&package)?;
                let content = tree.content(&TreePath::new(file.path)?);
                let content = content.ok_or_else(|| format!("no {} in it", file.path))?;
                Ok(write(&dir, &dir.join(file.name), &content.read_all(MAX_SIZE)?)?)
            };
            tokio::task::spawn_blocking(put).await??;
        }
    }
    Ok(())
}

async fn ipxe(settings: &Settings, dir: PathBuf) -> Result<Loaders, LoadersError> {
    tracing::info!("fetching iPXE from Debian");
    let mut config = ArchiveConfig::new(settings.store_dir.join("cache"));
    config.mirror.clone_from(&settings.mirror);
    let package = fetch(config).await.map_err(LoadersError::Package)?;
    let unpacked = tokio::task::spawn_blocking(move || install(&package, &dir)).await;
    unpacked.map_err(|e| LoadersError::Package(e.into()))?
}

/// Fetches the package through the signed chain. Its files are for every architecture.
async fn fetch(config: ArchiveConfig) -> Result<PathBuf, BoxError> {
    let fetcher = Fetcher::new(&Silent);
    let archive = Archive::open(config, &fetcher).await?;
    let index = archive.packages(Arch::X86_64).await?;
    let package = index.get(PACKAGE).ok_or("the suite has no such package")?;
    Ok(archive.fetch(package).await?)
}

/// Takes the loaders out of the package and puts each in its place in one step.
fn install(package: &Path, dir: &Path) -> Result<Loaders, LoadersError> {
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
        write(dir, &path, &bytes).map_err(|e| write_error(&path, e))?;
    }
    Loaders::read(dir)
}

fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(dir)?.sync_all()
}

/// What TFTP serves: loaders by name, with or without their folder, and what is made for the machine that asks.
#[derive(Debug)]
pub struct OverTftp {
    /// Machines and images.
    pub view: Arc<View>,
    /// Where machines reach us.
    pub at: Endpoints,
    /// The files.
    pub loaders: Loaders,
    /// Who is told of each that was sent.
    pub boots: Boots,
}

impl tftp::Files for OverTftp {
    async fn open(&self, peer: IpAddr, path: &str) -> Option<tftp::File> {
        if let Some((bytes, _)) = self.loaders.get(loader_name(path)) {
            return Some(bytes.into());
        }
        let Self { view, at, loaders, boots } = self;
        let file = Made { view, boots, loaders, at }.file(peer, path).await?;
        let reader = Pieces::new(view.artifacts().clone(), &file.plan);
        Some(tftp::File::streamed(file.plan.len(), reader))
    }

    fn ended(&self, transfer: &tftp::Ended) {
        let (peer, path, bytes) = (transfer.peer, &transfer.name, transfer.taken);
        let name = loader_name(path);
        let (phase, name) = match self.loaders.get(name) {
            Some(_) => (Phase::Loader, name),
            None => match made::event(path, peer) {
                Some(event) => event,
                None => return,
            },
        };
        let Some(detail) = transfer.told(name) else { return };
        let millis = u64::try_from(transfer.took.as_millis()).unwrap_or(u64::MAX);
        self.boots.loader(peer, Transfer { phase, detail, bytes, millis });
    }
}

/// Returns the name of a loader by its path.
fn loader_name(path: &str) -> &str {
    path.strip_prefix("ipxe/").or_else(|| path.strip_prefix("grub/")).unwrap_or(path)
}
