use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The most members of an archive.
const MAX_MEMBERS: usize = 100_000;
/// The most bytes of all headers: long names and attributes are read into memory.
const MAX_HEADERS: u64 = 128 << 20;
/// Links are followed so many times.
const MAX_LINKS: usize = 8;

/// Where the members of an archive are.
#[derive(Debug)]
pub(super) struct Members {
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

impl Members {
    /// Reads the headers of an archive.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let broken = |error: io::Error| format!("it is no tar archive ({error})");
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let mut start = [0; 4];
        let n = file.read(&mut start).map_err(|error| error.to_string())?;
        if start[..n].starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err("it is compressed; decompress it first".to_owned());
        }
        file.rewind().map_err(|error| error.to_string())?;
        let mut members = Self { files: HashMap::new(), links: HashMap::new() };
        let mut archive = tar::Archive::new(Headers { file, left: MAX_HEADERS });
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.trim_start_matches("./").to_owned();
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                if let Some(target) = entry.link_name_bytes() {
                    let target = String::from_utf8_lossy(&target).into_owned();
                    let target = if kind.is_symlink() { join(&name, &target) } else { target };
                    members.links.insert(name, target);
                }
            } else if kind.is_file() || kind.is_contiguous() {
                members.files.insert(name, (entry.raw_file_position(), entry.size()));
            }
            if members.files.len() + members.links.len() > MAX_MEMBERS {
                return Err(format!("it has more than {MAX_MEMBERS} members"));
            }
        }
        Ok(members)
    }

    /// Returns where a member begins and how long it is.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            if let Some(found) = self.files.get(name) {
                return Some(*found);
            }
            name = self.links.get(name)?;
        }
        None
    }

    /// Reads a small member.
    pub(super) fn bytes(&self, path: &Path, name: &str, limit: u64) -> Option<Vec<u8>> {
        let (offset, len) = self.find(name)?;
        read_part(path, offset, len, limit)
    }
}

/// An archive of which only the headers are read; what is between them is skipped.
struct Headers {
    file: File,
    left: u64,
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::other(format!("its headers have more than {MAX_HEADERS} bytes"))
        })?;
        Ok(n)
    }
}

impl Seek for Headers {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Reads a part of a file, if it is small and all there.
pub(super) fn read_part(path: &Path, offset: u64, len: u64, limit: u64) -> Option<Vec<u8>> {
    if len > limit {
        return None;
    }
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == len).then_some(bytes)
}

/// Returns what a symbolic link of an archive leads to: `../HEX/layer.tar` from `HEX/layer.tar`.
fn join(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
