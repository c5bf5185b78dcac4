//! A tree of files in memory, whose contents stay on disk: what packages and specifications are turned into, and
//! what initrd segments are written from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Files by path. Paths are relative, without `.` or `..`, and separated by `/`; the root is not in the map.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}
/// A clean relative path inside a tree: no empty, `.` or `..` parts, no NUL, at most 4095 bytes (`PATH_MAX`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);
/// One file, directory, link or device.
#[derive(Clone, Debug)]
pub struct Node {
    /// Permission bits, including set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
}
/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, as written.
    Symlink(String),
    /// Another name of a regular file in the same tree.
    Hardlink(TreePath),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}
/// Bytes of a regular file.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory: small things that Kiln makes itself.
    Bytes(Arc<[u8]>),
    /// A part of an open file, such as an unpacked package.
    Span {
        /// The file. It may have been unlinked.
        file: Arc<File>,
        /// Where the bytes begin.
        offset: u64,
        /// How many there are.
        len: u64,
    },
}
impl Content {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Span { len, .. } => *len,
        }
    }
    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads at `pos`, which counts from the beginning of the content. Returns 0 at its end.
    ///
    /// # Errors
    ///
    /// Fails when the file below cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], pos: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(pos)).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let (buffer, _) = buffer.split_at_mut(want);
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(pos).unwrap_or(usize::MAX).min(bytes.len());
                buffer.copy_from_slice(&bytes[start..start + want]);
                Ok(want)
            }
            Self::Span { file, offset, .. } => file.read_at(buffer, offset + pos),
        }
    }
}
