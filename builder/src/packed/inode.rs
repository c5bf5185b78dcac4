//! Inodes and directories.

use std::collections::{BTreeMap, HashMap};

use super::PackedError;
use super::data::{Data, FileData};
use super::metadata::{Metadata, Position};
use super::xattr::{self, Xattrs};
use crate::tree::{Kind, Node, Tree, TreePath};

/// Numbers of the kinds of inodes. The extended form of each is 7 higher.
const DIR: u16 = 1;
const FILE: u16 = 2;
const SYMLINK: u16 = 3;
const BLOCK_DEVICE: u16 = 4;
const CHAR_DEVICE: u16 = 5;
const FIFO: u16 = 6;
const EXTENDED: u16 = 7;
/// Entries under one header of a directory.
const MAX_RUN: usize = 256;
/// The kernel takes neither longer names nor longer targets.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;

/// What follows the contents.
pub(super) struct Tables {
    pub(super) inodes: Vec<u8>,
    pub(super) directories: Vec<u8>,
    /// Where the inode of each number is.
    pub(super) references: Vec<u64>,
    /// User and group numbers that inodes name by their place here.
    pub(super) owners: Vec<u32>,
    pub(super) xattrs: Xattrs,
    pub(super) root: u64,
}

/// A name in a directory.
struct Entry<'a> {
    name: &'a str,
    /// The node, that of its target if it is a hard link.
    path: &'a TreePath,
    node: &'a Node,
}

/// An inode that is written.
#[derive(Clone, Copy)]
struct Written {
    at: Position,
    kind: u16,
}

/// Writes all inodes and directories.
pub(super) fn write(
    tree: &Tree,
    data: &Data<'_>,
    mtime: u32,
    level: i32,
) -> Result<Tables, PackedError> {
    let mut names: HashMap<&TreePath, u32> = HashMap::new();
    let mut numbers: HashMap<&TreePath, u32> = HashMap::new();
    // The root has the empty name here, which no path has.
    let mut dirs: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::from([("", Vec::new())]);
    for (path, node) in tree {
        let (file, node) = resolve(tree, path, node)?;
        let name = path.file_name();
        if name.len() > MAX_NAME {
            return Err(unfit(path, "its name is longer than 255 bytes"));
        }
        *names.entry(file).or_insert(0) += 1;
        let next = u32::try_from(numbers.len() + 2).map_err(|_| PackedError::TooMany)?;
        numbers.entry(file).or_insert(next);
        if matches!(node.kind, Kind::Dir) {
            dirs.entry(path.as_str()).or_default();
        }
        let above = path.as_str().rsplit_once('/').map_or("", |(above, _)| above);
        dirs.entry(above).or_default().push(Entry { name, path: file, node });
    }

    let mut writer = Writer {
        data,
        mtime,
        names,
        written: HashMap::new(),
        inodes: Metadata::new(level)?,
        directories: Metadata::new(level)?,
        references: vec![0; numbers.len() + 1],
        numbers,
        owners: Vec::new(),
        owner_numbers: HashMap::new(),
        xattrs: Xattrs::new(level)?,
    };
    // What is below a directory sorts after it, so backwards every directory comes after all that it holds.
    for (dir, entries) in dirs.iter().rev().filter(|(dir, _)| !dir.is_empty()) {
        let Some((path, node)) = TreePath::new(dir).ok().and_then(|path| tree.iter_at(&path))
        else {
            continue;
        };
        let above = dir.rsplit_once('/').map_or("", |(above, _)| above);
        writer.directory(Some(path), node, above, entries)?;
    }
    let root = Node::dir();
    let entries = dirs.get("").map(Vec::as_slice).unwrap_or_default();
    let root = writer.directory(None, &root, "", entries)?;
    Ok(Tables {
        inodes: writer.inodes.finish()?,
        directories: writer.directories.finish()?,
        references: writer.references,
        owners: writer.owners,
        xattrs: writer.xattrs,
        root: root.reference(),
    })
}

fn unfit(path: &TreePath, problem: &'static str) -> PackedError {
    PackedError::Unfit { path: path.clone(), problem }
}

/// Returns the node that a hard link is another name of, and any other as it is.
fn resolve<'a>(
    tree: &'a Tree,
    path: &'a TreePath,
    node: &'a Node,
) -> Result<(&'a TreePath, &'a Node), PackedError> {
    let Kind::Hardlink(target) = &node.kind else { return Ok((path, node)) };
    match tree.iter_at(target) {
        Some((file, node)) if !matches!(node.kind, Kind::Dir | Kind::Hardlink(_)) => {
            Ok((file, node))
        }
        _ => Err(PackedError::BrokenLink { path: path.clone(), target: target.clone() }),
    }
}

