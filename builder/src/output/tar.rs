//! LinuxKit's intermediate form: one tar archive of all that is in the machine, with the kernel below `boot` and two
//! PAX records on every entry that tell which part of the specification it came from.
//!
//! Unlike there, a path is written once, though several parts may bring it, and entries have no times of their own.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::pax;
use crate::tree::{Content, Kind, Node, Tree, TreePath, TreePathError};

const BLOCK: usize = 512;
/// The largest numbers of a ustar header: seven and eleven octal digits.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;
/// The longest name and link target of a ustar header.
const MAX_NAME: usize = 100;

/// What one item of a specification brings. The order is that of [`Part::order`].
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Where it comes from: the reference of an image, for instance. `LINUXKIT.source`.
    pub source: &'a str,
    /// Where the specification has it: `kernel`, `init[0]`, `onboot[1]`, `volume[0]`, `files[2]`. `LINUXKIT.location`.
    pub location: &'a str,
    /// Its files, at their places in the machine.
    pub tree: &'a Tree,
}

/// An archive cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// A hard link leads to nothing, or not to a regular file.
    #[error(
        "hard link `{path}` of {location} leads to `{target}`, which is not a regular file there"
    )]
    BrokenLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
        /// The part.
        location: String,
    },
    /// Bytes of a file could not be read or written.
    #[error("cannot archive `{path}`")]
    Member {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The end of the archive could not be written.
    #[error("cannot end the archive")]
    End(#[source] io::Error),
}

impl Part<'_> {
    /// Returns the place of a location in the archive: kernel, init, volumes, onboot, onshutdown, services, files, and
    /// what is known of none of them. Parts of one kind keep their order when they are sorted by it.
    pub fn order(location: &str) -> usize {
        const ORDER: [&str; 7] =
            ["kernel", "init", "volume", "onboot", "onshutdown", "services", "files"];
        let kind = location.split('[').next().unwrap_or_default();
        ORDER.iter().position(|it| *it == kind).unwrap_or(ORDER.len())
    }
}

/// Returns the part `kernel`: the kernel, its command line and microcode below `boot`, and its modules.
///
/// # Errors
///
/// Never in practice: the paths are ours, and short.
pub fn kernel_tree(
    kernel: Node,
    cmdline: &str,
    ucode: Option<Content>,
    modules: Tree,
) -> Result<Tree, TreePathError> {
    let mut tree = modules;
    tree.insert(TreePath::new("boot")?, Node::dir());
    tree.insert(TreePath::new("boot/cmdline")?, Node::file(0o644, cmdline.as_bytes()));
    tree.insert(TreePath::new("boot/kernel")?, kernel);
    if let Some(ucode) = ucode {
        tree.insert(TreePath::new("boot/ucode.cpio")?, Node::new(0o644, Kind::File(ucode)));
    }
    Ok(tree)
}

/// Writes the parts one after the other and returns how many bytes that were. Where several have a path, it is that of
/// the last one; but a directory that a part has only for what is in it leaves owner and mode as they were.
///
/// # Errors
///
/// Fails when a hard link is broken and when bytes cannot be read or written.
pub fn write(parts: &[Part<'_>], mtime: u32, out: &mut impl Write) -> Result<u64, TarError> {
    let chosen = choose(parts);
    let mut writer = Writer { out, written: 0, mtime: mtime.into(), buffer: Vec::new() };
    for (number, part) in parts.iter().enumerate() {
        // Which name of a file was written with its bytes; in this part alone, for no other can have the same file.
        let mut written: HashMap<&TreePath, &TreePath> = HashMap::new();
        for (path, _) in part.tree {
            let Some(choice) = chosen.get(path).filter(|choice| choice.place == number) else {
                continue;
            };
            let from = parts.get(choice.from).unwrap_or(part);
            let Some(node) = from.tree.get(path) else { continue };
            let file = file_of(from, path, node)?;
            let link = file.as_ref().and_then(|(file, _)| written.get(file).copied());
            let member = Member { path, node, from, file: file.map(|(_, content)| content), link };
            let failed = |source| TarError::Member { path: path.clone(), source };
            writer.member(&member).map_err(failed)?;
            if let (Some((file, _)), None) = (file, link) {
                written.insert(file, path);
            }
        }
    }
    writer.bytes(&[0; 2 * BLOCK]).and_then(|()| writer.out.flush()).map_err(TarError::End)?;
    Ok(writer.written)
}

/// Where a path is written, and what it is.
struct Choice {
    /// The number of the part among whose entries it comes.
    place: usize,
    /// The number of the part that says what it is.
    from: usize,
    is_dir: bool,
}

fn choose<'a>(parts: &[Part<'a>]) -> BTreeMap<&'a TreePath, Choice> {
    let mut chosen: BTreeMap<&TreePath, Choice> = BTreeMap::new();
    for (number, part) in parts.iter().enumerate() {
        for (path, node) in part.tree {
            let is_dir = matches!(node.kind, Kind::Dir);
            match chosen.get_mut(path) {
                Some(known) if known.is_dir && is_dir => {
                    // It comes where it came first, before what is in it.
                    if !part.tree.is_implied(path) {
                        known.from = number;
                    }
                    continue;
                }
                Some(known) if known.is_dir => {
                    let (first, end) = path.range_below();
                    let below: Vec<_> =
                        chosen.range::<TreePath, _>(first..end).map(|(path, _)| *path).collect();
                    for path in below {
                        chosen.remove(path);
                    }
                }
                _ => {}
            }
            chosen.insert(path, Choice { place: number, from: number, is_dir });
        }
    }
    chosen
}

