use std::io;
use std::path::{Path, PathBuf};

use kiln_types::Digest;

use crate::disk::is_full;
use crate::manifest::ManifestError;

/// The store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory could not be made or used.
    #[error("cannot use `{path}` as a store")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written; nothing of it is left.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No space is left for a file; nothing of it is left.
    #[error("no space is left on the disk for {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The file or directory.
        path: PathBuf,
    },
    /// The store cannot be changed.
    #[error("`{}` is on a file system that is read-only; choose another store with --store", path.display())]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("`{path}` is damaged; remove it and build the image again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, where that is known.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// There is no such image, architecture, channel or version.
    #[error("there is no {what} in the store `{}`", store.display())]
    Unknown {
        /// What was asked for.
        what: String,
        /// The store.
        store: PathBuf,
    },
    /// A version was to be published whose parts are not all there.
    #[error("artifact {artifact} of version {version} is missing; build the image again")]
    Incomplete {
        /// The version.
        version: Digest,
        /// What is missing.
        artifact: Digest,
    },
    /// A manifest cannot be read.
    #[error("cannot read the manifest `{path}`")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

impl StoreError {
    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            _ if is_full(&source) => Self::DiskFull { path: path.to_owned() },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path: path.to_owned() },
            _ => Self::Write { path: path.to_owned(), source },
        }
    }
}
