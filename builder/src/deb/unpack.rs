use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use tar::EntryType;

use super::ar::{self, ArError, Member};
use super::error::DebError;
use super::index_file::xz;
use super::layout::place;
use crate::disk::is_full;
use crate::pax;
use crate::tree::{Content, Kind, Node, Tree, TreePath, Xattrs};

const MAX_UNPACKED: u64 = 4 << 30;
/// Scripts and lists are beside the control file.
const MAX_CONTROL: u64 = 64 << 20;
const MAX_ENTRIES: usize = 500_000;
const MAX_DEPTH: usize = 64;
/// Long names and PAX headers are read into memory.
const MAX_EXTENSION: u64 = 64 << 10;
const ZSTD_WINDOW_LOG: u32 = 27;

/// Unpacks the files of a package into a tree, whose contents stay in an unlinked temporary file beside the package.
/// Paths are laid out for a merged `/usr`, and documentation is left out except for copyright files.
///
/// # Errors
///
/// Fails when the package cannot be read, is truncated, malformed or beyond the limits, and when the disk is full.
pub fn unpack(path: &Path) -> Result<Tree, DebError> {
    let fail = Fail { path };
    read_tar(member(&fail, ar::DATA, MAX_UNPACKED)?, &fail)
}

/// Returns what a package says of itself: the stanza of its control file.
///
/// # Errors
///
/// As [`unpack`], and when there is no such file.
pub fn control(path: &Path) -> Result<String, DebError> {
    let fail = Fail { path };
    let tree = read_tar(member(&fail, ar::CONTROL, MAX_CONTROL)?, &fail)?;
    let file = TreePath::new("control").map_err(|error| fail.malformed(error.to_string()))?;
    let content = tree.content(&file).ok_or_else(|| fail.malformed("it has no control file"))?;
    let bytes = content.read_all(MAX_CONTROL).map_err(|source| fail.read(source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Decompresses a member into an unlinked file.
fn member(fail: &Fail<'_>, name: &str, limit: u64) -> Result<File, DebError> {
    let package = File::open(fail.path).map_err(|source| fail.read(source))?;
    let data = ar::find(&package, name).map_err(|error| match error {
        ArError::Io(source) => fail.read(source),
        ArError::Truncated => fail.truncated(),
        ArError::Malformed(reason) => fail.malformed(reason),
    })?;
    spool(package, &data, fail, limit)
}

/// Makes errors that name the package.
struct Fail<'a> {
    path: &'a Path,
}

impl Fail<'_> {
    fn read(&self, source: io::Error) -> DebError {
        DebError::Read { path: self.path.to_owned(), source }
    }

    fn truncated(&self) -> DebError {
        DebError::Truncated { path: self.path.to_owned() }
    }

    fn malformed(&self, reason: impl Into<String>) -> DebError {
        DebError::Malformed { path: self.path.to_owned(), reason: reason.into() }
    }

    /// An error from reading compressed data or a tar: the data is at fault, not the disk.
    fn data(&self, error: &io::Error) -> DebError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => self.malformed(format!("its data is broken ({error})")),
        }
    }

    fn spool(&self, source: io::Error) -> DebError {
        match is_full(&source) {
            true => DebError::DiskFull { path: self.path.to_owned() },
            false => self.read(source),
        }
    }
}

fn spool(mut package: File, data: &Member, fail: &Fail<'_>, limit: u64) -> Result<File, DebError> {
    package.seek(SeekFrom::Start(data.offset)).map_err(|source| fail.read(source))?;
    let member = package.take(data.len);
    let broken = |error: io::Error| fail.data(&error);
    let mut reader: Box<dyn Read> = match data.suffix.as_str() {
        "" => Box::new(member),
        ".xz" => Box::new(xz(member).map_err(broken)?),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(member)),
        ".zst" => {
            let mut decoder = zstd::Decoder::new(member).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            Box::new(decoder)
        }
        other => return Err(fail.malformed(format!("the compression `{other}` is not supported"))),
    };
    let dir = fail
        .path
        .parent()
        .filter(|it| !it.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let mut spool = tempfile::tempfile_in(dir).map_err(|source| fail.spool(source))?;
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let got = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        total += got as u64;
        if total > limit {
            return Err(fail.malformed(format!("it unpacks to more than {limit} bytes")));
        }
        spool.write_all(&buffer[..got]).map_err(|source| fail.spool(source))?;
    }
    spool.rewind().map_err(|source| fail.spool(source))?;
    Ok(spool)
}

