//! Turns a tree into a segment of an initrd: an archive, compressed and stored while it is written.

use std::io::{self, Write};
use std::path::PathBuf;

use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use crate::compress::{self, Encoder};
use crate::cpio::{self, CpioError};
use crate::disk::is_full;
use crate::manifest::{SegmentCompression, SegmentEntry};
use crate::store::{ArtifactWriter, Store, StoreError};
use crate::tree::{Content, Kind, Tree, TreePath};

/// The kernel looks for an archive at every multiple of four and skips zeros before it.
const ALIGNMENT: u64 = 4;

/// A segment could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The tree could not be archived.
    #[error("cannot archive `{component}`")]
    Archive {
        /// The component.
        component: String,
        /// Why.
        #[source]
        source: CpioError,
    },
    /// The archive could not be compressed.
    #[error("cannot compress `{component}`")]
    Compress {
        /// The component.
        component: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No space is left for the segment; nothing of it is left.
    #[error(
        "no space is left on the disk for `{component}` in {}; free some or choose another directory", dir.display()
    )]
    DiskFull {
        /// The component.
        component: String,
        /// The store.
        dir: PathBuf,
    },
    /// The segment could not be stored.
    #[error("cannot store `{component}`")]
    Store {
        /// The component.
        component: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// How segments are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The time of all files, in seconds since 1970.
    pub mtime: u32,
    /// How they are compressed.
    pub compression: SegmentCompression,
    /// How well, in zstd's levels.
    pub level: i32,
    /// Whether each ends with a file by which kiln-init sees that it is there to its end.
    pub marked: bool,
}

impl Default for Packing {
    fn default() -> Self {
        Self { mtime: 0, compression: SegmentCompression::Zstd, level: 3, marked: false }
    }
}

/// What is remembered of a segment under the digest of its inputs.
#[derive(Serialize, Deserialize)]
struct Remembered {
    digest: Digest,
    size: u64,
    unpacked: u64,
    compression: SegmentCompression,
    /// Its directories for which it says owner and mode, those of containers and volumes left out.
    #[serde(default)]
    directories: Vec<String>,
}

/// Where containers and volumes are: no other component puts anything there.
const CONTAINERS: &str = "containers/";

/// Returns the segment that was made from the same inputs before, if it is still there.
pub fn find(store: &Store, component: &str, key: &Digest) -> Option<SegmentEntry> {
    let Remembered { digest, size, unpacked, compression, .. } = store.remembered(key)?;
    store.holds(&digest, size).then(|| SegmentEntry {
        component: component.to_owned(),
        digest,
        size,
        unpacked,
        compression,
    })
}

/// Returns the directories for whose owner and mode the segment that is remembered under a key speaks, those of
/// containers and volumes left out.
pub fn directories(store: &Store, key: &Digest) -> Vec<String> {
    store.remembered(key).map(|known: Remembered| known.directories).unwrap_or_default()
}

/// Where the marks of segments are.
pub const MARKS: &str = ".kiln/parts";

/// Returns the name of the mark at the end of the segment with this key: half of it, which no other segment has.
pub fn mark(key: &Digest) -> String {
    key.hex().chars().take(32).collect()
}

/// Archives, compresses and stores a tree. It is remembered under the key.
///
/// # Errors
///
/// Fails when the tree cannot be archived or the segment cannot be stored.
pub fn write(
    store: &Store,
    component: &str,
    key: &Digest,
    tree: &Tree,
    packing: Packing,
) -> Result<SegmentEntry, SegmentError> {
    pack(store, component, key, tree, packing)?.commit()
}

/// A segment that is compressed, but not durable yet. It is gone again when it is dropped.
pub(crate) struct Packed<'a> {
    store: &'a Store,
    component: String,
    key: Digest,
    writer: ArtifactWriter<'a>,
    unpacked: u64,
    compression: SegmentCompression,
    directories: Vec<String>,
}

