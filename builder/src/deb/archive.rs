use std::fs;
use std::path::{Path, PathBuf};

use kiln_types::{Arch, Digest};

use super::blocking::blocking;
use super::config::{ArchiveConfig, Places, keyring};
use super::error::DebError;
use super::index_file::{Packed, bad_index, read_index, unpack_index};
use super::open::{Open, Suite, Wanted};
use super::packages::{Package, PackageIndex};
use super::pool::{APT, Pool};
use super::suites;
use crate::fetch::{Download, Fetcher};

const MAX_INDEX: u64 = 512 << 20;

/// A release of a Debian mirror: its suite, those of its updates and further sources, whose signatures have been
/// checked.
#[derive(Debug)]
pub struct Archive<'f> {
    fetcher: &'f Fetcher<'f>,
    cache: PathBuf,
    offline: bool,
    pool: Pool<'f>,
    suites: Vec<Suite>,
    warnings: Vec<String>,
}

impl<'f> Archive<'f> {
    /// Reads the signed index of a suite and checks it. What is in the cache is used when the mirror says that nothing
    /// is newer, or without asking when the settings say so.
    ///
    /// # Errors
    ///
    /// Fails when no mirror is known or it cannot be reached, and when the index is not signed by the keyring, is of
    /// another suite or too old. That it is too old is only a warning when nothing newer may be asked for.
    pub async fn open(config: ArchiveConfig, fetcher: &'f Fetcher<'f>) -> Result<Self, DebError> {
        Self::open_with(config, fetcher, Path::new(APT)).await
    }

    async fn open_with(
        config: ArchiveConfig,
        fetcher: &'f Fetcher<'f>,
        apt: &Path,
    ) -> Result<Self, DebError> {
        let places = Places::of(&config, apt)?;
        let own = keyring(config.keyring.as_ref())?;
        let open = Open { fetcher, cache: &config.cache, offline: config.offline };
        let main = Wanted {
            mirror: &places.main,
            suite: &config.suite,
            components: &config.components,
            whole: true,
            keyring: &own,
            dates: places.dates,
        };
        let (suite, warning) = open.suite(main).await?;
        let (mut suites, mut warnings) = (vec![suite], Vec::from_iter(warning));
        for extra in &places.extras {
            let wanted =
                Wanted { mirror: &extra.mirror, suite: &extra.suite, whole: false, ..main };
            match open.suite(wanted).await {
                Ok((suite, warning)) => {
                    suites.push(suite);
                    warnings.extend(warning);
                }
                Err(error) if suites::is_missing(&error) && !extra.sure => {
                    let (suite, mirror) = (&extra.suite, &extra.mirror);
                    tracing::debug!(suite, mirror, "there is no such suite");
                    if extra.security {
                        warnings.push(lacking(&config.suite, mirror));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        for (n, source) in config.sources.iter().enumerate() {
            let keyring = match &source.keyring {
                Some(path) => keyring(Some(path))?,
                None => own.clone(),
            };
            let wanted = Wanted {
                mirror: places.source(n),
                suite: &source.suite,
                components: &source.components,
                whole: true,
                keyring: &keyring,
                dates: if source.mirror.is_some() { places.dates_of_sources } else { places.dates },
            };
            let (suite, warning) = open.suite(wanted).await?;
            suites.push(suite);
            warnings.extend(warning);
        }
        tracing::debug!(
            mirror = places.main,
            suite = config.suite,
            suites = suites.len(),
            "opened the archive"
        );
        let pool = Pool::at(places, &config, fetcher);
        Ok(Self { fetcher, cache: config.cache, offline: config.offline, pool, suites, warnings })
    }

    /// Returns what the user should know of the archive, such as that security updates are not included.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// Returns the base address of the mirror.
    pub fn mirror(&self) -> &str {
        &self.pool.places().main
    }

    /// Returns the packages of the suite for one architecture. The index is kept in the cache by its hash, so it is
    /// fetched again only when it has changed.
    ///
    /// # Errors
    ///
    /// Fails when a component does not exist, when its index cannot be fetched or is not the signed one.
    pub async fn packages(&self, arch: Arch) -> Result<PackageIndex, DebError> {
        let mut parts = Vec::new();
        for suite in &self.suites {
            for component in &suite.components {
                let dir = format!("{component}/binary-{}/Packages", arch.debian());
                if suite.whole || suite.release.file(&dir).is_some() {
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
        let path = self.cache.join(format!("deb/index/{}", digest.hex()));
        let cached = path.clone();
        if let Some(text) = blocking(move || read_index(&cached, size, digest)).await? {
            return Ok(text);
        }
        let name = format!("{}/{component} {}", suite.name, arch.debian());
        if self.offline {
            return Err(DebError::Offline { what: format!("the list of packages of {name}") });
        }
        let by_name = format!("{base}/{packed}");
        let by_hash = format!("{base}/{dir}/by-hash/SHA256/{}", packed_digest.hex());
        let temp = path.with_extension(form.extension());
        let what = Download {
            url: &by_name,
            path: &temp,
            name: &name,
            limit: MAX_INDEX,
            size: Some(packed_size),
            sha256: Some(packed_digest),
        };
        let mut url = &by_name;
        if suite.release.by_hash {
            url = &by_hash;
            match self.fetcher.download(Download { url, ..what }).await.map_err(DebError::from) {
                Ok(_) => {}
                // Some copies of an archive have no files by hash, whatever its index says.
                Err(error) if error.is_gone() => {
                    url = &by_name;
                    // What the mirror said of the first place is what counts.
                    self.fetcher.download(what).await.map_err(|_| error)?;
                }
                Err(error) => return Err(error),
            }
        } else {
            self.fetcher.download(what).await?;
        }
        let url = url.clone();
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
        self.pool.fetch(name, file, size, sha256).await
    }
}

fn lacking(suite: &str, mirror: &str) -> String {
    format!(
        "security updates of {suite} are not included: {mirror} has none; name their archive in the apt configuration \
         of this host"
    )
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