/// What long-name and PAX headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    xattrs: Xattrs,
}

fn read_tar(spool: File, fail: &Fail<'_>) -> Result<Tree, DebError> {
    let end = spool.metadata().map_err(|source| fail.spool(source))?.len();
    let file = Arc::new(spool.try_clone().map_err(|source| fail.spool(source))?);
    let mut archive = tar::Archive::new(spool);
    let mut tree = Tree::new();
    let mut extensions = Extensions::default();
    let broken = |error: io::Error| fail.data(&error);
    // Raw entries: the library would read long names of any length into memory.
    let entries = archive.entries_with_seek().map_err(broken)?.raw(true);
    for (number, entry) in entries.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if number >= MAX_ENTRIES || tree.len() >= MAX_ENTRIES {
            return Err(fail.malformed(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let (offset, len) = (entry.raw_file_position(), entry.size());
        // Seeking does not notice that the file ends before the entry does.
        if offset.checked_add(len).is_none_or(|it| it > end) {
            return Err(fail.truncated());
        }
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
            if len > MAX_EXTENSION {
                return Err(fail.malformed("a name or header in it is too long"));
            }
            let mut value = Vec::new();
            entry.read_to_end(&mut value).map_err(broken)?;
            match kind {
                EntryType::GNULongName => extensions.path = Some(until_nul(value)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(value)),
                _ => read_pax(&value, &mut extensions).map_err(|reason| fail.malformed(reason))?,
            }
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let said = std::mem::take(&mut extensions);
        let header = entry.header();
        let name = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = said.link.or_else(|| header.link_name_bytes().map(Into::into));
        let entry = Entry {
            name: &name,
            link: link.as_deref(),
            said_uid: said.uid,
            said_gid: said.gid,
            xattrs: said.xattrs,
        };
        let content = Content::Span { file: Arc::clone(&file), offset, len };
        add(&mut tree, header, entry, content)
            .map_err(|reason| fail.malformed(format!("`{}` {reason}", show(&name))))?;
    }
    Ok(tree)
}

struct Entry<'a> {
    name: &'a [u8],
    link: Option<&'a [u8]>,
    said_uid: Option<u64>,
    said_gid: Option<u64>,
    xattrs: Xattrs,
}

/// Puts one entry into the tree. The error says what is wrong with it.
fn add(
    tree: &mut Tree,
    header: &tar::Header,
    entry: Entry<'_>,
    content: Content,
) -> Result<(), String> {
    let kind = header.entry_type();
    let name = text(entry.name)?;
    if matches!(name.trim_end_matches('/'), "." | "") {
        return Ok(());
    }
    let path = TreePath::new(name).map_err(|error| error.to_string())?;
    if path.as_str().split('/').count() > MAX_DEPTH {
        return Err(format!("is more than {MAX_DEPTH} directories deep"));
    }
    let Some(path) = place(&path, kind.is_symlink()).map_err(|error| error.to_string())? else {
        return Ok(());
    };
    let number = |value: io::Result<u64>, said: Option<u64>| {
        let value = said.map_or(value, Ok).map_err(|_| "has a broken owner")?;
        u32::try_from(value).map_err(|_| "has an owner beyond 32 bits")
    };
    let device =
        |value: io::Result<Option<u32>>| value.ok().flatten().ok_or("has a broken device number");
    let devices =
        || Ok::<_, &str>((device(header.device_major())?, device(header.device_minor())?));
    let target = || text(entry.link.ok_or("links to nothing")?);
    let kind = match kind {
        EntryType::Directory => Kind::Dir,
        EntryType::Regular | EntryType::Continuous => Kind::File(content),
        EntryType::Symlink => match target()? {
            "" => return Err("links to nothing".to_owned()),
            target if target.len() > 4095 || target.contains('\0') => {
                return Err("has a target that is too long".to_owned());
            }
            target => Kind::Symlink(target.to_owned()),
        },
        EntryType::Link => Kind::Hardlink(hard_link(tree, target()?)?),
        EntryType::Char => devices().map(|(major, minor)| Kind::CharDevice(major, minor))?,
        EntryType::Block => devices().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        _ => return Err("is of a kind that packages do not have".to_owned()),
    };
    let mut above = path.parent();
    while let Some(dir) = above {
        match tree.get(&dir).map(|it| &it.kind) {
            None => {}
            Some(Kind::Dir) => break,
            // Following the link could lead anywhere.
            Some(_) => return Err(format!("lies below `{dir}`, which is not a directory")),
        }
        above = dir.parent();
    }
    match (tree.get(&path).map(|it| &it.kind), &kind) {
        (None, _) | (Some(Kind::Dir), Kind::Dir) => {}
        _ => return Err("is in it twice".to_owned()),
    }
    let node = match &kind {
        // The names of one file share its owner and mode.
        Kind::Hardlink(target) => {
            tree.get(target).map(|it| Node { kind: kind.clone(), ..it.clone() })
        }
        _ => None,
    };
    let node = match node {
        Some(node) => node,
        None => Node {
            mode: header.mode().map_err(|_| "has a broken mode")? & 0o7777,
            uid: number(header.uid(), entry.said_uid)?,
            gid: number(header.gid(), entry.said_gid)?,
            kind,
            xattrs: entry.xattrs,
        },
    };
    tree.insert(path, node);
    Ok(())
}

/// Returns the file that a hard link names, which must be in the tree already.
fn hard_link(tree: &Tree, target: &str) -> Result<TreePath, String> {
    let missing = || format!("is a hard link to `{target}`, which is no file before it");
    let path = TreePath::new(target).map_err(|_| missing())?;
    let path = place(&path, false).map_err(|_| missing())?.ok_or_else(missing)?;
    match tree.get(&path).map(|it| &it.kind) {
        Some(Kind::File(_)) => Ok(path),
        Some(Kind::Hardlink(first)) => Ok(first.clone()),
        _ => Err(missing()),
    }
}

/// Reads the PAX records that matter here (POSIX pax, "extended header").
fn read_pax(records: &[u8], out: &mut Extensions) -> Result<(), &'static str> {
    for record in pax::records(records) {
        let (key, value) = record.map_err(|()| "a PAX header in it is broken")?;
        let number = || str::from_utf8(value).ok().and_then(|it| it.parse().ok());
        match key {
            "path" => out.path = Some(value.to_vec()),
            "linkpath" => out.link = Some(value.to_vec()),
            "uid" => out.uid = Some(number().ok_or("a PAX header in it is broken")?),
            "gid" => out.gid = Some(number().ok_or("a PAX header in it is broken")?),
            // Only files of 8 GiB and more need it, which are beyond the limit.
            "size" => return Err("a file in it is too large"),
            key if key.starts_with("GNU.sparse") => return Err("a file in it is sparse"),
            key => {
                if let Some(name) = key.strip_prefix(pax::XATTR) {
                    pax::add_xattr(&mut out.xattrs, name, value)?;
                }
            }
        }
    }
    Ok(())
}

fn until_nul(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(value.iter().position(|byte| *byte == 0).unwrap_or(value.len()));
    value
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    str::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

/// Shows a name from a hostile file: cut, and without control characters.
fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).flat_map(char::escape_default).collect()
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
