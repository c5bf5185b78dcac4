use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_types::{Arch, Digest};

use super::apt_config::AptConfig;
use super::error::DebError;
use super::index_file::{Packed, bad_index, read_index, unpack_index};
use super::packages::{Package, PackageIndex};
use super::release::{Release, parse_date};
use super::signature;
use super::suites;
use crate::fetch::{Download, Fetcher};
use crate::hash::Hasher;

const APT: &str = "/etc/apt";
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
const MAX_RELEASE: u64 = 16 << 20;
const MAX_INDEX: u64 = 512 << 20;
const MAX_PACKAGE: u64 = 4 << 30;

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

/// A release of a Debian mirror: its suite and those of its updates, whose signatures have been checked.
#[derive(Debug)]
pub struct Archive<'f> {
    fetcher: &'f Fetcher<'f>,
    config: ArchiveConfig,
    mirror: String,
    suites: Vec<Suite>,
    /// Security updates that should have been there and are not.
    lacking: Option<String>,
}

/// One suite.
#[derive(Clone, Debug)]
struct Suite {
    mirror: String,
    name: String,
    release: Release,
    security: bool,
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
        let mirror = config.mirror.clone().or_else(|| host.mirror.clone());
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
        let open = Open { config: &config, keyring: &keyring, fetcher, dates: host.check_dates };
        let mut suites = vec![open.suite(&mirror, &config.suite, false).await?];
        let mut lacking = None;
        for extra in suites::extras(&mirror, &config.suite, &host) {
            match open.suite(&extra.mirror, &extra.suite, extra.security).await {
                Ok(suite) => suites.push(suite),
                Err(error) if suites::is_missing(&error) && !extra.sure => {
                    tracing::debug!(
                        suite = extra.suite,
                        mirror = extra.mirror,
                        "there is no such suite"
                    );
                    if extra.security {
                        lacking = Some(extra.mirror);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        tracing::debug!(mirror, suite = config.suite, suites = suites.len(), "opened the archive");
        Ok(Self { fetcher, config, mirror, suites, lacking })
    }

    /// Returns what the user should know of the archive, such as that security updates are not included.
    pub fn warnings(&self) -> Vec<String> {
        let lacking = self.lacking.iter().map(|mirror| {
            format!(
                "security updates of {} are not included: {mirror} has none; name their archive in the apt \
                 configuration of this host",
                self.config.suite
            )
        });
        lacking.collect()
    }

    /// Returns the base address of the archive that has a file. Those of security updates are in a pool of their own.
    fn root(&self, file: &str) -> &str {
        let updates = file.starts_with("pool/updates/");
        let security = self.suites.iter().find(|suite| suite.security && updates);
        security.map_or(&self.mirror, |suite| &suite.mirror)
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
        for (n, suite) in self.suites.iter().enumerate() {
            for component in &self.config.components {
                // Updates need not have every component.
                let dir = format!("{component}/binary-{}/Packages", arch.debian());
                if n == 0 || suite.release.file(&dir).is_some() {
                    parts.push(self.component(suite, component, arch).await?);
                }
            }
        }
        blocking(move || Ok(PackageIndex::new(arch, parts))).await
    }

    async fn component(
        &self,
        suite: &Suite,
        component: &str,
        arch: Arch,
    ) -> Result<String, DebError> {
        let dir = format!("{component}/binary-{}", arch.debian());
        let plain = format!("{dir}/Packages");
        let base = format!("{}/dists/{}", suite.mirror, suite.name);
        let lacking = || DebError::Index {
            url: format!("{base}/InRelease"),
            reason: format!("it has no component `{component}` for {}", arch.debian()),
        };
        let (size, digest) = suite.release.file(&plain).ok_or_else(lacking)?;
        // Mirrors have one form at least; the smallest is the first.
        let forms = Packed::ALL.into_iter();
        let mut forms = forms.map(|form| (form, format!("{plain}{}", form.suffix())));
        let (form, packed, (packed_size, packed_digest)) = forms
            .find_map(|(form, path)| suite.release.file(&path).map(|file| (form, path, file)))
            .ok_or_else(lacking)?;
        if size > MAX_INDEX {
            let reason = format!("{plain} has {size} bytes");
            return Err(DebError::Index { url: format!("{base}/InRelease"), reason });
        }
        let path = self.config.cache.join(format!("deb/index/{}", digest.hex()));
        let cached = path.clone();
        if let Some(text) = blocking(move || read_index(&cached, size, digest)).await? {
            return Ok(text);
        }
        let url = match suite.release.by_hash {
            true => format!("{base}/{dir}/by-hash/SHA256/{}", packed_digest.hex()),
            false => format!("{base}/{packed}"),
        };
        let temp = path.with_extension(form.extension());
        let what = Download {
            url: &url,
            path: &temp,
            name: &format!("{}/{component} {}", suite.name, arch.debian()),
            limit: MAX_INDEX,
            size: Some(packed_size),
            sha256: Some(packed_digest),
        };
        self.fetcher.download(what).await?;
        blocking(move || {
            let text = unpack_index(form, &temp, &path, size, digest);
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
        let Package { name, filename, size, sha256, .. } = package;
        self.fetch_file(name, filename, *size, *sha256).await
    }

    /// Fetches a file of the pool, unless it is in the cache, and returns where it is. `name` is for messages.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be fetched or is not of this size and hash.
    pub async fn fetch_file(
        &self,
        name: &str,
        file: &str,
        size: u64,
        sha256: Digest,
    ) -> Result<PathBuf, DebError> {
        if let Some(path) = cached(&self.config.cache, size, sha256).await? {
            return Ok(path);
        }
        let path = pool_path(&self.config.cache, sha256);
        let what = Download {
            url: &format!("{}/{file}", self.root(file)),
            path: &path,
            name,
            limit: MAX_PACKAGE,
            size: Some(size),
            sha256: Some(sha256),
        };
        self.fetcher.download(what).await?;
        Ok(path)
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

/// What opening a suite needs.
struct Open<'a, 'f> {
    config: &'a ArchiveConfig,
    keyring: &'a Path,
    fetcher: &'f Fetcher<'f>,
    /// Whether dates count.
    dates: bool,
}

impl Open<'_, '_> {
    /// Fetches and checks the signed index of one suite.
    async fn suite(&self, mirror: &str, name: &str, security: bool) -> Result<Suite, DebError> {
        let url = format!("{mirror}/dists/{name}/InRelease");
        let release = self.release(&url, name).await?;
        let bad = |reason| DebError::Index { url: url.clone(), reason };
        if !release.names.iter().any(|known| known == name) {
            return Err(bad(format!(
                "it is of the suite `{}`, not `{name}`",
                release.names.join("`, `"),
            )));
        }
        if let Some(until) = release.valid_until.clone().filter(|_| self.dates) {
            let limit =
                parse_date(&until).ok_or_else(|| bad(format!("`{until}` is not a date")))?;
            if SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now.as_secs() > limit) {
                return Err(DebError::Expired { url, until });
            }
        }
        Ok(Suite { mirror: mirror.to_owned(), name: name.to_owned(), release, security })
    }

    async fn release(&self, url: &str, suite: &str) -> Result<Release, DebError> {
        let dir = self.config.cache.join("deb");
        let create = |dir: &Path| fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir));
        let temp = create(&dir).map_err(DebError::cache(&dir))?;
        let path = temp.path().join("InRelease");
        let name = format!("{suite} InRelease");
        let what = Download {
            url,
            path: &path,
            name: &name,
            limit: MAX_RELEASE,
            size: None,
            sha256: None,
        };
        self.fetcher.download(what).await?;
        let (url, keyring) = (url.to_owned(), self.keyring.to_owned());
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
