use std::io;
use std::path::{Path, PathBuf};

use crate::disk::is_full;
use crate::fetch::FetchError;

/// Why packages could not be had or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// The apt configuration names no Debian mirror.
    #[error(
        "no Debian mirror is known: {} names none; name one with `mirror` or `--mirror URL`", dir.display()
    )]
    NoMirror {
        /// Where the apt configuration was looked for.
        dir: PathBuf,
    },
    /// A snapshot is named, and not where it is.
    #[error(
        "the snapshot {at} is asked for and no archive of snapshots is known; name one by `snapshot-mirror` in [debian] of kiln.toml"
    )]
    NoSnapshotMirror {
        /// The moment.
        at: String,
    },
    /// The network would be needed, and must not be used.
    #[error("{what} is not in the cache, and `--offline` is given; build once without it")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// The apt configuration cannot be read.
    #[error("cannot read {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no keyring.
    #[error("the keyring {} is missing; install the package debian-archive-keyring", path.display())]
    NoKeyring {
        /// The file.
        path: PathBuf,
    },
    /// There is no program to check signatures with.
    #[error(
        "neither gpgv nor sqv is installed, so {url} cannot be trusted; install the package gpgv"
    )]
    NoVerifier {
        /// The signed file.
        url: String,
    },
    /// The program that checks signatures could not be run.
    #[error("cannot run {program} to check the signature of {url}")]
    RunVerifier {
        /// The program.
        program: &'static str,
        /// The signed file.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// The signature is wrong, or nobody that we trust made it.
    #[error(
        "{url} is not signed by a key in {}: {reason}; the mirror may have been tampered with, or the keyring is too old", keyring.display()
    )]
    Signature {
        /// The signed file.
        url: String,
        /// The keyring.
        keyring: PathBuf,
        /// What the program said.
        reason: String,
    },
    /// The suite's index is too old.
    #[error(
        "{url} was valid until {until} only; the mirror is out of date or this machine's clock is wrong"
    )]
    Expired {
        /// The signed file.
        url: String,
        /// The date in it.
        until: String,
    },
    /// A signed or hashed file says something that makes no sense.
    #[error("{url} cannot be used: {reason}; try another mirror or suite")]
    Index {
        /// The file.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A download failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file in the cache cannot be read or written.
    #[error("cannot use the cache file {}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A package file cannot be read.
    #[error("cannot read the package {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A package file ends too early.
    #[error("the package {} is truncated; delete it and try again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// A package file is not a Debian package, or a broken or hostile one.
    #[error("the package {} is refused: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No space is left to unpack.
    #[error("no space is left on the disk to unpack {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The package.
        path: PathBuf,
    },
}

impl DebError {
    pub(crate) fn cache(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match is_full(&source) {
            true => Self::Fetch(FetchError::DiskFull { path: path.to_owned() }),
            false => Self::Cache { path: path.to_owned(), source },
        }
    }

    /// Returns whether what came is not what was asked for.
    pub(crate) fn is_about_content(&self) -> bool {
        let Self::Fetch(error) = self else { return false };
        matches!(
            error,
            FetchError::Hash { .. } | FetchError::TooLarge { .. } | FetchError::Short { .. }
        )
    }

    /// Returns whether the server no longer has what was asked for.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Status { status, .. }) if matches!(status.as_u16(), 404 | 410))
    }
}
