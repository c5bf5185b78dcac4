//! Writes a tree as SquashFS 4.0 with zstd (`Documentation/filesystems/squashfs.rst` of the kernel; the format is laid
//! out in `fs/squashfs/squashfs_fs.h`), so that a machine reads files in place instead of unpacking them.
//!
//! ```text
//! superblock ─ data, fragments ─ inodes ─ directories ─ lists: fragments, inodes by number, owners, attributes
//!              (data)            (inode)                (metadata)                             (xattr)
//! ```
//!
//! The same tree gives the same bytes on any host and with any number of threads. Contents are streamed; what is kept
//! in memory grows with the number of files, not with their length.

mod data;
mod inode;
mod metadata;
mod xattr;

use std::fs::File;
use std::io::{self, Seek, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use self::data::{BLOCK, BLOCK_LOG};
use self::metadata::Output;
use crate::tree::{Content, Tree, TreePath};

/// `hsqs`.
const MAGIC: u32 = 0x7371_7368;
const SUPERBLOCK: usize = 96;
/// The compressor's number.
const ZSTD: u16 = 6;
/// Equal files were stored once; inodes can be found by number, which overlayfs needs to recognise files by.
const DUPLICATES: u16 = 0x40;
const EXPORTABLE: u16 = 0x80;
const NO_XATTRS: u16 = 0x200;
/// The file ends at a whole number of pages: loop devices have whole sectors only.
const PAGE: u64 = 4096;

/// How a file system is written. Only `mtime` and `level` decide about its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time of every file, in seconds since 1970.
    pub mtime: u32,
    /// Level of zstd, 1 to 22.
    pub level: i32,
    /// Threads that compress.
    pub threads: NonZero<usize>,
}

impl Options {
    /// Returns level 3 on all processors.
    pub fn new(mtime: u32) -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self { mtime, level: 3, threads }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Length in bytes, a multiple of 4096.
    pub len: u64,
    /// Extended attributes that SquashFS cannot hold, such as `system.posix_acl_access`: how many, and on which file
    /// first.
    pub dropped: Option<(usize, TreePath)>,
}

/// A tree cannot be written as a file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// A hard link leads to nothing, or to a directory.
    #[error("hard link `{path}` leads to `{target}`, which is not a file of the same tree")]
    BrokenLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// The format, or the kernel that reads it, has no room for something.
    #[error("`{path}` cannot be in a packed file system: {problem}")]
    Unfit {
        /// The file.
        path: TreePath,
        /// What is too large.
        problem: &'static str,
    },
    /// The bytes of a file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A block could not be compressed.
    #[error("cannot compress a block of the packed file system")]
    Compress(#[source] io::Error),
    /// The file system could not be written.
    #[error("cannot write the packed file system")]
    Write(#[source] io::Error),
    /// There is more of something than the format can count.
    #[error(
        "there are too many files or owners for one packed file system; use `layout: cpio` for this component"
    )]
    TooMany,
}

/// Writes a tree with the usual [`Options`].
///
/// # Errors
///
/// Fails when a hard link is broken, when something does not fit the format and when bytes cannot be read or written.
pub fn write(
    tree: &Tree,
    mtime: u32,
    out: &mut (impl Write + Seek),
) -> Result<Packed, PackedError> {
    write_with(tree, &Options::new(mtime), out)
}

/// Writes a tree to a file without a name in the given directory, and returns it as what another tree can hold.
///
/// # Errors
///
/// As [`write()`].
pub fn spool(tree: &Tree, options: &Options, dir: &Path) -> Result<(Content, Packed), PackedError> {
    let file = tempfile::tempfile_in(dir).map_err(PackedError::Write)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, &file);
    let packed = write_with(tree, options, &mut out)?;
    out.into_inner().map_err(|error| PackedError::Write(error.into_error()))?;
    Ok((whole(file, packed.len), packed))
}

fn whole(file: File, len: u64) -> Content {
    Content::Span { file: Arc::new(file), offset: 0, len }
}

/// Writes a tree.
///
/// # Errors
///
/// As [`write()`].
pub fn write_with(
    tree: &Tree,
    options: &Options,
    out: &mut (impl Write + Seek),
) -> Result<Packed, PackedError> {
    let Options { mtime, level, threads } = *options;
    let mut out = Output::new(out)?;
    out.write(&[0; SUPERBLOCK])?;
    let data = data::write(tree, level, threads, &mut out)?;
    let tables = inode::write(tree, &data, mtime, level)?;

    let inodes_at = out.written();
    out.write(&tables.inodes)?;
    let directories_at = out.written();
    out.write(&tables.directories)?;
    let fragments: Vec<u8> = data
        .fragments
        .iter()
        .flat_map(|(start, len)| {
            let words = [len.to_le_bytes(), [0; 4]];
            start.to_le_bytes().into_iter().chain(words.into_iter().flatten())
        })
        .collect();
    let fragments_at = out.table(&fragments, level)?;
    let references: Vec<u8> =
        tables.references.iter().flat_map(|reference| reference.to_le_bytes()).collect();
    let by_number_at = out.table(&references, level)?;
    let owners: Vec<u8> = tables.owners.iter().flat_map(|owner| owner.to_le_bytes()).collect();
    let owners_at = out.table(&owners, level)?;
    let dropped = tables.xattrs.dropped().cloned();
    let attributes_at = tables.xattrs.write(&mut out, level)?;
    let end = out.written();
    let gap = usize::try_from(end.next_multiple_of(PAGE) - end).unwrap_or(0);
    out.write(&vec![0; gap])?;
    let len = out.written();

    let count = |n: usize| u32::try_from(n).map_err(|_| PackedError::TooMany);
    let owners = u16::try_from(tables.owners.len()).map_err(|_| PackedError::TooMany)?;
    let flags = DUPLICATES | EXPORTABLE | if attributes_at.is_none() { NO_XATTRS } else { 0 };
    let mut superblock = Vec::with_capacity(SUPERBLOCK);
    let words = [
        MAGIC,
        count(tables.references.len())?,
        mtime,
        count(BLOCK)?,
        count(data.fragments.len())?,
    ];
    superblock.extend(words.into_iter().flat_map(u32::to_le_bytes));
    let halves = [ZSTD, BLOCK_LOG, flags, owners, 4, 0];
    superblock.extend(halves.into_iter().flat_map(u16::to_le_bytes));
    let places = [
        tables.root,
        end,
        owners_at,
        attributes_at.unwrap_or(u64::MAX),
        inodes_at,
        directories_at,
        fragments_at,
        by_number_at,
    ];
    superblock.extend(places.into_iter().flat_map(u64::to_le_bytes));
    out.finish(&superblock)?;
    Ok(Packed { len, dropped })
}

#[cfg(test)]
mod tests;