/// Does the part of [`write`] that takes a processor rather than a disk.
pub(crate) fn pack<'a>(
    store: &'a Store,
    component: &str,
    key: &Digest,
    tree: &Tree,
    packing: Packing,
) -> Result<Packed<'a>, SegmentError> {
    let component = component.to_owned();
    let compress = |source: io::Error| match is_full(&source) {
        true => full(store, &component),
        false => SegmentError::Compress { component: component.clone(), source },
    };
    let archive = |source| match source {
        CpioError::Member { source, .. } | CpioError::End(source) if is_full(&source) => {
            full(store, &component)
        }
        source => SegmentError::Archive { component: component.clone(), source },
    };
    let (_turn, workers) = compress::turn();
    let writer = store.writer().map_err(|source| not_stored(store, &component, source))?;
    let out = Encoder::new(writer, packing, bytes(tree), workers).map_err(compress)?;
    let mut buffered = io::BufWriter::with_capacity(1 << 17, out);
    let mark = packing.marked.then(|| TreePath::new(&format!("{MARKS}/{}", mark(key))));
    let mark = mark.transpose().map_err(|source| compress(io::Error::other(source)))?;
    let unpacked = cpio::write_with_mark(tree, packing.mtime, mark.as_ref(), &mut buffered)
        .map_err(archive)?;
    buffered.flush().map_err(compress)?;
    let out = buffered.into_inner().map_err(|e| compress(e.into_error()))?;
    let mut writer = out.finish().map_err(compress)?;
    writer.pad(ALIGNMENT).map_err(compress)?;
    let directories = tree
        .iter()
        .filter(|(path, node)| matches!(node.kind, Kind::Dir) && !tree.is_implied(path))
        .map(|(path, _)| path.as_str().to_owned())
        .filter(|path| !path.starts_with(CONTAINERS))
        .collect();
    let compression = packing.compression;
    Ok(Packed { store, component, key: *key, writer, unpacked, compression, directories })
}

impl Packed<'_> {
    /// Stores and remembers it.
    pub(crate) fn commit(self) -> Result<SegmentEntry, SegmentError> {
        let Self { store, component, key, writer, unpacked, compression, directories } = self;
        let failed = |source| not_stored(store, &component, source);
        let (digest, size) = writer.commit().map_err(failed)?;
        let remembered = Remembered { digest, size, unpacked, compression, directories };
        store.remember(&key, &remembered).map_err(failed)?;
        Ok(SegmentEntry { component, digest, size, unpacked, compression })
    }
}

fn full(store: &Store, component: &str) -> SegmentError {
    SegmentError::DiskFull { component: component.to_owned(), dir: store.dir().to_owned() }
}

fn not_stored(store: &Store, component: &str, source: StoreError) -> SegmentError {
    match source {
        StoreError::DiskFull { .. } => full(store, component),
        source => SegmentError::Store { component: component.to_owned(), source },
    }
}

/// Returns how many bytes the files of a tree have: about as many as its archive.
fn bytes(tree: &Tree) -> u64 {
    let files = tree.iter().filter_map(|(_, node)| match &node.kind {
        Kind::File(content) => Some(content.len()),
        _ => None,
    });
    files.sum()
}

