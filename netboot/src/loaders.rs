//! The loaders that firmware fetches: iPXE, from Debian's package or a folder, held in memory (about 2 MB).

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiln_builder::deb::{self, Archive, ArchiveConfig};
use kiln_builder::fetch::Fetcher;
use kiln_builder::hash::sha256;
use kiln_builder::progress::Silent;
use kiln_builder::tree::TreePath;
use kiln_inventory::Phase;
use kiln_ipxe::LOADERS;
use kiln_types::{Arch, Digest};

use crate::boots::{Boots, Transfer};
use crate::settings::Settings;
use crate::tftp;

/// Debian's package of iPXE.
const PACKAGE: &str = "ipxe";
/// No loader is anywhere near this size.
const MAX_SIZE: u64 = 16 << 20;

/// Every loader that was found.
#[derive(Clone, Debug, Default)]
pub struct Loaders {
    files: HashMap<&'static str, (Bytes, Digest)>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
        for loader in LOADERS {
            let path = dir.join(loader.name);
            match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(meta) if meta.len() > MAX_SIZE => return Err(LoadersError::TooLarge(path)),
                Ok(_) => {}
                Err(error) => return Err(LoadersError::Read(path, error)),
            }
            let bytes = std::fs::read(&path).map_err(|e| LoadersError::Read(path, e))?;
            let digest = sha256(&bytes);
            files.insert(loader.name, (Bytes::from(bytes), digest));
        }
        if files.is_empty() { Err(LoadersError::Empty(dir.to_owned())) } else { Ok(Self { files }) }
    }

    /// Returns a loader by its name, and its digest.
    pub fn get(&self, name: &str) -> Option<(Bytes, Digest)> {
        self.files.get(name).cloned()
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
    match Loaders::read(&dir) {
        Ok(loaders) if loaders.is_complete() => return Ok(loaders),
        Ok(_) | Err(LoadersError::Empty(_)) => {}
        Err(error) => return Err(error),
    }
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

/// Loaders as TFTP serves them: by name, with or without the folder `ipxe`.
#[derive(Debug)]
pub struct OverTftp {
    /// The files.
    pub loaders: Loaders,
    /// Who is told of each that was sent.
    pub boots: Boots,
}

impl tftp::Files for OverTftp {
    async fn open(&self, _: IpAddr, path: &str) -> Option<tftp::File> {
        let (bytes, _) = self.loaders.get(path.strip_prefix("ipxe/").unwrap_or(path))?;
        Some(bytes.into())
    }

    fn ended(&self, transfer: &tftp::Ended) {
        let name = transfer.name.strip_prefix("ipxe/").unwrap_or(&transfer.name);
        let Some(detail) = transfer.told(name) else { return };
        let (peer, bytes) = (transfer.peer, transfer.taken);
        let millis = u64::try_from(transfer.took.as_millis()).unwrap_or(u64::MAX);
        self.boots.loader(peer, Transfer { phase: Phase::Loader, detail, bytes, millis });
    }
}
