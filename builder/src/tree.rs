//! A tree of files in memory, whose contents stay on disk: what packages and specifications are turned into, and
//! what initrd segments are written from.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use serde::Deserialize;

/// The longest path, in bytes: `PATH_MAX` without its NUL.
const MAX_PATH: usize = 4095;

/// Files by path. Paths are relative, without `.` or `..`, and separated by `/`; the root is not in the map.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

/// A clean relative path inside a tree: no empty, `.` or `..` parts, no NUL, at most 4095 bytes (`PATH_MAX`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
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

/// The text is not a path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path inside an image: {problem}")]
pub struct TreePathError {
    path: String,
    problem: &'static str,
}

impl TreePath {
    /// Cleans a path: a leading `/` or `./`, `.` parts, doubled and trailing slashes are dropped.
    ///
    /// # Errors
    ///
    /// Fails when nothing is left, when a part is `..`, when there is a NUL or when it is too long.
    pub fn new(path: &str) -> Result<Self, TreePathError> {
        let fail = |problem| TreePathError { path: path.chars().take(200).collect(), problem };
        if path.contains('\0') {
            return Err(fail("it contains a NUL byte"));
        }
        let mut clean = String::with_capacity(path.len().min(MAX_PATH));
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(fail("`..` could lead out of it"));
            }
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.push_str(part);
        }
        match clean.len() {
            0 => Err(fail("it names the root itself")),
            1..=MAX_PATH => Ok(Self(clean)),
            _ => Err(fail("it is longer than 4095 bytes")),
        }
    }

    /// Returns the path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the directory that holds it, or nothing when that is the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Returns the last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Returns this path below another one.
    ///
    /// # Errors
    ///
    /// Fails when the two together are too long.
    pub fn below(&self, base: &Self) -> Result<Self, TreePathError> {
        Self::new(&format!("{base}/{self}"))
    }
}

impl TryFrom<String> for TreePath {
    type Error = TreePathError;

    fn try_from(path: String) -> Result<Self, TreePathError> {
        Self::new(&path)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Node {
    /// Returns a node that belongs to root.
    pub const fn new(mode: u32, kind: Kind) -> Self {
        Self { mode, uid: 0, gid: 0, kind }
    }

    /// Returns a directory of root with mode 0755.
    pub const fn dir() -> Self {
        Self::new(0o755, Kind::Dir)
    }

    /// Returns a file of root with these bytes.
    pub fn file(mode: u32, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::new(mode, Kind::File(Content::Bytes(bytes.into())))
    }

    /// Returns a symbolic link of root.
    pub fn symlink(target: impl Into<String>) -> Self {
        Self::new(0o777, Kind::Symlink(target.into()))
    }
}

impl Tree {
    /// Returns a tree with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a node at a path and returns what was there. Directories above it that are missing are made, 0755 and
    /// root's. A directory over a directory takes its owner and mode and keeps what is below; anything else over a
    /// directory, and a directory above that is something else, replace it with all that it held.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Option<Node> {
        let mut above = path.parent();
        while let Some(dir) = above {
            match self.nodes.get(&dir) {
                Some(Node { kind: Kind::Dir, .. }) => break,
                _ => self.nodes.insert(dir.clone(), Node::dir()),
            };
            above = dir.parent();
        }
        if matches!(self.nodes.get(&path), Some(Node { kind: Kind::Dir, .. }))
            && !matches!(node.kind, Kind::Dir)
        {
            self.remove_below(&path);
        }
        self.nodes.insert(path, node)
    }

    /// Returns the node at a path. Symbolic links are not followed.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Returns the tree's own path and node at a path.
    pub(crate) fn iter_at(&self, path: &TreePath) -> Option<(&TreePath, &Node)> {
        self.nodes.get_key_value(path)
    }

    /// Returns whether there is a node at a path. Symbolic links are not followed.
    pub fn contains(&self, path: &TreePath) -> bool {
        self.nodes.contains_key(path)
    }

    /// Takes a node out, and everything below it.
    pub fn remove(&mut self, path: &TreePath) -> Option<Node> {
        self.remove_below(path);
        self.nodes.remove(path)
    }

    /// Puts every node of another tree into this one, over what is here.
    pub fn merge(&mut self, other: Self) {
        for (path, node) in other.nodes {
            self.insert(path, node);
        }
    }

    /// Returns every path and node, sorted by path, so that a directory comes before what it holds.
    pub fn iter(&self) -> btree_map::Iter<'_, TreePath, Node> {
        self.nodes.iter()
    }

