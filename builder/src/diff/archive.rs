use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use kiln_types::Digest;
use serde::Serialize;

use crate::hash::{Hasher, HashingWriter};
use crate::manifest::SegmentCompression;

const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Where the marks at the ends of segments are.
const OWN: &str = ".kiln";
/// `PATH_MAX`, of names and of targets.
const MAX_NAME: u64 = 4096;

/// A file of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: EntryKind,
}

/// What a file of a segment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file, by the digest of its content.
    File(Digest),
    /// A directory.
    Dir,
    /// A symbolic link and its target.
    Symlink(String),
    /// A device or a pipe: its type in `stat`'s numbers, and the numbers of a device.
    Special(u32, u32, u32),
}

/// Reads the files of a segment. Names of one file get the same content.
pub(super) fn read(
    path: &Path,
    compression: SegmentCompression,
    all: &mut BTreeMap<String, Entry>,
) -> io::Result<()> {
    let file = BufReader::with_capacity(1 << 17, File::open(path)?);
    match compression {
        SegmentCompression::None => members(file, all),
        SegmentCompression::Zstd => members(zstd::Decoder::with_buffer(file)?.single_frame(), all),
        SegmentCompression::Gzip => members(flate2::bufread::GzDecoder::new(file), all),
    }
}

fn members(input: impl Read, all: &mut BTreeMap<String, Entry>) -> io::Result<()> {
    let mut input = Counter { input: BufReader::with_capacity(1 << 17, input), read: 0 };
    // The content comes with the last name of a file: those before wait for it.
    let mut links: HashMap<u32, Vec<String>> = HashMap::new();
    loop {
        let mut header = [0; HEADER];
        input.exact(&mut header)?;
        if !header.starts_with(b"070701") {
            return Err(wrong("it is not a cpio archive"));
        }
        let field = |n: usize| {
            let text = header.get(6 + 8 * n..14 + 8 * n).and_then(|t| std::str::from_utf8(t).ok());
            text.and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or_else(|| wrong("a header is damaged"))
        };
        let name = input.text(u64::from(field(11)?).saturating_sub(1))?;
        input.skip(1)?;
        input.align()?;
        if name == TRAILER {
            return Ok(());
        }
        let (ino, mode, size) = (field(0)?, field(1)?, u64::from(field(6)?));
        let kind = match mode & 0o170_000 {
            0o040_000 => EntryKind::Dir,
            0o120_000 => EntryKind::Symlink(input.text(size)?),
            0o100_000 => EntryKind::File(input.digest(size)?),
            special => EntryKind::Special(special, field(9)?, field(10)?),
        };
        input.align()?;
        let entry = Entry { mode: mode & 0o7777, uid: field(2)?, gid: field(3)?, size, kind };
        if field(4)? > 1 && matches!(entry.kind, EntryKind::File(_)) {
            let names = links.entry(ino).or_default();
            for earlier in names.iter().filter(|_| size > 0) {
                all.insert(earlier.clone(), entry.clone());
            }
            names.push(name.clone());
        }
        // What kiln-init takes away before anything can see it.
        if name != OWN && !name.strip_prefix(OWN).is_some_and(|rest| rest.starts_with('/')) {
            all.insert(name, entry);
        }
    }
}

struct Counter<R> {
    input: BufReader<R>,
    read: u64,
}

impl<R: Read> Counter<R> {
    fn exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.read += buffer.len() as u64;
        self.input.read_exact(buffer)
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        self.read += len;
        match io::copy(&mut self.input.by_ref().take(len), &mut io::sink())? == len {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn align(&mut self) -> io::Result<()> {
        self.skip(self.read.next_multiple_of(4) - self.read)
    }

    fn text(&mut self, len: u64) -> io::Result<String> {
        if len > MAX_NAME {
            return Err(wrong("a name is too long"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn digest(&mut self, len: u64) -> io::Result<Digest> {
        let mut out = HashingWriter { out: io::sink(), hasher: Hasher::default(), written: 0 };
        let mut left = len;
        while left > 0 {
            let available = self.input.fill_buf()?;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(available.len());
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            io::Write::write_all(&mut out, &available[..n])?;
            self.input.consume(n);
            left -= n as u64;
        }
        self.read += len;
        Ok(out.hasher.finish())
    }
}

fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, Node, Tree, TreePath};

    #[test]
    fn fuzzed_segments_are_read_or_refused() {
        let mut tree = Tree::default();
        let path = |text| TreePath::new(text).unwrap();
        let file = Node::file(0o644, *b"x");
        tree.insert(path("etc/a"), file);
        tree.insert(path("etc/b"), Node::new(0o644, Kind::Hardlink(path("etc/a"))));
        tree.insert(path("l"), Node::symlink("etc/a"));
        let mut whole = Vec::new();
        crate::cpio::write(&tree, 0, &mut whole).unwrap();
        kiln_fuzz::check("cpio", &[&whole], |bytes| {
            let mut all = BTreeMap::new();
            let _ = members(bytes, &mut all);
            assert!(all.len() * HEADER <= bytes.len());
        });
    }
}