struct Writer<'a> {
    data: &'a Data<'a>,
    mtime: u32,
    /// How many names each file has.
    names: HashMap<&'a TreePath, u32>,
    numbers: HashMap<&'a TreePath, u32>,
    written: HashMap<&'a TreePath, Written>,
    inodes: Metadata,
    directories: Metadata,
    references: Vec<u64>,
    owners: Vec<u32>,
    owner_numbers: HashMap<u32, u16>,
    xattrs: Xattrs,
}

impl<'a> Writer<'a> {
    fn number(&self, path: Option<&TreePath>) -> u32 {
        // The root is number 1; all others were counted before.
        path.and_then(|path| self.numbers.get(path)).copied().unwrap_or(1)
    }

    fn owner(&mut self, id: u32) -> Result<u16, PackedError> {
        if let Some(number) = self.owner_numbers.get(&id) {
            return Ok(*number);
        }
        let number = u16::try_from(self.owners.len()).ok().filter(|n| *n < u16::MAX);
        let number = number.ok_or(PackedError::TooMany)?;
        self.owners.push(id);
        self.owner_numbers.insert(id, number);
        Ok(number)
    }

    /// Writes what all inodes begin with, and the rest, and notes where it is.
    fn inode(
        &mut self,
        path: Option<&TreePath>,
        node: &Node,
        kind: u16,
        rest: &[u8],
    ) -> Result<Position, PackedError> {
        let number = self.number(path);
        let (uid, gid) = (self.owner(node.uid)?, self.owner(node.gid)?);
        // No more bits than permissions have.
        let mode = u16::try_from(node.mode & 0o7777).unwrap_or(0);
        let at = self.inodes.position()?;
        let mut bytes = Vec::with_capacity(16 + rest.len());
        bytes.extend([kind, mode, uid, gid].into_iter().flat_map(u16::to_le_bytes));
        bytes.extend([self.mtime, number].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend_from_slice(rest);
        self.inodes.write(&bytes)?;
        let slot = usize::try_from(number).ok().and_then(|n| self.references.get_mut(n - 1));
        if let Some(slot) = slot {
            *slot = at.reference();
        }
        Ok(at)
    }

    fn attributes(&mut self, path: &TreePath, node: &Node) -> Result<u32, PackedError> {
        self.xattrs.number(path, node.xattrs.iter())
    }

    /// Writes the inode of anything but a directory.
    fn file(&mut self, path: &'a TreePath, node: &Node) -> Result<Written, PackedError> {
        if let Some(written) = self.written.get(path) {
            return Ok(*written);
        }
        let names = self.names.get(path).copied().unwrap_or(1);
        let set = self.attributes(path, node)?;
        let data = self.data;
        let mut rest = Vec::new();
        let (kind, extended) = match &node.kind {
            Kind::File(_) => {
                let data = data.of(path).ok_or(PackedError::TooMany)?;
                (FILE, regular(data, names, set, &mut rest))
            }
            Kind::Symlink(target) => {
                if target.len() > MAX_TARGET {
                    return Err(unfit(path, "its target is longer than 4095 bytes"));
                }
                let len = u32::try_from(target.len()).map_err(|_| PackedError::TooMany)?;
                rest.extend([names, len].into_iter().flat_map(u32::to_le_bytes));
                rest.extend_from_slice(target.as_bytes());
                (SYMLINK, with_set(set, &mut rest))
            }
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let kind = match node.kind {
                    Kind::CharDevice(..) => CHAR_DEVICE,
                    _ => BLOCK_DEVICE,
                };
                let device = device(*major, *minor)
                    .ok_or_else(|| unfit(path, "its device number is too large"))?;
                rest.extend([names, device].into_iter().flat_map(u32::to_le_bytes));
                (kind, with_set(set, &mut rest))
            }
            Kind::Fifo => {
                rest.extend(names.to_le_bytes());
                (FIFO, with_set(set, &mut rest))
            }
            // Directories have their own way and hard links were resolved.
            Kind::Dir | Kind::Hardlink(_) => return Err(PackedError::TooMany),
        };
        let form = if extended { kind + EXTENDED } else { kind };
        let at = self.inode(Some(path), node, form, &rest)?;
        let written = Written { at, kind };
        self.written.insert(path, written);
        Ok(written)
    }

