//! FAT file systems as the firmware's own partition needs them ("FAT: General Overview of On-Disk Format", Microsoft;
//! UEFI 2.10 §13.3): a few large files with short names, each in one piece, all dates the same.
//!
//! They are planned, not written: the files stay where they are, so a disk image of any size needs no memory.

use std::collections::BTreeMap;

use super::fat_name::{Name, is_plain};
use super::plan::Plan;

const SECTOR: u64 = 512;
/// From this size on it is FAT32 (UEFI wants that on disks), below FAT16.
const FAT32_FROM: u64 = 33 << 20;
/// The least size: FAT16 has at least 4085 clusters.
const LEAST: u64 = 4 << 20;
/// The most: sectors are counted in 32 bits.
const MOST: u64 = SECTOR * u32::MAX as u64;
/// The fewest clusters of FAT32, and some more: there are drivers that count wrong by a few.
const FAT32_CLUSTERS: u64 = 65_525 + 32;
/// Length of a directory entry.
const ENTRY: usize = 32;
/// Entries of the root directory of FAT16, which has a place of its own.
const ROOT_ENTRIES: u64 = 512;
/// 1 January 1980, the first day that FAT knows.
const DATE: u16 = 1 << 5 | 1;

/// A file system to plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume<'a> {
    /// Its name: at most eleven capital letters, digits, `_` and `-`.
    pub label: &'a str,
    /// Its serial number.
    pub id: u32,
    /// Its length in bytes, a multiple of 512.
    pub size: u64,
    /// How many sectors of the disk come before it.
    pub hidden_sectors: u32,
}

/// A file system cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// The size cannot be had.
    #[error(
        "a FAT file system of {0} bytes is not possible; it takes 4 MiB to 2 TiB, in whole sectors"
    )]
    Size(u64),
    /// The files do not fit.
    #[error("{need} bytes of files do not fit into {have} bytes")]
    NoSpace {
        /// What the files take.
        need: u64,
        /// What there is for them.
        have: u64,
    },
    /// A file is too large.
    #[error("`{path}` has {len} bytes; a file on FAT has less than 4 GiB")]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its length.
        len: u64,
    },
    /// A name cannot be written.
    #[error(
        "`{0}` cannot be a name here: letters, digits, `.`, `_`, `-` and `+`, no dot at an end, at most 255"
    )]
    Name(String),
    /// Two files have the same path, or one is where another one's folder would be.
    #[error("`{0}` is there twice")]
    Duplicate(String),
}

/// Returns a size in which files of so many bytes fit.
pub fn size_for(bytes: u64) -> u64 {
    // The tables take 8 bytes of 512 at most, each file half a cluster, and there is a directory or two.
    (bytes.saturating_add(bytes / 32).saturating_add(2 << 20)).next_multiple_of(1 << 20).max(LEAST)
}

/// How a file system is divided, in sectors.
#[derive(Clone, Copy, Debug)]
struct Layout {
    fat32: bool,
    sectors: u64,
    reserved: u64,
    table: u64,
    root: u64,
    per_cluster: u64,
    clusters: u64,
}

impl Layout {
    fn new(size: u64) -> Result<Self, FatError> {
        if !(LEAST..=MOST).contains(&size) || !size.is_multiple_of(SECTOR) {
            return Err(FatError::Size(size));
        }
        let sectors = size / SECTOR;
        if size < FAT32_FROM {
            // Not more clusters than 65524, which is where FAT32 begins.
            return Ok(Self::divide(false, sectors, if sectors > 32_768 { 2 } else { 1 }));
        }
        let large =
            [64, 32, 16, 8, 4, 2].map(|per_cluster| Self::divide(true, sectors, per_cluster));
        let fits = large.into_iter().find(|layout| layout.clusters >= FAT32_CLUSTERS);
        Ok(fits.unwrap_or_else(|| Self::divide(true, sectors, 1)))
    }

    /// Computes the sizes as Microsoft's text does ("FAT Volume Initialization"); tables may be a little long.
    fn divide(fat32: bool, sectors: u64, per_cluster: u64) -> Self {
        let (reserved, root) =
            if fat32 { (32, 0) } else { (1, ROOT_ENTRIES * ENTRY as u64 / SECTOR) };
        let per_sector = if fat32 { (256 * per_cluster + 2) / 2 } else { 256 * per_cluster + 2 };
        let table = (sectors - reserved - root).div_ceil(per_sector);
        let clusters = (sectors - reserved - root - 2 * table) / per_cluster;
        Self { fat32, sectors, reserved, table, root, per_cluster, clusters }
    }

    const fn cluster(&self) -> u64 {
        self.per_cluster * SECTOR
    }
}

/// A file or directory, and where it lies.
#[derive(Debug)]
struct Node {
    parent: usize,
    name: Name,
    /// The content of a file; nothing for a directory.
    file: Option<Plan>,
    len: u64,
    first: u32,
    clusters: u64,
}

