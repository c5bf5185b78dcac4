//! Opening a suite: its signed index, from the mirror or the cache, checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

use super::blocking::blocking;
use super::error::DebError;
use super::kept::Kept;
use super::release::{Release, parse_date};
use super::signature;
use crate::fetch::{Download, Fetcher, Refreshed, Validators};

const MAX_RELEASE: u64 = 16 << 20;

/// A suite whose signature has been checked.
#[derive(Clone, Debug)]
pub(super) struct Suite {
    pub(super) mirror: String,
    pub(super) name: String,
    pub(super) release: Release,
    pub(super) components: Vec<String>,
    /// Whether it has to have all of its components; updates need not.
    pub(super) whole: bool,
}

/// Which suite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) mirror: &'a str,
    pub(super) suite: &'a str,
    pub(super) components: &'a [String],
    pub(super) whole: bool,
    pub(super) keyring: &'a Path,
    /// Whether dates count.
    pub(super) dates: bool,
}

/// What opening a suite needs.
pub(super) struct Open<'a, 'f> {
    pub(super) fetcher: &'f Fetcher<'f>,
    pub(super) cache: &'a Path,
    pub(super) offline: bool,
}

impl Open<'_, '_> {
    /// Returns a suite, and what the user should know of it.
    pub(super) async fn suite(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<(Suite, Option<String>), DebError> {
        let Wanted { mirror, suite: name, .. } = wanted;
        let url = format!("{mirror}/dists/{name}/InRelease");
        let (release, mut warning) = self.release(&url, name, wanted.keyring).await?;
        let bad = |reason| DebError::Index { url: url.clone(), reason };
        if !release.names.iter().any(|known| known == name) {
            return Err(bad(format!(
                "it is of the suite `{}`, not `{name}`",
                release.names.join("`, `"),
            )));
        }
        if let Some(until) = release.valid_until.clone().filter(|_| wanted.dates) {
            let limit =
                parse_date(&until).ok_or_else(|| bad(format!("`{until}` is not a date")))?;
            if SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now.as_secs() > limit) {
                if !self.offline {
                    return Err(DebError::Expired { url, until });
                }
                warning = Some(format!(
                    "the index of {name} in the cache was valid until {until} only, so updates may be missing; build \
                     without `--offline` to get them"
                ));
            }
        }
        let suite = Suite {
            mirror: mirror.to_owned(),
            name: name.to_owned(),
            release,
            components: wanted.components.to_vec(),
            whole: wanted.whole,
        };
        Ok((suite, warning))
    }

    async fn release(
        &self,
        url: &str,
        suite: &str,
        keyring: &Path,
    ) -> Result<(Release, Option<String>), DebError> {
        let (cache, at) = (self.cache.to_owned(), url.to_owned());
        let kept = blocking(move || Ok(Kept::read(&cache, &at, MAX_RELEASE))).await?;
        if self.offline {
            let what = || format!("the index of suite `{suite}` ({url})");
            let kept = kept.ok_or_else(|| DebError::Offline { what: what() })?;
            return Ok((parse(url, keyring, kept.text).await?, None));
        }
        let known = kept.as_ref().map(|kept| kept.validators.clone()).unwrap_or_default();
        match self.refresh(url, suite, &known).await {
            Ok(None) => {
                // Nothing new is asked for only when there is a kept one.
                let text = kept.map(|kept| kept.text).unwrap_or_default();
                if let Ok(release) = parse(url, keyring, text).await {
                    return Ok((release, None));
                }
                tracing::debug!(url, "the kept index is of no use");
            }
            Ok(Some(new)) => return self.newest(url, keyring, kept, new).await,
            Err(error) => {
                if error.is_gone() {
                    Kept::remove(self.cache, url);
                }
                return Err(error);
            }
        }
        match self.refresh(url, suite, &Validators::default()).await? {
            Some(new) => self.newest(url, keyring, None, new).await,
            None => Err(DebError::Index {
                url: url.to_owned(),
                reason: "the server says that it has not changed, without being asked".to_owned(),
            }),
        }
    }

    /// Keeps an index, once its signature is known to be good, unless it is older than the one that was kept before:
    /// then a mirror has fallen behind, or somebody hides updates behind an old signature.
    async fn newest(
        &self,
        url: &str,
        keyring: &Path,
        kept: Option<Kept>,
        new: Kept,
    ) -> Result<(Release, Option<String>), DebError> {
        let release = parse(url, keyring, new.text.clone()).await?;
        if let Some(kept) = kept
            && let Ok(kept) = parse(url, keyring, kept.text).await
            && release.is_older_than(&kept)
        {
            let warning = format!(
                "{url} is of {} and older than the one in the cache, which is used; the mirror is out of date or has been \
                 tampered with",
                release.date.as_deref().unwrap_or_default()
            );
            return Ok((kept, Some(warning)));
        }
        let (cache, url) = (self.cache.to_owned(), url.to_owned());
        blocking(move || {
            new.write(&cache, &url).map_err(DebError::cache(&Kept::dir(&cache)))?;
            Ok((release, None))
        })
        .await
    }

    /// Asks for an index, and returns it unless it is the one of which the server said `known`.
    async fn refresh(
        &self,
        url: &str,
        suite: &str,
        known: &Validators,
    ) -> Result<Option<Kept>, DebError> {
        // Under a name of its own: another build may be fetching the same.
        let dir = Kept::dir(self.cache);
        let create =
            |dir: &PathBuf| fs::create_dir_all(dir).and_then(|()| NamedTempFile::new_in(dir));
        let temp = create(&dir).map_err(DebError::cache(&dir))?.into_temp_path();
        let what = Download {
            url,
            path: &temp,
            name: &format!("{suite} InRelease"),
            limit: MAX_RELEASE,
            size: None,
            sha256: None,
        };
        let validators = match self.fetcher.refresh(what, known).await? {
            Refreshed::Unchanged => return Ok(None),
            Refreshed::New(validators) => validators,
        };
        let url = url.to_owned();
        blocking(move || {
            let file = fs::read(&temp).map_err(DebError::cache(&temp))?;
            let text = String::from_utf8(file)
                .map_err(|_| DebError::Index { url, reason: "it is not text".to_owned() })?;
            Ok(Some(Kept { validators, text }))
        })
        .await
    }
}

/// Reads a signed index. Nothing is read out of it before its signature is known to be good.
async fn parse(url: &str, keyring: &Path, file: String) -> Result<Release, DebError> {
    let (url, keyring) = (url.to_owned(), keyring.to_owned());
    blocking(move || {
        let text = signature::verify(&url, &file, &keyring)?;
        Release::parse(&text).map_err(|reason| DebError::Index { url, reason })
    })
    .await
}
