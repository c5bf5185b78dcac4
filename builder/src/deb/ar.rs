//! The outer container of a package: an `ar` archive of a version, a control and a data member (deb(5)).

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use std::io;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Why there is no such member.
#[derive(Debug)]
pub(crate) enum ArError {
    Io(io::Error),
    Truncated,
    Malformed(&'static str),
}

/// The member that holds the files, or what the package says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// What follows `data.tar` or `control.tar`: nothing or the suffix of a compression.
    pub(crate) suffix: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The name of the member that holds the files.
pub(crate) const DATA: &str = "data.tar";
/// The name of the member that holds what the package says of itself.
pub(crate) const CONTROL: &str = "control.tar";

/// Finds a member of a package file by the beginning of its name.
pub(crate) fn find(file: &File, wanted: &str) -> Result<Member, ArError> {
    let end = file.metadata().map_err(ArError::Io)?.len();
    let mut magic = [0; MAGIC.len()];
    read(file, &mut magic, 0, end)?;
    if magic != MAGIC {
        return Err(ArError::Malformed("it is not a Debian package"));
    }
    let mut at = MAGIC.len() as u64;
    let mut first = true;
    // There are three members; a few more are allowed for, such as signatures.
    for _ in 0..16 {
        let mut header = [0; HEADER];
        read(file, &mut header, at, end)?;
        if !header.ends_with(b"`\n") {
            return Err(ArError::Malformed("the header of a member is broken"));
        }
        let text = |range: std::ops::Range<usize>| {
            str::from_utf8(&header[range]).map(|it| it.trim_end()).unwrap_or_default()
        };
        let name = text(0..16).trim_end_matches('/');
        let len: u64 = Some(text(48..58))
            .filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|it| it.parse().ok())
            .ok_or(ArError::Malformed("the size of a member is not a number"))?;
        let offset = at + HEADER as u64;
        if end - offset < len {
            return Err(ArError::Truncated);
        }
        if first {
            let mut version = [0; 2];
            if name != "debian-binary" || len < 4 {
                return Err(ArError::Malformed("it is not a Debian package"));
            }
            read(file, &mut version, offset, end)?;
            if version != *b"2." {
                return Err(ArError::Malformed("its format is not 2.x"));
            }
            first = false;
        } else if let Some(suffix) = name.strip_prefix(wanted) {
            return Ok(Member { suffix: suffix.to_owned(), offset, len });
        }
        at = offset + len + len % 2;
        if at > end {
            return Err(ArError::Truncated);
        }
    }
    Err(ArError::Malformed(match wanted {
        CONTROL => "it has no control member",
        _ => "it has no data member",
    }))
}

fn read(file: &File, buffer: &mut [u8], at: u64, end: u64) -> Result<(), ArError> {
    if end.saturating_sub(at) < buffer.len() as u64 {
        return Err(ArError::Truncated);
    }
    file.read_exact_at(buffer, at).map_err(ArError::Io)
}
