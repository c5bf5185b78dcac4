//! Package files: where they are kept, and how they are fetched when their hash is known.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kiln_types::Digest;

use super::blocking::blocking;
use super::config::{ArchiveConfig, Places};
use super::error::DebError;
use crate::fetch::{Download, Fetcher};
use crate::hash::Hasher;

pub(super) const APT: &str = "/etc/apt";
const MAX_PACKAGE: u64 = 4 << 30;

/// The files of an archive. Who knows the hash of one needs no signature, so no index is asked for.
#[derive(Debug)]
pub struct Pool<'f> {
    fetcher: &'f Fetcher<'f>,
    places: Places,
    cache: PathBuf,
    offline: bool,
}

impl<'f> Pool<'f> {
    /// Returns the files of the archive that the settings mean.
    ///
    /// # Errors
    ///
    /// Fails when no mirror is known, or none for the snapshot that is named.
    pub fn new(config: &ArchiveConfig, fetcher: &'f Fetcher<'f>) -> Result<Self, DebError> {
        Ok(Self::at(Places::of(config, Path::new(APT))?, config, fetcher))
    }

    pub(super) fn at(places: Places, config: &ArchiveConfig, fetcher: &'f Fetcher<'f>) -> Self {
        Self { fetcher, places, cache: config.cache.clone(), offline: config.offline }
    }

    pub(super) const fn places(&self) -> &Places {
        &self.places
    }

    /// Fetches a file of the pool, unless it is in the cache, and returns where it is. `name` is for messages.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be fetched or is not of this size and hash.
    pub async fn fetch(
        &self,
        name: &str,
        file: &str,
        size: u64,
        sha256: Digest,
    ) -> Result<PathBuf, DebError> {
        if let Some(path) = cached(&self.cache, size, sha256).await? {
            return Ok(path);
        }
        if self.offline {
            return Err(DebError::Offline { what: format!("package `{name}`") });
        }
        let path = pool_path(&self.cache, sha256);
        let mut first = None;
        for root in self.places.roots(file) {
            let url = format!("{root}/{file}");
            let what = Download {
                url: &url,
                path: &path,
                name,
                limit: MAX_PACKAGE,
                size: Some(size),
                sha256: Some(sha256),
            };
            match self.fetcher.download(what).await.map_err(DebError::from) {
                Ok(_) => return Ok(path),
                // Another archive may have it, or one of the same name.
                Err(error) if error.is_gone() || error.is_about_content() => {
                    // Where a file should be counts, unless there it is only missing.
                    let better = |first: &DebError| first.is_gone() && !error.is_gone();
                    if first.as_ref().is_none_or(better) {
                        first = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| DebError::Offline { what: format!("package `{name}`") }))
    }
}

fn pool_path(cache: &Path, sha256: Digest) -> PathBuf {
    cache.join(format!("deb/pool/{}.deb", sha256.hex()))
}

/// Returns the file of a package, if it is in the cache and whole.
pub(crate) async fn cached(
    cache: &Path,
    size: u64,
    sha256: Digest,
) -> Result<Option<PathBuf>, DebError> {
    let path = pool_path(cache, sha256);
    let file = path.clone();
    Ok(blocking(move || is_whole(&file, size, sha256)).await?.then_some(path))
}

/// Returns whether a file is in the cache and has the right bytes.
fn is_whole(path: &Path, size: u64, digest: Digest) -> Result<bool, DebError> {
    let failed = DebError::cache(path);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(&failed)?.len() != size {
        return Ok(false);
    }
    let mut hash = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(&failed)? {
            0 => return Ok(hash.finish() == digest),
            got => hash.update(&buffer[..got]),
        }
    }
}
