//! Writes the `newc` archive that the kernel unpacks into its first root file system
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel).
//!
//! The same tree gives the same bytes anywhere: members come sorted, times and inode numbers are ours.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use crate::tree::{Content, Kind, Node, Tree, TreePath, Xattrs};

/// Modes of `stat`: what kind of file it is.
const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// A tree cannot be written as an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpioError {
    /// The format counts the bytes of a member in 32 bits.
    #[error("`{path}` has {len} bytes; a file of an initrd must be smaller than 4 GiB")]
    TooLarge {
        /// The member.
        path: TreePath,
        /// Its length.
        len: u64,
    },
    /// A hard link leads to nothing, or not to a regular file.
    #[error("hard link `{path}` leads to `{target}`, which is not a regular file of the same tree")]
    BrokenLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// A member's bytes could not be read or written.
    #[error("cannot archive `{path}`")]
    Member {
        /// The member.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The end of the archive could not be written.
    #[error("cannot end the archive")]
    End(#[source] io::Error),
}

/// What an archive cannot carry of a tree: the format has no extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many nodes have extended attributes.
    pub nodes: usize,
    /// The programs that lose file capabilities, and so may not work for users other than root.
    pub capabilities: Vec<TreePath>,
}

/// Returns what [`write()`] leaves out. Other names of a file are not counted again.
pub fn lost(tree: &Tree) -> Lost {
    let mut lost = Lost::default();
    for (path, node) in tree {
        if !node.xattrs.is_empty() && !matches!(node.kind, Kind::Hardlink(_)) {
            lost.nodes += 1;
            if node.xattrs.get(Xattrs::CAPABILITY).is_some() {
                lost.capabilities.push(path.clone());
            }
        }
    }
    lost
}

/// The numbers of one header.
#[derive(Default)]
struct Header {
    ino: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: u32,
    len: u32,
    rdev: (u32, u32),
}

/// Writes every node of the tree, then the trailer, and returns how many bytes that were.
///
/// # Errors
///
/// Fails when a file is too large for the format, when a hard link is broken and when bytes cannot be read or
/// written.
pub fn write(tree: &Tree, mtime: u32, out: &mut impl Write) -> Result<u64, CpioError> {
    write_with_mark(tree, mtime, None, out)
}

/// As [`write()`], with an empty file after everything else: where it is, the archive was unpacked to its end. The kernel
/// goes on after files that it could not make, and stops at one that it could not fill.
///
/// # Errors
///
/// As [`write()`].
pub fn write_with_mark(
    tree: &Tree,
    mtime: u32,
    mark: Option<&TreePath>,
    out: &mut impl Write,
) -> Result<u64, CpioError> {
    let links = Links::find(tree)?;
    let mut out = Counter { out, written: 0, buffer: Vec::new() };
    let mut inodes: HashMap<&TreePath, u32> = HashMap::new();
    let mut next_ino = 0;
    for (path, node) in tree {
        let file = links.file_of(path);
        let ino = *inodes.entry(file).or_insert_with(|| {
            next_ino += 1;
            next_ino
        });
        write_member(&mut out, &links, path, node, Header { ino, mtime, ..Header::default() })?;
    }
    if let Some(mark) = mark {
        let mut end = Tree::new();
        end.insert(mark.clone(), Node::file(0o400, *b""));
        let links = Links::find(&end)?;
        for (path, node) in &end {
            next_ino += 1;
            let header = Header { ino: next_ino, mtime, ..Header::default() };
            write_member(&mut out, &links, path, node, header)?;
        }
    }
    let trailer = Header { nlink: 1, ..Header::default() };
    out.header("TRAILER!!!", &trailer).and_then(|()| out.flush()).map_err(CpioError::End)?;
    Ok(out.written)
}

fn write_member(
    out: &mut Counter<&mut impl Write>,
    links: &Links<'_>,
    path: &TreePath,
    node: &Node,
    mut header: Header,
) -> Result<(), CpioError> {
    let failed = |source| CpioError::Member { path: path.clone(), source };
    (header.uid, header.gid, header.nlink) = (node.uid, node.gid, 1);
    let symlink;
    let (kind, content) = match &node.kind {
        Kind::Dir => {
            header.nlink = 2;
            (S_IFDIR, None)
        }
        Kind::Fifo => (S_IFIFO, None),
        Kind::CharDevice(major, minor) => {
            header.rdev = (*major, *minor);
            (S_IFCHR, None)
        }
        Kind::BlockDevice(major, minor) => {
            header.rdev = (*major, *minor);
            (S_IFBLK, None)
        }
        Kind::Symlink(target) => {
            symlink = Content::Bytes(target.as_bytes().into());
            (S_IFLNK, Some(&symlink))
        }
        Kind::File(_) | Kind::Hardlink(_) => {
            let (group, content) = links.group(path);
            header.nlink = group.names;
            // Every name of a file carries its inode number; the bytes come once, with the last of them.
            (S_IFREG, (group.last == path).then_some(*content))
        }
    };
    header.mode = kind | (node.mode & 0o7777);
    let len = content.map_or(0, Content::len);
    header.len = u32::try_from(len).map_err(|_| CpioError::TooLarge { path: path.clone(), len })?;
    out.header(path.as_str(), &header).map_err(failed)?;
    if let Some(content) = content {
        let mut buffer = std::mem::take(&mut out.buffer);
        content.copy_to(out, &mut buffer).map_err(failed)?;
        out.buffer = buffer;
        out.pad().map_err(failed)?;
    }
    Ok(())
}

