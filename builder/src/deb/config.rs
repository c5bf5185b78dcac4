//! Which archive to use, and the addresses that follow from it before anything is asked for.

use std::path::{Path, PathBuf};

use super::apt_config::AptConfig;
use super::error::DebError;
use super::suites::{self, Extra};

const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

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
    /// A moment of the past to use instead of what the mirror has now.
    pub snapshot: Option<Snapshot>,
    /// Suites to use beside the one above, its updates and its security updates.
    pub sources: Vec<Source>,
    /// Use only what is in the cache.
    pub offline: bool,
}

/// A moment of an archive of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The base address of the archive of snapshots: `archive/debian/TIMESTAMP` is below it.
    pub mirror: Option<String>,
    /// The moment, as in `20261101T000000Z`.
    pub at: String,
}

/// A suite that is used beside the main one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The base address of its mirror; that of the main suite when there is none.
    pub mirror: Option<String>,
    /// Its name.
    pub suite: String,
    /// Its components.
    pub components: Vec<String>,
    /// The keys that may sign it; those that may sign the main suite when there are none.
    pub keyring: Option<PathBuf>,
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
            snapshot: None,
            sources: Vec::new(),
            offline: false,
        }
    }
}

/// The addresses of an archive.
#[derive(Debug)]
pub(super) struct Places {
    /// The base address of the main suite.
    pub(super) main: String,
    /// Its updates and security updates.
    pub(super) extras: Vec<Extra>,
    /// Whether dates in signed indexes count for the main suite, its updates and its security updates.
    pub(super) dates: bool,
    /// Whether they count elsewhere.
    pub(super) dates_of_sources: bool,
    sources: Vec<String>,
}

impl Places {
    /// Finds them out from the settings and the apt configuration in a directory.
    pub(super) fn of(config: &ArchiveConfig, apt: &Path) -> Result<Self, DebError> {
        let host = AptConfig::read(apt, &config.suite)?;
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        let (main, security) = match &config.snapshot {
            Some(Snapshot { mirror: None, at }) => {
                return Err(DebError::NoSnapshotMirror { at: at.clone() });
            }
            Some(Snapshot { mirror: Some(mirror), at }) => {
                let base = |name: &str| format!("{}/archive/{name}/{at}", trimmed(mirror));
                (base("debian"), Some(base("debian-security")))
            }
            None => {
                let mirror = config.mirror.as_ref().or(host.mirror.as_ref());
                let mirror = mirror.ok_or_else(|| DebError::NoMirror { dir: apt.to_owned() })?;
                (trimmed(mirror), None)
            }
        };
        let mut extras = suites::extras(&main, &config.suite, &host);
        if let Some(security) = security {
            for extra in extras.iter_mut().filter(|extra| extra.security) {
                extra.mirror.clone_from(&security);
            }
        }
        let source = |it: &Source| it.mirror.as_deref().map_or_else(|| main.clone(), trimmed);
        let sources = config.sources.iter().map(source).collect();
        // A snapshot does not get newer: that its time has passed says nothing.
        let dates = host.check_dates && config.snapshot.is_none();
        Ok(Self { main, extras, dates, dates_of_sources: host.check_dates, sources })
    }

    /// Returns the base address of one of the further sources.
    pub(super) fn source(&self, n: usize) -> &str {
        self.sources.get(n).unwrap_or(&self.main)
    }

    /// Returns the base addresses that may have a file of the pool, the likeliest first. Those of security updates are
    /// in a pool of their own.
    pub(super) fn roots(&self, file: &str) -> Vec<&str> {
        let security = self.extras.iter().filter(|it| it.security).map(|it| it.mirror.as_str());
        let all = [self.main.as_str()].into_iter().chain(self.sources.iter().map(String::as_str));
        let mut roots: Vec<&str> = match file.starts_with("pool/updates/") {
            true => security.chain(all).collect(),
            false => all.chain(security).collect(),
        };
        let mut seen = Vec::new();
        roots.retain(|root| {
            let new = !seen.contains(root);
            seen.push(*root);
            new
        });
        roots
    }
}

/// Returns the keyring that is named, else that of the host.
pub(super) fn keyring(named: Option<&PathBuf>) -> Result<PathBuf, DebError> {
    let of_host = || KEYRINGS.iter().map(PathBuf::from).find(|it| it.exists());
    let keyring = named.cloned().or_else(of_host).unwrap_or_else(|| KEYRINGS[0].into());
    match keyring.exists() {
        true => Ok(keyring),
        false => Err(DebError::NoKeyring { path: keyring }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_and_further_sources_have_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ArchiveConfig::new(dir.path());
        config.sources = [Some("http://own.example/d/"), None]
            .map(|mirror| Source {
                mirror: mirror.map(str::to_owned),
                suite: "stable".to_owned(),
                components: Vec::new(),
                keyring: None,
            })
            .to_vec();
        config.snapshot = Some(Snapshot { mirror: None, at: "20261101T000000Z".to_owned() });
        let error = Places::of(&config, dir.path()).unwrap_err().to_string();
        assert!(error.contains("20261101T000000Z") && error.contains("snapshot-mirror"), "{error}");
        config.snapshot.as_mut().unwrap().mirror = Some("http://snap.example/".to_owned());
        let places = Places::of(&config, dir.path()).unwrap();
        let main = "http://snap.example/archive/debian/20261101T000000Z";
        let security = "http://snap.example/archive/debian-security/20261101T000000Z";
        assert_eq!(places.roots("pool/main/a.deb"), [main, "http://own.example/d", security]);
        assert_eq!(places.roots("pool/updates/a.deb"), [security, main, "http://own.example/d"]);
        assert_eq!((places.source(0), places.source(1)), ("http://own.example/d", main));
        assert!(!places.dates && places.dates_of_sources);
    }
}