/// Returns the first name and the content of the file that a node is a name of.
fn file_of<'a>(
    part: &Part<'a>,
    path: &'a TreePath,
    node: &'a Node,
) -> Result<Option<(&'a TreePath, &'a Content)>, TarError> {
    match &node.kind {
        Kind::File(content) => Ok(Some((path, content))),
        Kind::Hardlink(target) => match part.tree.get(target).map(|it| &it.kind) {
            Some(Kind::File(content)) => Ok(Some((target, content))),
            _ => Err(TarError::BrokenLink {
                path: path.clone(),
                target: target.clone(),
                location: part.location.to_owned(),
            }),
        },
        _ => Ok(None),
    }
}

struct Member<'a> {
    path: &'a TreePath,
    node: &'a Node,
    from: &'a Part<'a>,
    file: Option<&'a Content>,
    /// The name under which its bytes have been written already.
    link: Option<&'a TreePath>,
}

struct Writer<'a, W> {
    out: &'a mut W,
    written: u64,
    mtime: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<'_, W> {
    fn member(&mut self, member: &Member<'_>) -> io::Result<()> {
        let Member { path, node, from, file, link } = *member;
        // The names of one file have one owner and mode: those of the node with the content.
        let node = match &node.kind {
            Kind::Hardlink(target) => from.tree.get(target).unwrap_or(node),
            _ => node,
        };
        let mut header = Header::new_ustar();
        set_device(&mut header, 0, 0)?;
        // Sorted, as Go's archive/tar does.
        let mut records = BTreeMap::new();
        records.insert("LINUXKIT.location".to_owned(), from.location.as_bytes().to_vec());
        records.insert("LINUXKIT.source".to_owned(), from.source.as_bytes().to_vec());
        let (kind, target, content) = match (&node.kind, link) {
            (_, Some(link)) => (EntryType::Link, Some(link.as_str()), None),
            (Kind::Dir, _) => (EntryType::Directory, None, None),
            (Kind::Symlink(target), _) => (EntryType::Symlink, Some(target.as_str()), None),
            (Kind::Fifo, _) => (EntryType::Fifo, None, None),
            (Kind::CharDevice(major, minor), _) => {
                set_device(&mut header, *major, *minor)?;
                (EntryType::Char, None, None)
            }
            (Kind::BlockDevice(major, minor), _) => {
                set_device(&mut header, *major, *minor)?;
                (EntryType::Block, None, None)
            }
            (Kind::File(_) | Kind::Hardlink(_), None) => (EntryType::Regular, None, file),
        };
        if link.is_none() {
            for (name, value) in node.xattrs.iter() {
                records.insert(format!("{}{name}", pax::XATTR), value.to_vec());
            }
        }
        let name = path.as_str();
        let mut long = |key: &str, text: &str| {
            let is_long = text.len() > MAX_NAME || !text.is_ascii();
            if is_long {
                records.insert(key.to_owned(), text.as_bytes().to_vec());
            }
        };
        long("path", name);
        long("linkpath", target.unwrap_or_default());
        let mut number = |key: &str, value: u64, most: u64| {
            if value > most {
                records.insert(key.to_owned(), value.to_string().into_bytes());
            }
            value.min(most)
        };
        let len = content.map_or(0, Content::len);
        header.set_size(number("size", len, MAX_SIZE));
        header.set_uid(number("uid", node.uid.into(), MAX_ID.into()));
        header.set_gid(number("gid", node.gid.into(), MAX_ID.into()));
        header.set_mode(node.mode & 0o7777);
        header.set_mtime(self.mtime);
        header.set_entry_type(kind);
        set_text(&mut header, name, target.unwrap_or_default());
        header.set_cksum();

        let mut pax = Vec::new();
        for (key, value) in &records {
            pax::push(&mut pax, key, value);
        }
        let mut before = Header::new_ustar();
        set_device(&mut before, 0, 0)?;
        before.set_entry_type(EntryType::XHeader);
        before.set_size(pax.len() as u64);
        before.set_mode(0o644);
        before.set_uid(0);
        before.set_gid(0);
        before.set_mtime(self.mtime);
        set_text(&mut before, &format!("PaxHeaders.0/{}", path.file_name()), "");
        before.set_cksum();
        self.bytes(before.as_bytes())?;
        self.bytes(&pax)?;
        self.pad()?;
        self.bytes(header.as_bytes())?;
        if let Some(content) = content {
            content.copy_to(&mut self.out, &mut self.buffer)?;
            self.written += len;
            self.pad()?;
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let gap = usize::try_from(self.written.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        self.bytes(&[0; BLOCK][..gap])
    }
}

fn set_device(header: &mut Header, major: u32, minor: u32) -> io::Result<()> {
    header.set_device_major(major)?;
    header.set_device_minor(minor)
}

/// Puts names in; what does not fit is in a PAX record, and cut here.
fn set_text(header: &mut Header, name: &str, target: &str) {
    let Some(header) = header.as_ustar_mut() else { return };
    for (field, text) in [(&mut header.name, name), (&mut header.linkname, target)] {
        let len = text.len().min(field.len());
        field[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