/// Which names are one file.
struct Links<'a> {
    /// The file that each hard link is a name of.
    files: HashMap<&'a TreePath, &'a TreePath>,
    groups: BTreeMap<&'a TreePath, (Group<'a>, &'a Content)>,
}

struct Group<'a> {
    names: u32,
    last: &'a TreePath,
}

impl<'a> Links<'a> {
    fn find(tree: &'a Tree) -> Result<Self, CpioError> {
        let mut found = Self { files: HashMap::new(), groups: BTreeMap::new() };
        for (path, node) in tree {
            let (file, content) = match &node.kind {
                Kind::File(content) => (path, content),
                Kind::Hardlink(target) => match tree.iter_at(target) {
                    Some((file, Node { kind: Kind::File(content), .. })) => (file, content),
                    _ => {
                        let (path, target) = (path.clone(), target.clone());
                        return Err(CpioError::BrokenLink { path, target });
                    }
                },
                _ => continue,
            };
            found.files.insert(path, file);
            let (group, _) =
                found.groups.entry(file).or_insert((Group { names: 0, last: path }, content));
            group.names += 1;
            group.last = path;
        }
        Ok(found)
    }

    fn file_of<'b>(&self, path: &'b TreePath) -> &'b TreePath
    where
        'a: 'b,
    {
        self.files.get(path).copied().unwrap_or(path)
    }

    fn group(&self, path: &TreePath) -> &(Group<'a>, &'a Content) {
        // Every regular file and hard link of the tree was entered by `find`.
        &self.groups[self.files[path]]
    }
}

struct Counter<W> {
    out: W,
    written: u64,
    /// What contents are copied through.
    buffer: Vec<u8>,
}

impl<W: Write> Counter<W> {
    fn header(&mut self, name: &str, header: &Header) -> io::Result<()> {
        let name_len = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let Header { ino, mode, uid, gid, nlink, mtime, len, rdev } = header;
        write!(
            self,
            "070701{ino:08x}{mode:08x}{uid:08x}{gid:08x}{nlink:08x}{mtime:08x}{len:08x}{:08x}{:08x}{:08x}{:08x}\
             {name_len:08x}{:08x}{name}\0",
            0, 0, rdev.0, rdev.1, 0
        )?;
        self.pad()
    }

    fn pad(&mut self) -> io::Result<()> {
        let gap = usize::try_from(self.written.wrapping_neg() % 4).unwrap_or(0);
        self.write_all(&[0; 3][..gap])
    }
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buffer)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn path(s: &str) -> TreePath {
        TreePath::new(s).unwrap()
    }

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut out = Vec::new();
        let written = write(tree, 0, &mut out).unwrap();
        assert_eq!(written, out.len() as u64);
        out
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let mut tree = Tree::new();
        tree.insert(path("a/b"), Node::file(0o644, *b"hello"));
        let text = String::from_utf8(archive(&tree)).unwrap();
        let zeros = |n: usize| "0".repeat(8 * n);
        let dir =
            format!("07070100000001000041ed{}00000002{}0000000200000000a\0", zeros(2), zeros(6));
        let file = format!(
            "07070100000002000081a4{}0000000100000000{:08x}{}0000000400000000a/b\0",
            zeros(2),
            5,
            zeros(4)
        );
        let trailer = format!("070701{}00000001{}0000000b00000000TRAILER!!!\0", zeros(4), zeros(6));
        let padded = |mut s: String| {
            while !s.len().is_multiple_of(4) {
                s.push('\0');
            }
            s
        };
        assert_eq!(text, padded(dir) + &padded(file) + &padded("hello".into()) + &padded(trailer));
    }

    #[test]
    fn names_of_one_file_share_its_inode_and_its_bytes_come_once() {
        let mut tree = Tree::new();
        tree.insert(path("b"), Node::file(0o755, *b"once"));
        tree.insert(path("a"), Node::new(0o755, Kind::Hardlink(path("b"))));
        tree.insert(path("c"), Node::new(0o755, Kind::Hardlink(path("b"))));
        let text = String::from_utf8(archive(&tree)).unwrap();
        assert_eq!(text.matches("once").count(), 1);
        assert_eq!(text.matches("07070100000001").count(), 3);
        assert!(text.find("once") > text.find("c\0"));
    }

    #[test]
    fn what_the_format_cannot_carry_is_named() {
        let mut tree = Tree::new();
        let mut ping = Node::file(0o755, *b"x");
        ping.xattrs.insert(Xattrs::CAPABILITY, b"c");
        let link = Node { kind: Kind::Hardlink(path("ping")), ..ping.clone() };
        let mut other = Node::dir();
        other.xattrs.insert("user.a", b"");
        tree.insert(path("ping"), ping);
        tree.insert(path("ping6"), link);
        tree.insert(path("d"), other);
        tree.insert(path("plain"), Node::file(0o644, *b"x"));
        assert_eq!(lost(&tree), Lost { nodes: 2, capabilities: vec![path("ping")] });
    }

    #[test]
    fn a_broken_link_and_a_file_of_4_gib_are_refused() {
        let mut tree = Tree::new();
        tree.insert(path("a"), Node::new(0o755, Kind::Hardlink(path("gone"))));
        assert!(matches!(
            write(&tree, 0, &mut io::sink()).unwrap_err(),
            CpioError::BrokenLink { .. }
        ));
        let mut tree = Tree::new();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let content = Content::Span { file, offset: 0, len: 1 << 32 };
        tree.insert(path("big"), Node::new(0o644, Kind::File(content)));
        assert!(matches!(
            write(&tree, 0, &mut io::sink()).unwrap_err(),
            CpioError::TooLarge { len: 0x1_0000_0000, .. }
        ));
    }
}
