//! Reads the tar of modules of a kernel image. Its files are not copied: they stay parts of the tar.

use std::io::{self, Read};
use std::sync::Arc;

use tar::EntryType;

use crate::tree::{Content, ContentReader, Kind, Node, Tree, TreePath};

const MAX_ENTRIES: usize = 200_000;
const MAX_EXTENSION: u64 = 64 << 10;

/// Reads a tar, in which later entries replace earlier ones. The error says what is wrong with it.
pub(super) fn read(tar: &Content) -> io::Result<Tree> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut tree = Tree::new();
    let mut archive = tar::Archive::new(tar.reader());
    let (mut long_name, mut long_link) = (None, None);
    for (number, entry) in archive.entries()?.raw(true).enumerate() {
        let mut entry = entry?;
        if number >= MAX_ENTRIES {
            return Err(wrong(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
            if entry.size() > MAX_EXTENSION {
                return Err(wrong("a name or header in it is too long".to_owned()));
            }
            let mut value = Vec::new();
            entry.read_to_end(&mut value)?;
            match kind {
                EntryType::GNULongName => long_name = Some(until_nul(&value)?),
                EntryType::GNULongLink => long_link = Some(until_nul(&value)?),
                _ => read_pax(&value, &mut long_name, &mut long_link)?,
            }
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => until_nul(&entry.path_bytes())?,
        };
        let link = match long_link.take() {
            Some(link) => Some(link),
            None => entry.link_name_bytes().map(|link| until_nul(&link)).transpose()?,
        };
        if matches!(name.trim_end_matches('/'), "" | "." | "/") {
            continue;
        }
        let path = TreePath::new(&name).map_err(|error| wrong(error.to_string()))?;
        let said = |what: &str| wrong(format!("`{path}` {what}"));
        let link = || link.as_deref().filter(|link| (1..=4095).contains(&link.len()));
        let node = |kind| -> io::Result<Node> {
            let header = entry.header();
            let owner = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
            let uid = owner(header.uid()).ok_or_else(|| said("has a broken owner"))?;
            let gid = owner(header.gid()).ok_or_else(|| said("has a broken owner"))?;
            Ok(Node { uid, gid, ..Node::new(header.mode()? & 0o7777, kind) })
        };
        let kind = match kind {
            EntryType::Directory => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => {
                let (start, len) = (entry.raw_file_position(), entry.size());
                Kind::File(part(tar, start, len)?)
            }
            EntryType::Symlink => {
                Kind::Symlink(link().ok_or_else(|| said("links to nothing"))?.to_owned())
            }
            EntryType::Link => {
                let target = link().and_then(|link| TreePath::new(link).ok());
                let target = target.filter(|target| tree.content(target).is_some());
                let target = target.ok_or_else(|| said("is a hard link to no file before it"))?;
                match tree.get(&target).map(|node| &node.kind) {
                    Some(Kind::Hardlink(first)) => Kind::Hardlink(first.clone()),
                    _ => Kind::Hardlink(target),
                }
            }
            _ => return Err(said("is neither file, directory nor link")),
        };
        let node = node(kind)?;
        tree.insert(path, node);
    }
    Ok(tree)
}

/// Returns a part of a content.
fn part(whole: &Content, start: u64, len: u64) -> io::Result<Content> {
    if start.checked_add(len).is_none_or(|end| end > whole.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match whole {
        Content::Span { file, offset, .. } => {
            Ok(Content::Span { file: Arc::clone(file), offset: offset + start, len })
        }
        Content::Bytes(_) => {
            let mut reader: ContentReader<'_> = whole.reader();
            io::copy(&mut reader.by_ref().take(start), &mut io::sink())?;
            let mut bytes = Vec::new();
            reader.take(len).read_to_end(&mut bytes)?;
            Ok(Content::Bytes(bytes.into()))
        }
    }
}

fn until_nul(bytes: &[u8]) -> io::Result<String> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = str::from_utf8(text);
    text.map(str::to_owned).map_err(|_| io::Error::other("a name in it is not UTF-8"))
}

fn read_pax(
    records: &[u8],
    name: &mut Option<String>,
    link: &mut Option<String>,
) -> io::Result<()> {
    for record in tar::PaxExtensions::new(records) {
        let record = record?;
        match record.key_bytes() {
            b"path" => *name = Some(until_nul(record.value_bytes())?),
            b"linkpath" => *link = Some(until_nul(record.value_bytes())?),
            b"size" => return Err(io::Error::other("a file in it is too large")),
            _ => {}
        }
    }
    Ok(())
}