/// Plans a file system with these files. Their paths have `/` between names; folders are made.
///
/// # Errors
///
/// Fails when the size is impossible, the files do not fit, or a name is.
pub fn plan(volume: &Volume<'_>, files: &[(&str, Plan)]) -> Result<Plan, FatError> {
    let layout = Layout::new(volume.size)?;
    let label = short_label(volume.label)?;
    let mut nodes = tree(files)?;
    let used = place(&mut nodes, &layout)?;

    let mut out = Plan::default();
    let boot = boot_sector(volume, &layout, label);
    out.push_bytes(boot.clone());
    if layout.fat32 {
        let info = info_sector(&layout, used);
        out.push_bytes(info.clone());
        out.pad_to(6 * SECTOR);
        out.push_bytes(boot);
        out.push_bytes(info);
    }
    out.pad_to(layout.reserved * SECTOR);
    let chains = chains(&nodes, &layout);
    for n in 1..=2 {
        out.push_bytes(chains.clone());
        out.pad_to((layout.reserved + n * layout.table) * SECTOR);
    }
    for (n, node) in nodes.iter().enumerate() {
        let start = out.len();
        match &node.file {
            Some(content) => out.append(content),
            None => out.push_bytes(directory(&nodes, n, label)),
        }
        let room = if n == 0 && !layout.fat32 {
            layout.root * SECTOR
        } else {
            node.clusters * layout.cluster()
        };
        out.pad_to(start + room);
    }
    out.pad_to(volume.size);
    Ok(out)
}

/// Turns paths into a list of nodes in which a directory comes before what it holds, the root first.
fn tree(files: &[(&str, Plan)]) -> Result<Vec<Node>, FatError> {
    let node = |parent, name, file: Option<Plan>| {
        let len = file.as_ref().map_or(0, Plan::len);
        Node { parent, name, file, len, first: 0, clusters: 0 }
    };
    let mut nodes = vec![node(0, Name::default(), None)];
    // Sorted, so that the order in which files are given does not show.
    let sorted: BTreeMap<&str, &Plan> = files.iter().map(|(path, plan)| (*path, plan)).collect();
    if sorted.len() != files.len() {
        return Err(FatError::Duplicate(files.iter().map(|(path, _)| *path).collect()));
    }
    for (path, content) in sorted {
        if content.len() > u64::from(u32::MAX) {
            return Err(FatError::FileTooLarge { path: path.to_owned(), len: content.len() });
        }
        let mut parent = 0;
        let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
        for folder in folders.split('/').filter(|name| !name.is_empty()) {
            parent = match find(&nodes, parent, folder) {
                Some(n) if nodes.get(n).is_some_and(|node| node.file.is_none()) => n,
                Some(_) => return Err(FatError::Duplicate(path.to_owned())),
                None => {
                    let name = name(&nodes, parent, folder)?;
                    nodes.push(node(parent, name, None));
                    nodes.len() - 1
                }
            };
        }
        if find(&nodes, parent, file).is_some() {
            return Err(FatError::Duplicate(path.to_owned()));
        }
        let name = name(&nodes, parent, file)?;
        nodes.push(node(parent, name, Some(content.clone())));
    }
    Ok(nodes)
}

fn find(nodes: &[Node], parent: usize, name: &str) -> Option<usize> {
    let is = |it: &Node| it.parent == parent && it.name.is(name);
    (1..nodes.len()).find(|&n| nodes.get(n).is_some_and(is))
}

fn name(nodes: &[Node], parent: usize, text: &str) -> Result<Name, FatError> {
    let taken = |short: [u8; 11]| children(nodes, parent).any(|it| it.name.short == short);
    Name::new(text, taken).ok_or_else(|| FatError::Name(text.to_owned()))
}

fn children(nodes: &[Node], parent: usize) -> impl Iterator<Item = &Node> {
    nodes.iter().skip(1).filter(move |node| node.parent == parent)
}

/// Gives each node its clusters, one after the other, and returns how many are taken.
fn place(nodes: &mut [Node], layout: &Layout) -> Result<u64, FatError> {
    let entries = |n| children(nodes, n).map(|node| 1 + node.name.long_entries()).sum();
    let entries: Vec<usize> = (0..nodes.len()).map(entries).collect();
    let mut used = 0;
    for (n, (node, entries)) in nodes.iter_mut().zip(entries).enumerate() {
        // The root has the label, other directories `.` and `..`.
        let extra = if n == 0 { 1 } else { 2 };
        let len = if node.file.is_some() { node.len } else { ((entries + extra) * ENTRY) as u64 };
        if n == 0 && !layout.fat32 {
            if len > layout.root * SECTOR {
                return Err(FatError::NoSpace { need: len, have: layout.root * SECTOR });
            }
            continue;
        }
        node.clusters = len.div_ceil(layout.cluster());
        if node.clusters > 0 {
            node.first = u32::try_from(used + 2).unwrap_or(u32::MAX);
        }
        used += node.clusters;
    }
    if used > layout.clusters {
        let cluster = layout.cluster();
        return Err(FatError::NoSpace { need: used * cluster, have: layout.clusters * cluster });
    }
    Ok(used)
}

