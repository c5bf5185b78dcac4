use tar::EntryType;

use super::error::Fault;
use super::sparse::{Sparse, number};
use super::stream::{BLOCK, Stream};
use crate::pax;
use crate::tree::{Content, Xattrs};

/// The most bytes of a long name, which may have a NUL at its end, and of a PAX header. Both are read into memory.
const MAX_NAME: u64 = 4096 + 1;
const MAX_PAX: u64 = 1 << 20;
/// The largest device numbers of Linux (`MINORBITS` is 20).
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// One entry of a layer, as it is written there.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: Xattrs,
    pub(super) what: What,
}

pub(super) enum What {
    Dir,
    File(Content),
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// What long-name and PAX headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    xattrs: Xattrs,
    sparse: Option<Sparse>,
    sparse_name: Option<Vec<u8>>,
}

impl Entry {
    /// Reads the next entry with its data, or nothing at the end of the archive.
    pub(super) fn read(stream: &mut Stream<'_>) -> Result<Option<Self>, Fault> {
        let mut said = Extensions::default();
        loop {
            let Some(block) = stream.block()? else { return Ok(None) };
            if block == [0; BLOCK] {
                // Two blocks of zeros end an archive; one alone is damage.
                return match stream.block()? {
                    None => Ok(None),
                    Some(next) if next == [0; BLOCK] => Ok(None),
                    Some(_) => Err(Fault::Malformed("its archive ends in the middle".to_owned())),
                };
            }
            let header = tar::Header::from_byte_slice(&block);
            if !has_good_sum(header, &block) {
                return Err(Fault::Malformed("it is no tar archive, or a damaged one".to_owned()));
            }
            let name = header.path_bytes().into_owned();
            let refuse = |reason: &str| Fault::entry(&name, reason);
            let kind = header.entry_type();
            let size = match kind {
                // Some tools give these a size, but never data.
                EntryType::Link
                | EntryType::Symlink
                | EntryType::Char
                | EntryType::Block
                | EntryType::Directory
                | EntryType::Fifo => 0,
                _ => header.entry_size().map_err(|_| refuse("has a broken size"))?,
            };
            match kind {
                EntryType::GNULongName | EntryType::GNULongLink if size > MAX_NAME => {
                    return Err(refuse("announces a name of more than 4095 bytes"));
                }
                EntryType::GNULongName => said.name = Some(until_nul(stream.bytes(size)?)),
                EntryType::GNULongLink => said.link = Some(until_nul(stream.bytes(size)?)),
                EntryType::XHeader | EntryType::XGlobalHeader if size > MAX_PAX => {
                    return Err(refuse("is a header of more than 1 MiB"));
                }
                EntryType::XHeader => {
                    said.pax(&stream.bytes(size)?).map_err(refuse)?;
                }
                EntryType::XGlobalHeader => {
                    stream.content(size)?;
                }
                _ => return said.entry(header, name, size, stream).map(Some),
            }
        }
    }
}

