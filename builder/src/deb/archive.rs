use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_types::{Arch, Digest};
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use tempfile::NamedTempFile;

use super::apt_config::AptConfig;
use super::error::DebError;
use super::packages::{Package, PackageIndex};
use super::release::{Release, parse_date};
use super::signature;
use crate::fetch::{Download, Fetcher, publish};
use crate::hash::{Hasher, sha256};

const APT: &str = "/etc/apt";
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
const MAX_RELEASE: u64 = 16 << 20;
const MAX_INDEX: u64 = 512 << 20;
const MAX_PACKAGE: u64 = 4 << 30;
const XZ_MEMORY: u64 = 256 << 20;

/// Which archive to use, and how.
#[derive(Clone, Debug)]
pub struct ArchiveConfig {
    /// The base address of the mirror; the one of the host's apt configuration when there is none.
    pub mirror: Option<String>,
    /// The suite, such as `trixie`.
    pub suite: String,
    /// Its components, such as `main`.
    pub components: Vec<String>,
    /// The keys that may sign it; the Debian archive keyring of the host when there is none.
    pub keyring: Option<PathBuf>,
    /// Where downloads are kept.
    pub cache: PathBuf,
}

impl ArchiveConfig {
    /// The suite that is used when none is named.
    pub const DEFAULT_SUITE: &str = "trixie";

    /// Returns the usual settings: the mirror and the keyring of the host, `main` of the default suite.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            mirror: None,
            suite: Self::DEFAULT_SUITE.to_owned(),
            components: vec!["main".to_owned()],
            keyring: None,
            cache: cache.into(),
        }
    }
}

/// One suite of a Debian mirror, whose signature has been checked.
#[derive(Debug)]
pub struct Archive<'f> {
    fetcher: &'f Fetcher<'f>,
    config: ArchiveConfig,
    mirror: String,
    release: Release,
}

impl<'f> Archive<'f> {
    /// Fetches the signed index of a suite and checks it.
    ///
    /// # Errors
    ///
    /// Fails when no mirror is known or it cannot be reached, and when the index is not signed by the keyring, is of
    /// another suite or too old.
    pub async fn open(config: ArchiveConfig, fetcher: &'f Fetcher<'f>) -> Result<Self, DebError> {
        Self::open_with(config, fetcher, Path::new(APT)).await
    }

    async fn open_with(
        config: ArchiveConfig,
        fetcher: &'f Fetcher<'f>,
        apt: &Path,
    ) -> Result<Self, DebError> {
        let host = AptConfig::read(apt, &config.suite)?;
        let mirror = config.mirror.clone().or(host.mirror);
        let mirror = mirror.ok_or_else(|| DebError::NoMirror { dir: apt.to_owned() })?;
        let mirror = mirror.trim_end_matches('/').to_owned();
        let keyring = match &config.keyring {
            Some(path) => path.clone(),
            None => KEYRINGS
                .iter()
                .map(PathBuf::from)
                .find(|it| it.exists())
                .unwrap_or_else(|| KEYRINGS[0].into()),
        };
        if !keyring.exists() {
            return Err(DebError::NoKeyring { path: keyring });
        }
        let url = format!("{mirror}/dists/{}/InRelease", config.suite);
        let release = fetch_release(&url, &config, &keyring, fetcher).await?;
        let bad = |reason| DebError::Index { url: url.clone(), reason };
        if !release.names.contains(&config.suite) {
            return Err(bad(format!(
                "it is of the suite `{}`, not `{}`",
                release.names.join("`, `"),
                config.suite
            )));
        }
        if let Some(until) = release.valid_until.clone().filter(|_| host.check_dates) {
            let limit =
                parse_date(&until).ok_or_else(|| bad(format!("`{until}` is not a date")))?;
            if SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now.as_secs() > limit) {
                return Err(DebError::Expired { url, until });
            }
        }
        tracing::debug!(mirror, suite = config.suite, "opened the archive");
        Ok(Self { fetcher, config, mirror, release })
    }

    /// Returns the base address of the mirror.
    pub fn mirror(&self) -> &str {
        &self.mirror
    }

    /// Returns the packages of the suite for one architecture. The index is kept in the cache by its hash, so it is
    /// fetched again only when it has changed.
    ///
    /// # Errors
    ///
    /// Fails when a component does not exist, when its index cannot be fetched or is not the signed one.
    pub async fn packages(&self, arch: Arch) -> Result<PackageIndex, DebError> {
        let mut parts = Vec::new();
        for component in &self.config.components {
            parts.push(self.component(component, arch).await?);
        }
        blocking(move || Ok(PackageIndex::new(arch, parts))).await
    }

    async fn component(&self, component: &str, arch: Arch) -> Result<String, DebError> {
        let dir = format!("{component}/binary-{}", arch.debian());
        let plain = format!("{dir}/Packages");
        let packed = format!("{dir}/Packages.xz");
        let base = format!("{}/dists/{}", self.mirror, self.config.suite);
        let lacking = || DebError::Index {
            url: format!("{base}/InRelease"),
            reason: format!("it has no component `{component}` for {}", arch.debian()),
        };
        let (size, digest) = self.release.file(&plain).ok_or_else(lacking)?;
        let (packed_size, packed_digest) = self.release.file(&packed).ok_or_else(lacking)?;
        if size > MAX_INDEX {
            let reason = format!("{plain} has {size} bytes");
            return Err(DebError::Index { url: format!("{base}/InRelease"), reason });
        }
        let path = self.config.cache.join(format!("deb/index/{}", digest.hex()));
        let cached = path.clone();
        if let Some(text) = blocking(move || read_index(&cached, size, digest)).await? {
            return Ok(text);
        }
        let url = match self.release.by_hash {
            true => format!("{base}/{dir}/by-hash/SHA256/{}", packed_digest.hex()),
            false => format!("{base}/{packed}"),
        };
        let temp = path.with_extension("xz");
        let what = Download {
            url: &url,
            path: &temp,
            name: &format!("{}/{component} {}", self.config.suite, arch.debian()),
            limit: MAX_INDEX,
            size: Some(packed_size),
            sha256: Some(packed_digest),
        };
        self.fetcher.download(what).await?;
        blocking(move || {
            let text = unpack_index(&temp, &path, size, digest);
            // It has served, or is of no use. Another build may have done the same and removed it first.
            let _ = fs::remove_file(&temp);
            text.map_err(|error| bad_index(error, &path, &url))
        })
        .await
    }

    /// Fetches a package, unless it is in the cache, and returns its file.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be fetched or is not the one that the index names.
    pub async fn fetch(&self, package: &Package) -> Result<PathBuf, DebError> {
        let path = self.config.cache.join(format!("deb/pool/{}.deb", package.sha256.hex()));
        let (cached, size, digest) = (path.clone(), package.size, package.sha256);
        if blocking(move || is_whole(&cached, size, digest)).await? {
            return Ok(path);
        }
        let what = Download {
            url: &format!("{}/{}", self.mirror, package.filename),
            path: &path,
            name: &package.name,
            limit: MAX_PACKAGE,
            size: Some(package.size),
            sha256: Some(package.sha256),
        };
        self.fetcher.download(what).await?;
        Ok(path)
    }
}

