//! Debian packages: from the mirror of the host's apt configuration to a tree of files.
//!
//! Trust goes down one chain, and each link is checked before anything in it is used: the archive keyring of the
//! host → the signature of `InRelease` → the hash of `Packages` → the hash of each package. Maintainer scripts are
//! never run.
//!
//! What is in the cache is used again without a question where its hash is known, and after asking the mirror whether it
//! has changed where it is an `InRelease`.
//!
//! ```text
//! apt_config → archive (signature, release) → packages → resolve → archive.fetch → unpack → Tree
//! ```

mod apt_config;
mod ar;
mod archive;
mod blocking;
mod chosen;
mod config;
mod error;
mod index_file;
mod kept;
mod layout;
mod open;
mod packages;
mod pool;
mod release;
mod resolve;
mod signature;
mod stanza;
mod suites;
mod unpack;
mod version;

pub use archive::Archive;
pub use config::{ArchiveConfig, Snapshot, Source};
pub use error::DebError;
pub use layout::link_merged_usr;
pub use packages::{Package, PackageIndex, Provided, Relation};
pub use pool::Pool;
pub(crate) use pool::cached;
pub use resolve::ResolveError;
pub(crate) use stanza::field;
pub use unpack::{control, unpack};
pub use version::{Bound, Op, Version};