    /// Returns how many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the bytes of a file, following a hard link.
    pub fn content(&self, path: &TreePath) -> Option<&Content> {
        match &self.get(path)?.kind {
            Kind::File(content) => Some(content),
            Kind::Hardlink(target) => match &self.get(target)?.kind {
                Kind::File(content) => Some(content),
                _ => None,
            },
            _ => None,
        }
    }

    fn remove_below(&mut self, path: &TreePath) {
        // `/` sorts after `-` and `.`, so what is below is one range that begins with the path and a slash.
        let first = TreePath(format!("{path}/"));
        let end = TreePath(format!("{path}0"));
        let below: Vec<_> = self.nodes.range(first..end).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }
}

impl<'a> IntoIterator for &'a Tree {
    type Item = (&'a TreePath, &'a Node);
    type IntoIter = btree_map::Iter<'a, TreePath, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Tree {
    type Item = (TreePath, Node);
    type IntoIter = btree_map::IntoIter<TreePath, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.nodes.into_iter()
    }
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

    /// Returns a reader from the beginning.
    pub const fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, pos: 0 }
    }

    /// Reads everything into memory.
    ///
    /// # Errors
    ///
    /// Fails when there is more than `limit`, or when the file below cannot be read.
    pub fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len() > limit {
            return Err(io::Error::other(format!(
                "{} bytes where at most {limit} fit",
                self.len()
            )));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.reader(), &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a [`Content`] from its beginning to its end.
#[derive(Debug)]
pub struct ContentReader<'a> {
    content: &'a Content,
    pos: u64,
}

impl io::Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read_at(buffer, self.pos)?;
        if n == 0 && !buffer.is_empty() && self.pos < self.content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pos += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> TreePath {
        TreePath::new(s).unwrap()
    }

    #[test]
    fn paths_are_cleaned_and_never_leave_the_tree() {
        assert_eq!(path("./usr//bin/./sh/").as_str(), "usr/bin/sh");
        assert_eq!(path("/etc").parent(), None);
        assert_eq!(path("a/b").parent(), Some(path("a")));
        for bad in ["", "/", ".", "..", "a/../b", "a\0", &"a".repeat(4096)] {
            assert!(TreePath::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_replaces_a_directory_takes_away_all_it_held_and_nothing_beside_it() {
        let mut tree = Tree::new();
        for file in ["a/b/c", "a-b/c", "a.b", "a0", "a/d"] {
            tree.insert(path(file), Node::file(0o644, *b"x"));
        }
        tree.insert(path("a"), Node::symlink("a-b"));
        let left: Vec<_> = tree.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(left, ["a", "a-b", "a-b/c", "a.b", "a0"]);
    }

    #[test]
    fn directories_above_are_made_and_known_ones_keep_their_mode() {
        let mut tree = Tree::new();
        tree.insert(path("tmp"), Node::new(0o1777, Kind::Dir));
        tree.insert(path("tmp/x/y"), Node::file(0o600, *b""));
        let modes: Vec<_> = tree.iter().map(|(p, n)| (p.as_str(), n.mode)).collect();
        assert_eq!(modes, [("tmp", 0o1777), ("tmp/x", 0o755), ("tmp/x/y", 0o600)]);
    }

    #[test]
    fn a_file_shorter_than_promised_is_an_error_not_a_short_read() {
        let content =
            Content::Span { file: Arc::new(tempfile::tempfile().unwrap()), offset: 0, len: 3 };
        assert_eq!(content.read_all(10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