/// Stores an archive as it is: one that must not be compressed, such as processor microcode.
///
/// # Errors
///
/// Fails when it cannot be read or stored.
pub fn write_raw(
    store: &Store,
    component: &str,
    content: &Content,
) -> Result<SegmentEntry, SegmentError> {
    let owned = || component.to_owned();
    let stored = |source| SegmentError::Store { component: owned(), source };
    let failed = |source| SegmentError::Compress { component: owned(), source };
    let mut writer = store.writer().map_err(stored)?;
    let unpacked = io::copy(&mut content.reader(), &mut writer).map_err(failed)?;
    writer.pad(ALIGNMENT).map_err(failed)?;
    let (digest, size) = writer.commit().map_err(stored)?;
    let compression = SegmentCompression::None;
    Ok(SegmentEntry { component: owned(), digest, size, unpacked, compression })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::hash::sha256;
    use crate::tree::{Node, TreePath};

    #[test]
    fn a_full_disk_is_told_in_one_sentence_and_leaves_nothing_behind() {
        crate::disk::with_small_disk(1 << 20, |dir| {
            let store = Store::open(dir).unwrap();
            // Nothing that can be compressed.
            let noise: Vec<u8> = (0..2_u32 << 16)
                .flat_map(|n| sha256(&n.to_le_bytes()).as_bytes()[..16].to_vec())
                .collect();
            let mut tree = Tree::new();
            tree.insert(TreePath::new("noise").unwrap(), Node::file(0o644, noise.clone()));
            let key = sha256(b"key");
            let text =
                write(&store, "web", &key, &tree, Packing::default()).unwrap_err().to_string();
            assert!(text.starts_with("no space is left on the disk for `web` in "), "{text}");
            assert_eq!(find(&store, "web", &key), None);
            assert!(matches!(store.put(&noise), Err(StoreError::DiskFull { .. })));
            for files in [store.tmp_dir(), store.dir().join("blobs/sha256")] {
                assert_eq!(std::fs::read_dir(files).unwrap().count(), 0);
            }
        });
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_in_any_store() {
        let mut tree = Tree::new();
        for n in 0..100 {
            let path = TreePath::new(&format!("dir/{n}")).unwrap();
            tree.insert(path, Node::file(0o644, vec![n; 10_000]));
        }
        let key = sha256(b"key");
        let build = || {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let entry = write(&store, "x", &key, &tree, Packing::default()).unwrap();
            assert_eq!(find(&store, "x", &key), Some(entry.clone()));
            let bytes = std::fs::read(store.artifact(&entry.digest)).unwrap();
            (entry, bytes)
        };
        let (first, second) = (build(), build());
        assert_eq!(first, second);
        assert_eq!(first.1.len() % 4, 0);
        let mut unpacked = Vec::new();
        let mut frame = zstd::Decoder::new(&first.1[..]).unwrap().single_frame();
        frame.read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked.len() as u64, first.0.unpacked);
        assert!(unpacked.starts_with(b"070701"));
    }

    /// A segment of a tree in a store of its own: what is stored, and what that unpacks to by itself.
    fn segment_of(tree: &Tree, compression: SegmentCompression) -> (SegmentEntry, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let packing = Packing { compression, ..Packing::default() };
        let entry = write(&store, "x", &sha256(b"key"), tree, packing).unwrap();
        let bytes = std::fs::read(store.artifact(&entry.digest)).unwrap();
        (entry, bytes)
    }

    #[test]
    fn every_compression_gives_the_same_archive_and_ends_at_a_multiple_of_four() {
        for len in 0..5 {
            let mut tree = Tree::new();
            let path = TreePath::new("file").unwrap();
            tree.insert(path, Node::file(0o644, vec![7_u8; 1000 * len + len]));
            let (plain, archive) = segment_of(&tree, SegmentCompression::None);
            assert_eq!(plain.unpacked, archive.len() as u64);
            let (gzip, bytes) = segment_of(&tree, SegmentCompression::Gzip);
            let mut unpacked = Vec::new();
            flate2::bufread::GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == archive, "gzip of {len}");
            let (zstd, bytes) = segment_of(&tree, SegmentCompression::Zstd);
            let mut unpacked = Vec::new();
            let mut frame = zstd::Decoder::new(&bytes[..]).unwrap().single_frame();
            frame.read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == archive, "zstd of {len}");
            for entry in [plain, gzip, zstd] {
                assert_eq!((entry.size % 4, entry.unpacked), (0, archive.len() as u64));
            }
        }
    }

    #[test]
    fn a_mark_comes_after_everything_else_and_has_the_name_of_the_key() {
        let mut tree = Tree::new();
        for path in ["a", "zz", "~"] {
            tree.insert(TreePath::new(path).unwrap(), Node::file(0o644, *b"x"));
        }
        let (dir, key) = (tempfile::tempdir().unwrap(), sha256(b"key"));
        let store = Store::open(dir.path()).unwrap();
        let none = SegmentCompression::None;
        let packing = Packing { compression: none, marked: true, ..Packing::default() };
        let entry = write(&store, "x", &key, &tree, packing).unwrap();
        let bytes = std::fs::read(store.artifact(&entry.digest)).unwrap();
        assert_eq!(entry.unpacked, bytes.len() as u64);
        let name = format!(".kiln/parts/{}\0", &key.hex().to_string()[..32]);
        let text = String::from_utf8_lossy(&bytes);
        let after = text.split_once(&name).unwrap().1;
        assert!(
            after.trim_start_matches('\0').starts_with("070701") && after.contains("TRAILER!!!")
        );
        assert!(text.find("~\0").unwrap() < text.find(&name).unwrap());
        assert_eq!(after.matches("070701").count(), 1, "something comes after the mark");
    }

    #[test]
    fn gzip_says_neither_when_nor_where_it_was_made() {
        let mut tree = Tree::new();
        tree.insert(TreePath::new("file").unwrap(), Node::file(0o644, vec![7; 10_000]));
        let (entry, bytes) = segment_of(&tree, SegmentCompression::Gzip);
        // RFC 1952 §2.3: no name and no comment, time 0, system 255, "unknown".
        assert_eq!(bytes[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[9], 255);
        assert_eq!(segment_of(&tree, SegmentCompression::Gzip), (entry, bytes));
    }

    #[test]
    fn an_archive_that_is_stored_as_it_is_is_only_padded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = Content::Bytes((*b"070701 microcode").into());
        let entry = write_raw(&store, "ucode", &content).unwrap();
        assert_eq!((entry.size, entry.compression), (16, SegmentCompression::None));
        let content = Content::Bytes((*b"070701 microcode!").into());
        let entry = write_raw(&store, "ucode", &content).unwrap();
        let bytes = std::fs::read(store.artifact(&entry.digest)).unwrap();
        assert_eq!((bytes.as_slice(), entry.unpacked), (&b"070701 microcode!\0\0\0"[..], 17));
    }
}