/// Returns the beginning of a table: what follows each cluster that is in use.
fn chains(nodes: &[Node], layout: &Layout) -> Vec<u8> {
    let mut out = Vec::new();
    let mut entry = |value: u32| {
        let bytes = value.to_le_bytes();
        out.extend_from_slice(if layout.fat32 { &bytes } else { bytes.get(..2).unwrap_or(&bytes) });
    };
    let end = if layout.fat32 { 0x0fff_ffff } else { 0xffff };
    // The first two are no clusters: the kind of medium, and that the file system is whole.
    entry(end & !0xff | 0xf8);
    entry(end);
    for node in nodes {
        for n in 1..=node.clusters {
            let next = node.first.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
            entry(if n == node.clusters { end } else { next });
        }
    }
    out
}

/// Returns the content of a directory.
fn directory(nodes: &[Node], n: usize, label: [u8; 11]) -> Vec<u8> {
    const VOLUME: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    let mut out = Vec::new();
    let first = |n: usize| nodes.get(n).map_or(0, |node| node.first);
    if n == 0 {
        out.extend(entry(label, VOLUME, 0, 0));
    } else {
        let up = nodes.get(n).map_or(0, |node| node.parent);
        out.extend(entry(*b".          ", DIRECTORY, first(n), 0));
        // The root is always number 0 here.
        out.extend(entry(*b"..         ", DIRECTORY, if up == 0 { 0 } else { first(up) }, 0));
    }
    for node in children(nodes, n) {
        let attribute = if node.file.is_some() { 0x20 } else { DIRECTORY };
        out.extend(node.name.long());
        out.extend(entry(node.name.short, attribute, node.first, node.len));
    }
    out
}

fn entry(name: [u8; 11], attribute: u8, first: u32, len: u64) -> [u8; ENTRY] {
    let mut out = [0; ENTRY];
    let cluster = first.to_le_bytes();
    put(&mut out, 0, &name);
    put(&mut out, 11, &[attribute]);
    for at in [16, 18, 24] {
        put(&mut out, at, &DATE.to_le_bytes());
    }
    put(&mut out, 20, &[cluster[2], cluster[3]]);
    put(&mut out, 26, &[cluster[0], cluster[1]]);
    put(&mut out, 28, &u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    out
}

fn boot_sector(volume: &Volume<'_>, layout: &Layout, label: [u8; 11]) -> Vec<u8> {
    let mut out = vec![0; 512];
    let short = |n: u64| u16::try_from(n).unwrap_or_default().to_le_bytes();
    let long = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    put(&mut out, 0, if layout.fat32 { &[0xeb, 0x58, 0x90] } else { &[0xeb, 0x3c, 0x90] });
    put(&mut out, 3, b"KILN    ");
    put(&mut out, 11, &short(SECTOR));
    put(&mut out, 13, &[u8::try_from(layout.per_cluster).unwrap_or_default()]);
    put(&mut out, 14, &short(layout.reserved));
    put(&mut out, 16, &[2]);
    put(&mut out, 21, &[0xf8]);
    put(&mut out, 24, &short(63));
    put(&mut out, 26, &short(255));
    put(&mut out, 28, &volume.hidden_sectors.to_le_bytes());
    // What is too large for the short field is 0 there.
    let small = !layout.fat32 && layout.sectors <= u64::from(u16::MAX);
    if small {
        put(&mut out, 19, &short(layout.sectors));
    } else {
        put(&mut out, 32, &long(layout.sectors));
    }
    let extended = if layout.fat32 {
        put(&mut out, 36, &long(layout.table));
        put(&mut out, 44, &long(2));
        put(&mut out, 48, &short(1));
        put(&mut out, 50, &short(6));
        64
    } else {
        put(&mut out, 17, &short(ROOT_ENTRIES));
        put(&mut out, 22, &short(layout.table));
        36
    };
    put(&mut out, extended, &[0x80, 0, 0x29]);
    put(&mut out, extended + 3, &volume.id.to_le_bytes());
    put(&mut out, extended + 7, &label);
    put(&mut out, extended + 18, if layout.fat32 { b"FAT32   " } else { b"FAT16   " });
    put(&mut out, 510, &[0x55, 0xaa]);
    out
}

fn info_sector(layout: &Layout, used: u64) -> Vec<u8> {
    let mut out = vec![0; 512];
    let long = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    put(&mut out, 0, b"RRaA");
    put(&mut out, 484, b"rrAa");
    put(&mut out, 488, &long(layout.clusters - used));
    put(&mut out, 492, &long(used + 2));
    put(&mut out, 508, &[0, 0, 0x55, 0xaa]);
    out
}

fn short_label(label: &str) -> Result<[u8; 11], FatError> {
    if label.is_empty() || label.len() > 11 || !label.bytes().all(is_plain) {
        return Err(FatError::Name(label.to_owned()));
    }
    let mut out = [b' '; 11];
    put(&mut out, 0, label.as_bytes());
    Ok(out)
}

/// Overwrites bytes; every place here is inside.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
#[path = "fat_tests.rs"]
mod tests;
