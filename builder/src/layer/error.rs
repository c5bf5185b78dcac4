use std::io;
use std::path::{Path, PathBuf};

use kiln_types::Digest;

use crate::disk::is_full;
use crate::oci::LayerFile;

/// Layers cannot be made into a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The file that has the layer cannot be read.
    #[error("cannot read layer {layer} from {}", path.display())]
    Read {
        /// The layer.
        layer: Digest,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer ends before its archive does.
    #[error("layer {layer} ends early; delete {} and try again", path.display())]
    Truncated {
        /// The layer.
        layer: Digest,
        /// The file.
        path: PathBuf,
    },
    /// The layer as a whole is damaged or too much.
    #[error("layer {layer} is refused: {reason}")]
    Malformed {
        /// The layer.
        layer: Digest,
        /// What is wrong.
        reason: String,
    },
    /// One entry of the layer is damaged, hostile or too much.
    #[error("layer {layer} is refused: `{entry}` {reason}")]
    Entry {
        /// The layer.
        layer: Digest,
        /// The entry's name, cut and without control characters.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive in the layer is not the one that the image's configuration names.
    #[error(
        "layer {layer} is refused: it unpacks to {got}, but the image's configuration says {want}"
    )]
    DiffId {
        /// The layer.
        layer: Digest,
        /// What the configuration says.
        want: Digest,
        /// What was found.
        got: Digest,
    },
    /// No space is left for the contents; nothing of them is left.
    #[error(
        "no space is left on the disk for the contents of layer {layer} in {}; free some or choose another directory", dir.display()
    )]
    DiskFull {
        /// The layer.
        layer: Digest,
        /// The directory.
        dir: PathBuf,
    },
    /// The contents cannot be kept.
    #[error("cannot keep contents of layers in {}", dir.display())]
    Spool {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What can go wrong inside a layer, where its name is not known.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Truncated,
    Malformed(String),
    Entry { entry: String, reason: String },
    DiffId(Digest),
    Spool(io::Error),
}

impl Fault {
    pub(super) fn entry(name: &[u8], reason: impl Into<String>) -> Self {
        let name = String::from_utf8_lossy(name);
        let entry = name.chars().take(200).flat_map(char::escape_default).collect();
        Self::Entry { entry, reason: reason.into() }
    }

    /// An error from reading through a decoder: of the system, or of the data.
    pub(super) fn data(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ if error.raw_os_error().is_some() => Self::Read(error),
            _ => Self::Malformed(format!("its data is broken ({error})")),
        }
    }

    pub(super) fn into_error(self, file: &LayerFile, dir: &Path) -> LayerError {
        let (layer, path, dir) = (file.layer.digest, || file.path.clone(), dir.to_owned());
        match self {
            Self::Read(source) => LayerError::Read { layer, path: path(), source },
            Self::Truncated => LayerError::Truncated { layer, path: path() },
            Self::Malformed(reason) => LayerError::Malformed { layer, reason },
            Self::Entry { entry, reason } => LayerError::Entry { layer, entry, reason },
            Self::DiffId(got) => LayerError::DiffId { layer, want: file.layer.diff_id, got },
            Self::Spool(source) if is_full(&source) => LayerError::DiskFull { layer, dir },
            Self::Spool(source) => LayerError::Spool { dir, source },
        }
    }
}