    /// Writes what a directory holds, and then its inode. The directories in it are there already.
    fn directory(
        &mut self,
        path: Option<&'a TreePath>,
        node: &Node,
        above: &str,
        entries: &[Entry<'a>],
    ) -> Result<Position, PackedError> {
        let mut listed = Vec::with_capacity(entries.len());
        let mut below: u32 = 0;
        for entry in entries {
            let written = match entry.node.kind {
                Kind::Dir => {
                    below += 1;
                    self.written.get(entry.path).copied().ok_or(PackedError::TooMany)?
                }
                _ => self.file(entry.path, entry.node)?,
            };
            listed.push((entry.name, self.number(Some(entry.path)), written));
        }
        let at = self.directories.position()?;
        let len = self.list(&listed)?;
        // Three more than there are, as if `.` and `..` were in it.
        let size = len.checked_add(3).ok_or(PackedError::TooMany)?;
        let above = match (path, TreePath::new(above)) {
            // The parent of the root has the number after the last.
            (None, _) => {
                u32::try_from(self.references.len() + 1).map_err(|_| PackedError::TooMany)?
            }
            (Some(_), above) => self.number(above.ok().as_ref()),
        };
        let set = match path {
            Some(path) => self.attributes(path, node)?,
            None => xattr::NONE,
        };
        let (links, offset) = (below + 2, at.offset.to_le_bytes());
        let mut rest = Vec::with_capacity(24);
        let kind = match u16::try_from(size) {
            Ok(size) if set == xattr::NONE => {
                rest.extend([at.block, links].into_iter().flat_map(u32::to_le_bytes));
                rest.extend_from_slice(&size.to_le_bytes());
                rest.extend_from_slice(&offset);
                rest.extend_from_slice(&above.to_le_bytes());
                DIR
            }
            _ => {
                rest.extend([links, size, at.block, above].into_iter().flat_map(u32::to_le_bytes));
                // No index: it would speed up only directories of thousands of names.
                rest.extend_from_slice(&[0; 2]);
                rest.extend_from_slice(&offset);
                rest.extend_from_slice(&set.to_le_bytes());
                DIR + EXTENDED
            }
        };
        let at = self.inode(path, node, kind, &rest)?;
        if let Some(path) = path {
            self.written.insert(path, Written { at, kind: DIR });
        }
        Ok(at)
    }

    /// Writes the names of a directory, in runs whose inodes are in one block and have close numbers.
    fn list(&mut self, mut entries: &[(&str, u32, Written)]) -> Result<u32, PackedError> {
        let mut len: usize = 0;
        while let Some((_, base, first)) = entries.first() {
            let near = |number: u32| i16::try_from(i64::from(number) - i64::from(*base)).ok();
            let fits = |(_, number, written): &&(&str, u32, Written)| {
                written.at.block == first.at.block && near(*number).is_some()
            };
            let run = entries.iter().take(MAX_RUN).take_while(fits).count();
            let (now, later) = entries.split_at(run);
            entries = later;
            let mut bytes = Vec::new();
            let count = u32::try_from(run - 1).map_err(|_| PackedError::TooMany)?;
            bytes.extend([count, first.at.block, *base].into_iter().flat_map(u32::to_le_bytes));
            for (name, number, written) in now {
                let name_len = u16::try_from(name.len() - 1).map_err(|_| PackedError::TooMany)?;
                bytes.extend_from_slice(&written.at.offset.to_le_bytes());
                bytes.extend_from_slice(&near(*number).unwrap_or(0).to_le_bytes());
                bytes.extend([written.kind, name_len].into_iter().flat_map(u16::to_le_bytes));
                bytes.extend_from_slice(name.as_bytes());
            }
            len += bytes.len();
            self.directories.write(&bytes)?;
        }
        u32::try_from(len).map_err(|_| PackedError::TooMany)
    }
}

/// Appends the number of a set of attributes, if there is one, and returns whether the inode has the extended form.
fn with_set(set: u32, rest: &mut Vec<u8>) -> bool {
    if set == xattr::NONE {
        return false;
    }
    rest.extend_from_slice(&set.to_le_bytes());
    true
}

/// Appends the inode of a regular file and returns whether it has the extended form.
fn regular(data: &FileData, names: u32, set: u32, rest: &mut Vec<u8>) -> bool {
    let FileData { len, start, holes, fragment, fragment_offset, ref blocks } = *data;
    let start = if start == u64::MAX { 0 } else { start };
    let short = (u32::try_from(start), u32::try_from(len));
    let extended = match short {
        (Ok(start), Ok(len)) if names == 1 && holes == 0 && set == xattr::NONE => {
            let words = [start, fragment, fragment_offset, len];
            rest.extend(words.into_iter().flat_map(u32::to_le_bytes));
            false
        }
        _ => {
            rest.extend([start, len, holes].into_iter().flat_map(u64::to_le_bytes));
            let words = [names, fragment, fragment_offset, set];
            rest.extend(words.into_iter().flat_map(u32::to_le_bytes));
            true
        }
    };
    rest.extend(blocks.iter().flat_map(|len| len.to_le_bytes()));
    extended
}

/// Returns the kernel's 32 bits of a device number (`new_encode_dev`).
fn device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}
