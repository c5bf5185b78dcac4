//! Finds the files of a directory and reads their texts, within bounds.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::FilesError;
use super::read::Format;

/// The largest file, and all of them together.
const MOST_BYTES: u64 = 16 << 20;
const MOST_BYTES_TOGETHER: u64 = 64 << 20;
/// The most files and folders.
const MOST_ENTRIES: usize = 20_000;
/// How deep folders may be in each other.
const DEEPEST: usize = 32;

/// The text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// Its path, as messages name it.
    pub name: String,
    /// What it is written in.
    pub format: Format,
    /// What is in it.
    pub text: String,
}

/// Reads a file, or the files of a directory and of those in it, in the order of their names. What is hidden, and what
/// ends neither in .yaml, .yml nor .toml, is passed over in a directory.
///
/// # Errors
///
/// Names the file that cannot be read, or that goes beyond a bound.
pub fn gather(path: &Path) -> Result<Vec<Gathered>, FilesError> {
    let failed = |source| FilesError::Read { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(failed)?;
    let mut walk = Walk { found: Vec::new(), entries: 0, above: Vec::new() };
    if meta.is_dir() {
        walk.directory(path, &meta)?;
    } else {
        walk.found.push((path.to_owned(), Format::of(path).unwrap_or(Format::Yaml)));
    }
    let mut all = Vec::with_capacity(walk.found.len());
    let mut together = 0;
    for (path, format) in walk.found {
        let text =
            read_text(&path).map_err(|source| FilesError::Read { path: path.clone(), source })?;
        together += text.len() as u64;
        if together > MOST_BYTES_TOGETHER {
            let what =
                format!("with this file there are more than {} MiB", MOST_BYTES_TOGETHER >> 20);
            return Err(FilesError::TooMuch { path, what });
        }
        all.push(Gathered { name: path.to_string_lossy().into_owned(), format, text });
    }
    Ok(all)
}

/// Reads what comes in by another way, such as the standard input.
///
/// # Errors
///
/// When it is too long or no text.
pub fn gather_text(name: &str, format: Format, input: impl Read) -> Result<Gathered, FilesError> {
    let text = limited(input).map_err(|source| FilesError::Read { path: name.into(), source })?;
    Ok(Gathered { name: name.to_owned(), format, text })
}

struct Walk {
    found: Vec<(PathBuf, Format)>,
    entries: usize,
    /// The folders that this one is in, by device and inode: one that is in itself by a link would never end.
    above: Vec<(u64, u64)>,
}

impl Walk {
    fn directory(&mut self, path: &Path, meta: &Metadata) -> Result<(), FilesError> {
        let too_much =
            |what: &str| FilesError::TooMuch { path: path.to_owned(), what: what.to_owned() };
        let this = (meta.dev(), meta.ino());
        if self.above.contains(&this) {
            return Err(too_much("is a link to a folder that it is in; remove the link"));
        }
        if self.above.len() >= DEEPEST {
            return Err(too_much("folders are too deep in each other"));
        }
        self.above.push(this);
        let failed = |source| FilesError::Read { path: path.to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(too_much("there are too many files; is this the right directory?"));
            }
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort_unstable();
        for name in names {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let inner = path.join(&name);
            let format = Format::of(&inner);
            let meta = match std::fs::metadata(&inner) {
                Ok(meta) => meta,
                // It went away meanwhile, or is a link to nothing that is none of ours.
                Err(error) if error.kind() == io::ErrorKind::NotFound && format.is_none() => {
                    continue;
                }
                Err(source) => return Err(FilesError::Read { path: inner, source }),
            };
            if meta.is_dir() {
                self.directory(&inner, &meta)?;
            } else if let Some(format) = format {
                self.found.push((inner, format));
            }
        }
        self.above.pop();
        Ok(())
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // A pipe would wait for somebody who writes into it.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    limited(file as File)
}

fn limited(input: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        let text = format!("it is larger than {} MiB; divide it", MOST_BYTES >> 20);
        return Err(io::Error::other(text));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8; save it as UTF-8"))
    })
}

/// Returns the name of a source that a path suggests: its last part.
pub fn source_of(path: &Path) -> Option<String> {
    if path.as_os_str() == "-" {
        return Some("stdin".to_owned());
    }
    let whole = std::fs::canonicalize(path).ok()?;
    let name = whole.file_stem()?.to_str()?.to_ascii_lowercase();
    let letter = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().map(letter).take(63).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    (!name.is_empty()).then(|| name.to_owned())
}
