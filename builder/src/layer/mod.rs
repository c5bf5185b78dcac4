//! Layers of OCI images, laid over each other into one tree (OCI image specification, "Image Layer Filesystem
//! Changeset").
//!
//! ```text
//! layer file ─► stream: decompress, hash, spool ─► entry: tar ─► overlay: whiteouts, links ─► Tree
//! ```
//!
//! A layer comes from anywhere. Nothing is ever created under a name that it gives: the archive goes into one unlinked
//! file as it is, and the tree points into it.

mod apk;
mod entry;
mod error;
mod filter;
mod overlay;
mod sparse;
mod stream;
mod whole;

use std::path::Path;

pub use self::apk::ApkDatabases;
pub use self::error::LayerError;
pub use self::filter::{for_container, for_init};

use self::entry::Entry;
use self::error::Fault;
use self::overlay::Overlay;
use self::stream::{Spool, Stream};
use crate::oci::LayerFile;
use crate::tree::Tree;

/// What the layers of one image may cost altogether. The defaults are far beyond images that anyone boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most entries of the archives, and the most nodes that they make.
    pub files: usize,
    /// The most bytes that the archives have when decompressed, holes of sparse files included. They stay on disk.
    pub bytes: u64,
    /// How many times its own size a layer may grow when decompressed, once it is beyond 64 MiB.
    pub ratio: u64,
    /// The most directories above a file, the root not counted.
    pub path_depth: usize,
    /// The most bytes of names, link targets and extended attributes: they are kept in memory.
    pub names: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 1_000_000, bytes: 32 << 30, ratio: 250, path_depth: 128, names: 256 << 20 }
    }
}

/// Lays the layers over each other, the first one at the bottom. Contents stay in unlinked files in the directory.
///
/// Each layer is read once, and its `diff_id` is checked; the digest of the compressed bytes is taken for granted.
/// What a path leads through is resolved inside the tree, as container runtimes do. It blocks, and uses one thread.
///
/// # Errors
///
/// Fails when a layer cannot be read, is damaged, beyond the limits or tries to leave its tree, and when the disk is
/// full. Nothing is left behind then.
pub fn flatten(
    layers: &[LayerFile],
    limits: &Limits,
    spool_dir: &Path,
) -> Result<Tree, LayerError> {
    let mut spool = Spool::new(spool_dir)
        .map_err(|source| LayerError::Spool { dir: spool_dir.to_owned(), source })?;
    let mut overlay = Overlay::new(limits);
    for layer in layers {
        apply(layer, limits, &mut spool, &mut overlay)
            .map_err(|fault| fault.into_error(layer, spool_dir))?;
    }
    Ok(overlay.into_tree())
}

fn apply(
    layer: &LayerFile,
    limits: &Limits,
    spool: &mut Spool,
    overlay: &mut Overlay<'_>,
) -> Result<(), Fault> {
    overlay.next_layer();
    let mut stream = Stream::open(layer, limits, spool)?;
    while let Some(entry) = Entry::read(&mut stream)? {
        let name = entry.name.clone();
        overlay.add(entry).map_err(|reason| Fault::entry(&name, reason))?;
    }
    let got = stream.finish()?;
    match got == layer.layer.diff_id {
        true => Ok(()),
        false => Err(Fault::DiffId(got)),
    }
}

#[cfg(test)]
mod archive;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