async fn fetch_release(
    url: &str,
    config: &ArchiveConfig,
    keyring: &Path,
    fetcher: &Fetcher<'_>,
) -> Result<Release, DebError> {
    let dir = config.cache.join("deb");
    let create = |dir: &Path| fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir));
    let temp = create(&dir).map_err(DebError::cache(&dir))?;
    let path = temp.path().join("InRelease");
    let name = format!("{} InRelease", config.suite);
    let what =
        Download { url, path: &path, name: &name, limit: MAX_RELEASE, size: None, sha256: None };
    fetcher.download(what).await?;
    let (url, keyring) = (url.to_owned(), keyring.to_owned());
    blocking(move || {
        let bad = |reason: String| DebError::Index { url: url.clone(), reason };
        let file = fs::read(&path).map_err(DebError::cache(&path))?;
        let file = String::from_utf8(file).map_err(|_| bad("it is not text".to_owned()))?;
        // Nothing is read out of the file before its signature is known to be good.
        let text = signature::verify(&url, &file, &keyring)?;
        drop(temp);
        Release::parse(&text).map_err(bad)
    })
    .await
}

/// Reads an index from the cache if it is there and whole.
fn read_index(path: &Path, size: u64, digest: Digest) -> Result<Option<String>, DebError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DebError::Cache { path: path.to_owned(), source }),
    };
    let whole = bytes.len() as u64 == size && sha256(&bytes) == digest;
    Ok(if whole { String::from_utf8(bytes).ok() } else { None })
}

/// Unpacks a fetched index into the cache and checks it: what is parsed is what was signed.
fn unpack_index(
    packed: &Path,
    path: &Path,
    size: u64,
    digest: Digest,
) -> Result<String, IndexError> {
    let reader = File::open(packed).map_err(IndexError::Io)?;
    let mut text = Vec::new();
    let mut decoder = xz(reader).map_err(IndexError::Unpack)?.take(size + 1);
    decoder.read_to_end(&mut text).map_err(IndexError::Unpack)?;
    if text.len() as u64 != size || sha256(&text) != digest {
        return Err(IndexError::Other("its content is not the one that was signed"));
    }
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut temp = NamedTempFile::new_in(dir).map_err(IndexError::Io)?;
    temp.write_all(&text).map_err(IndexError::Io)?;
    temp.as_file().sync_all().map_err(IndexError::Io)?;
    publish(temp, path).map_err(IndexError::Publish)?;
    String::from_utf8(text).map_err(|_| IndexError::Other("it is not text"))
}

enum IndexError {
    Io(io::Error),
    Unpack(io::Error),
    Publish(crate::fetch::FetchError),
    Other(&'static str),
}

fn bad_index(error: IndexError, path: &Path, url: &str) -> DebError {
    let bad = |reason| DebError::Index { url: url.to_owned(), reason };
    match error {
        IndexError::Io(error) => DebError::cache(path)(error),
        IndexError::Publish(error) => error.into(),
        IndexError::Unpack(error) => bad(format!("it cannot be unpacked ({error})")),
        IndexError::Other(reason) => bad(reason.to_owned()),
    }
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

/// Returns a reader of xz data that uses a limited amount of memory.
pub(crate) fn xz<R: Read>(reader: R) -> io::Result<XzDecoder<R>> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
    Ok(XzDecoder::new_stream(reader, stream))
}

/// Runs work that reads or computes for long where it does not hold up other tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DebError> + Send + 'static,
) -> Result<T, DebError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
