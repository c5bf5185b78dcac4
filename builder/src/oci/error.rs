use std::io;
use std::path::PathBuf;

use kiln_types::{Arch, Digest};

use super::registry::RegistryError;

/// An image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// No source has the image, and registries may not be asked.
    #[error(
        "image `{reference}` is neither in {places} nor in the cache, and no registry may be asked; \
         copy it there, or build without --offline"
    )]
    Offline {
        /// The image.
        reference: String,
        /// Where it was looked for.
        places: String,
    },
    /// A registry does not give the image.
    #[error("cannot pull image `{reference}`")]
    Registry {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// The image is there, but for other architectures.
    #[error("image `{reference}` has nothing for {arch}; it is for {}", there.join(", "))]
    NotForArch {
        /// The image.
        reference: String,
        /// What was asked for.
        arch: Arch,
        /// What there is.
        there: Vec<String>,
    },
    /// The image is there, but is not the one that the lock file pins.
    #[error(
        "image `{reference}` is {is} now, and the lock file says {pinned}; `kiln image update` takes what is there"
    )]
    Moved {
        /// The image.
        reference: String,
        /// What it is.
        is: Digest,
        /// What it was.
        pinned: Digest,
    },
    /// What the image consists of makes no sense.
    #[error("image `{reference}` cannot be used: {problem}")]
    Malformed {
        /// The image.
        reference: String,
        /// What is wrong.
        problem: String,
    },
    /// Bytes are not what their digest says.
    #[error(
        "a part of image `{reference}` is {got} where {expected} was promised; it is damaged or was tampered with"
    )]
    Digest {
        /// The image.
        reference: String,
        /// What the bytes are.
        got: Digest,
        /// What they should be.
        expected: Digest,
    },
    /// A folder or archive of images cannot be used.
    #[error("cannot use `{}` as a source of images: {problem}", path.display())]
    Source {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A part of an image that a folder or archive should have is not there.
    #[error("`{}` lacks a part of image `{reference}` ({digest}); copy the image there again", path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// The image.
        reference: String,
        /// The part.
        digest: Digest,
    },
    /// No space is left for an image.
    #[error("no space is left on the disk for image `{reference}` in {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The image.
        reference: String,
        /// The folder.
        path: PathBuf,
    },
    /// A file of the cache cannot be written or read.
    #[error("cannot keep image `{reference}` in {}", path.display())]
    Cache {
        /// The image.
        reference: String,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A registry does not take a version.
    #[error("cannot push to `{reference}`")]
    Push {
        /// Where to.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// What should be pulled into the store is no version of an image.
    #[error(
        "`{reference}` is no image that Kiln has built and pushed; an image of containers is used by `image:` in a \
         specification"
    )]
    NotBuilt {
        /// What was asked for.
        reference: String,
    },
    /// A part of a version cannot be read, or an archive of one not be written.
    #[error("cannot use {}", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A document has no JSON form.
    #[error("cannot write the manifest of a registry")]
    Json(#[source] serde_json::Error),
    /// The image is not signed as the policy wants.
    #[error("image `{reference}` is not trusted: {problem}")]
    Untrusted {
        /// The image.
        reference: String,
        /// What is missing.
        problem: String,
    },
}

impl OciError {
    /// Makes errors about a file of the cache.
    pub(super) fn cache(
        reference: &super::Reference,
        path: &std::path::Path,
    ) -> impl Fn(io::Error) -> Self {
        let (reference, path) = (reference.to_string(), path.to_owned());
        move |source| match crate::disk::is_full(&source) {
            true => Self::DiskFull { reference: reference.clone(), path: path.clone() },
            false => Self::Cache { reference: reference.clone(), path: path.clone(), source },
        }
    }
}
