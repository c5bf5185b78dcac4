use std::io;
use std::path::PathBuf;

use super::KeyId;

/// Keys cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The folder of the keys cannot be made or used.
    #[error(
        "cannot use `{}` as the folder of the keys; name another one with --key-dir", path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could put a key of their own into the folder.
    #[error(
        "others can write to the folder of the keys `{}` (mode {mode:04o}); run `chmod go-w` on it",
        path.display()
    )]
    FolderOpen {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others can read the private key.
    #[error(
        "others can read the private key `{}` (mode {mode:04o}); run `chmod 600` on it, and `kiln key rotate` if \
         someone may have read it", path.display()
    )]
    KeyOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file cannot be read.
    #[error("cannot read the key `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The private key belongs to someone else.
    #[error(
        "not allowed to read the private key `{}`; build as its owner or as root, or sign with a key of your own: \
         name a folder for it with --key-dir, and let the server trust it with `kiln key trust`", path.display()
    )]
    NotAllowed {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write the key `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no private key.
    #[error("`{}` is not an Ed25519 private key (PKCS#8, PEM); put the right file back", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// A file is no public key.
    #[error(
        "`{}` is not an Ed25519 public key (PEM); make it with `kiln key export` where images are built",
        path.display()
    )]
    NotPublic {
        /// The file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("the operating system gives no random numbers to make a key from")]
    Random,
    /// There is no such trusted key.
    #[error("no trusted key is called `{id}`; `kiln key list` shows them all")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// The site's own key cannot be taken away.
    #[error("{id} is this site's own key; `kiln key rotate` replaces it")]
    Own {
        /// The key.
        id: KeyId,
    },
    /// A part of a version cannot be stored.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A document has no JSON form.
    #[error("cannot write the signature")]
    Json(#[from] serde_json::Error),
    /// What should be signed is damaged.
    #[error("the version {version} is not signed, for it is damaged: {problem}")]
    NotWhole {
        /// The version.
        version: kiln_types::Digest,
        /// What is wrong.
        problem: String,
    },
}

/// A version is not signed as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is no signature.
    #[error(
        "it is not signed; `kiln image sign` signs what was built here, and `kiln build` all that it builds anew"
    )]
    Unsigned,
    /// The signature cannot be read.
    #[error("its signature cannot be read ({0}); sign it again with `kiln image sign`")]
    Unreadable(String),
    /// The signature is no JSON document of ours.
    #[error("its signature is not a signature of a manifest ({0})")]
    Malformed(String),
    /// The signature is of a kind that this program does not know.
    #[error("its signature is of the kind `{0}`, which this program does not know")]
    Algorithm(String),
    /// Nobody trusts the key.
    #[error(
        "it is signed by the key {0}, which is not trusted here; if it should be, run `kiln key trust` with its \
         public key"
    )]
    Untrusted(KeyId),
    /// The signature is of something else.
    #[error(
        "its signature by the key {0} does not fit: the manifest or the signature was changed after it was signed"
    )]
    Wrong(KeyId),
}