impl Extensions {
    fn pax(&mut self, header: &[u8]) -> Result<(), &'static str> {
        const BROKEN: &str = "is a broken header";
        for record in pax::records(header) {
            let (key, value) = record.map_err(|()| BROKEN)?;
            // Nothing after the `=` takes back what was said before.
            let text = || (!value.is_empty()).then(|| value.to_vec());
            let digits = || match value {
                b"" => Ok(None),
                value => number(value).map(Some).ok_or(BROKEN),
            };
            match key {
                "path" => self.name = text(),
                "linkpath" => self.link = text(),
                "size" => self.size = digits()?,
                "uid" => self.uid = digits()?,
                "gid" => self.gid = digits()?,
                "GNU.sparse.name" => self.sparse_name = text(),
                key => {
                    if let Some(name) = key.strip_prefix(pax::XATTR) {
                        pax::add_xattr(&mut self.xattrs, name, value)?;
                    } else if let Some(key) = key.strip_prefix("GNU.sparse.") {
                        self.sparse.get_or_insert_default().record(key, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the entry that the header and what came before it describe.
    fn entry(
        self,
        header: &tar::Header,
        name: Vec<u8>,
        size: u64,
        stream: &mut Stream<'_>,
    ) -> Result<Entry, Fault> {
        let name = self.sparse_name.or(self.name).unwrap_or(name);
        let refuse = |reason: &str| Fault::entry(&name, reason);
        let id = |said: Option<u64>, field: std::io::Result<u64>| {
            let value = said.map_or(field, Ok).map_err(|_| refuse("has a broken owner"))?;
            u32::try_from(value).map_err(|_| refuse("has an owner beyond 32 bits"))
        };
        let link = || {
            let field = || header.link_name_bytes().map(Into::into);
            self.link.clone().or_else(field).ok_or_else(|| refuse("links to nothing"))
        };
        let kind = header.entry_type();
        let what = match kind {
            EntryType::Directory => What::Dir,
            // The oldest tar had no mark for directories but this one.
            EntryType::Regular if header.as_bytes()[156] == 0 && name.ends_with(b"/") => What::Dir,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let size = self.size.unwrap_or(size);
                let old = match header.as_gnu().filter(|_| kind == EntryType::GNUSparse) {
                    Some(header) => Some(Sparse::read_old(header, stream)?.map_err(refuse)?),
                    None if kind == EntryType::GNUSparse => {
                        return Err(refuse("is sparse, but not in GNU's format"));
                    }
                    None => None,
                };
                stream.could_have(size).map_err(|reason| refuse(&reason))?;
                What::File(match old.or(self.sparse) {
                    Some(sparse) => sparse_content(sparse, size, stream, &refuse)?,
                    None => stream.content(size)?,
                })
            }
            EntryType::Symlink => What::Symlink(link()?),
            EntryType::Link => What::Hardlink(link()?),
            EntryType::Char | EntryType::Block => {
                let number = |field: std::io::Result<Option<u32>>, most: u32| {
                    let value = field.ok().flatten().filter(|it| *it <= most);
                    value.ok_or_else(|| refuse("has a device number that Linux does not have"))
                };
                let major = number(header.device_major(), MAX_MAJOR)?;
                let minor = number(header.device_minor(), MAX_MINOR)?;
                match kind {
                    EntryType::Char => What::CharDevice(major, minor),
                    _ => What::BlockDevice(major, minor),
                }
            }
            EntryType::Fifo => What::Fifo,
            _ => return Err(refuse("is of a kind that layers do not have")),
        };
        let mode = header.mode().map_err(|_| refuse("has a broken mode"))? & 0o7777;
        let (uid, gid) = (id(self.uid, header.uid())?, id(self.gid, header.gid())?);
        Ok(Entry { mode, uid, gid, xattrs: self.xattrs, what, name })
    }
}

fn sparse_content(
    mut sparse: Sparse,
    size: u64,
    stream: &mut Stream<'_>,
    refuse: &impl Fn(&str) -> Fault,
) -> Result<Content, Fault> {
    let stored = sparse.read_map(stream, size)?.map_err(refuse)?;
    sparse.check(stored).map_err(refuse)?;
    stream.could_have(sparse.size).map_err(|reason| refuse(&reason))?;
    let content = stream.expand(&sparse.map, sparse.size)?;
    stream.pad(stored)?;
    Ok(content)
}

/// Checks the sum of a header: of unsigned bytes, or of signed ones as some old tools had it.
fn has_good_sum(header: &tar::Header, block: &[u8; BLOCK]) -> bool {
    let Ok(sum) = header.cksum() else { return false };
    let bytes = || block.iter().enumerate().filter(|(at, _)| !(148..156).contains(at));
    let spaces = 8 * u32::from(b' ');
    let unsigned: u32 = bytes().map(|(_, byte)| u32::from(*byte)).sum();
    let signed: i32 = bytes().map(|(_, byte)| i32::from(byte.cast_signed())).sum();
    sum == unsigned + spaces || i64::from(sum) == i64::from(signed) + i64::from(spaces)
}

fn until_nul(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(value.iter().position(|byte| *byte == 0).unwrap_or(value.len()));
    value
}
