//! The loaders that firmware fetches: iPXE, from Debian's package or a folder, held in memory (about 2 MB).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kiln_inventory::Phase;
use kiln_ipxe::LOADERS;
use kiln_types::Digest;

use crate::boots::{Boots, Transfer};
use crate::settings::Settings;
use crate::tftp;

/// No loader is anywhere near this size.
const MAX_SIZE: u64 = 16 << 20;

/// Every loader that was found.
#[derive(Clone, Debug, Default)]
pub struct Loaders {
    files: HashMap<&'static str, (Bytes, Digest)>,
}

/// The loaders cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadersError {
    /// A folder has none.
    #[error("{} has none of {}; put at least one there, or leave [loaders] dir out to fetch them", .0.display(), names())]
    Empty(PathBuf),
    /// A file cannot be read.
    #[error("cannot read the loader {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A file cannot be written.
    #[error("cannot write the loader {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// A file is too large to be a loader.
    #[error("{} is too large to be a loader ({} MB at most)", .0.display(), MAX_SIZE >> 20)]
    TooLarge(PathBuf),
    /// Debian's package cannot be fetched or read.
    #[error(
        "cannot get iPXE from Debian's package `ipxe`; install that package, or name a folder with the files by [loaders] dir"
    )]
    Package(#[source] Box<dyn std::error::Error + Send + Sync>),
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
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
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
    Loaders::read(&dir)
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
    fn get(&self, path: &str) -> Option<Bytes> {
        self.loaders.get(path.strip_prefix("ipxe/").unwrap_or(path)).map(|(bytes, _)| bytes)
    }

    fn sent(&self, peer: Ipv4Addr, path: &str, bytes: u64, took: Duration) {
        let detail = path.strip_prefix("ipxe/").unwrap_or(path).to_owned();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.boots.loader(peer, Transfer { phase: Phase::Loader, detail, bytes, millis });
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.copy_from_slice(digest.as_ref());
    Digest::from_bytes(out)
}
