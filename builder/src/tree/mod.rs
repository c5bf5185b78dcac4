//! A tree of files in memory, whose contents stay on disk: what packages and specifications are turned into, and
//! what initrd segments are written from.

mod content;
mod path;
mod xattrs;

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

pub use self::content::{Content, ContentReader};
pub use self::path::{TreePath, TreePathError};
pub use self::xattrs::Xattrs;

/// Files by path. Paths are relative, without `.` or `..`, and separated by `/`; the root is not in the map.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
    /// Directories that nobody put in, but something below them.
    implied: BTreeSet<TreePath>,
}

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
    /// Extended attributes, such as file capabilities. The names of one file share them: those of a hard link do not
    /// count.
    pub xattrs: Xattrs,
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

impl Node {
    /// Returns a node that belongs to root.
    pub const fn new(mode: u32, kind: Kind) -> Self {
        Self { mode, uid: 0, gid: 0, kind, xattrs: Xattrs::new() }
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
                _ => {
                    self.implied.insert(dir.clone());
                    self.nodes.insert(dir.clone(), Node::dir());
                }
            }
            above = dir.parent();
        }
        if matches!(self.nodes.get(&path), Some(Node { kind: Kind::Dir, .. }))
            && !matches!(node.kind, Kind::Dir)
        {
            self.remove_below(&path);
        }
        if !self.implied.is_empty() {
            self.implied.remove(&path);
        }
        self.nodes.insert(path, node)
    }

    /// Puts a directory in of which nothing is sure but that something lies below it: where this tree is laid over
    /// another one that has it, it leaves that one's owner and mode. What is here stays.
    pub fn imply(&mut self, path: &TreePath, node: Node) {
        if !self.get(path).is_some_and(|node| matches!(node.kind, Kind::Dir)) {
            self.insert(path.clone(), node);
            self.implied.insert(path.clone());
        }
    }

    /// Takes directories out that are implied and that something else brings for sure. What lies below them stays.
    pub(crate) fn leave_out_implied(&mut self, brought: impl Fn(&TreePath) -> bool) {
        let (implied, nodes) = (&mut self.implied, &mut self.nodes);
        implied.retain(|path| {
            let leave = brought(path);
            if leave {
                nodes.remove(path);
            }
            !leave
        });
    }

    /// Returns whether a directory is here only because something lies below it: nothing is known of its owner and
    /// mode.
    pub fn is_implied(&self, path: &TreePath) -> bool {
        self.implied.contains(path)
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
        self.implied.remove(path);
        self.nodes.remove(path)
    }

    /// Takes nodes out, with all that is below them. Where one of them has the content of a hard link that stays, the
    /// first such link becomes the file.
    pub(crate) fn remove_keeping_links(&mut self, gone: &[TreePath]) {
        let goes = |path: &TreePath| {
            let mut above = std::iter::successors(Some(path.clone()), TreePath::parent);
            above.any(|path| gone.contains(&path))
        };
        let stays = |(path, node): (&TreePath, &Node)| match &node.kind {
            Kind::Hardlink(target) if goes(target) && !goes(path) => {
                Some((path.clone(), target.clone()))
            }
            _ => None,
        };
        let links: Vec<_> = self.nodes.iter().filter_map(stays).collect();
        let mut firsts = BTreeMap::new();
        for (path, target) in links {
            let first = firsts.entry(target.clone()).or_insert_with(|| path.clone()).clone();
            let file = self.nodes.get(&target).cloned();
            let Some(node) = self.nodes.get_mut(&path) else { continue };
            match file {
                Some(file) if first == path => *node = file,
                _ => node.kind = Kind::Hardlink(first),
            }
        }
        for path in gone {
            self.remove(path);
        }
    }

    /// Makes a tree of nodes, among which every directory must be that another one lies in.
    pub(crate) fn from_nodes(nodes: Vec<(TreePath, Node)>) -> Self {
        Self { nodes: nodes.into_iter().collect(), implied: BTreeSet::new() }
    }

    /// Puts every node of another tree into this one, over what is here. Directories that are implied there leave
    /// those that are here as they are.
    pub fn merge(&mut self, other: Self) {
        for (path, node) in other.nodes {
            let is_dir = |node: &Node| matches!(node.kind, Kind::Dir);
            if other.implied.contains(&path) {
                if !self.get(&path).is_some_and(is_dir) {
                    self.insert(path.clone(), node);
                    self.implied.insert(path);
                }
            } else {
                self.insert(path, node);
            }
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
        let (first, end) = path.range_below();
        let below: Vec<_> = self.nodes.range(first..end).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.implied.remove(&path);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> TreePath {
        TreePath::new(s).unwrap()
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
        assert!(tree.is_implied(&path("tmp/x")) && !tree.is_implied(&path("tmp")));
        let mut other = Tree::new();
        other.insert(path("tmp/x/z"), Node::file(0o600, *b""));
        other.insert(path("new/z"), Node::file(0o600, *b""));
        tree.merge(other);
        assert_eq!(tree.get(&path("tmp")).unwrap().mode, 0o1777);
        assert!(tree.is_implied(&path("new")) && !tree.is_implied(&path("tmp")));
        tree.remove(&path("new"));
        tree.insert(path("tmp/x"), Node::dir());
        assert!(!tree.is_implied(&path("tmp/x")) && !tree.is_implied(&path("new")));
    }
}
