//! Signed indexes in the cache: each with its address and what the server said of it, in one file, so that the parts
//! always belong together.
//!
//! ```text
//! URL: http://mirror.example/debian/dists/trixie/InRelease
//! ETag: "67c1"
//! Last-Modified: Sat, 21 Nov 2026 02:39:58 GMT
//!
//! -----BEGIN PGP SIGNED MESSAGE-----
//! …
//! ```

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::stanza::field;
use crate::durable::replace;
use crate::fetch::Validators;
use crate::hash::sha256;

/// Above what an address and two headers can have.
const MAX_HEAD: u64 = 64 << 10;

/// A signed index as it was fetched. Its signature is checked whenever it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) validators: Validators,
    pub(super) text: String,
}

impl Kept {
    /// Returns the directory of all of them.
    pub(super) fn dir(cache: &Path) -> PathBuf {
        cache.join("deb/release")
    }

    fn path(cache: &Path, url: &str) -> PathBuf {
        Self::dir(cache).join(sha256(url.as_bytes()).hex())
    }

    /// Reads the one of an address. What is not there or makes no sense is fetched anew.
    pub(super) fn read(cache: &Path, url: &str, limit: u64) -> Option<Self> {
        let file = fs::File::open(Self::path(cache, url)).ok()?;
        let mut all = String::new();
        file.take(limit + MAX_HEAD).read_to_string(&mut all).ok()?;
        let (head, text) = all.split_once("\n\n")?;
        if field(head, "URL") != Some(url) {
            return None;
        }
        let of = |name| field(head, name).map(str::to_owned);
        let validators = Validators { etag: of("ETag"), last_modified: of("Last-Modified") };
        Some(Self { validators, text: text.to_owned() })
    }

    /// Writes it, durably and at once.
    pub(super) fn write(&self, cache: &Path, url: &str) -> io::Result<()> {
        let Validators { etag, last_modified } = &self.validators;
        let mut bytes = Vec::new();
        writeln!(bytes, "URL: {url}")?;
        for (name, value) in [("ETag", etag), ("Last-Modified", last_modified)] {
            if let Some(value) = value {
                writeln!(bytes, "{name}: {value}")?;
            }
        }
        write!(bytes, "\n{}", self.text)?;
        replace(&Self::path(cache, url), &bytes, 0o644)
    }

    /// Forgets the one of an address.
    pub(super) fn remove(cache: &Path, url: &str) {
        // One that stays is asked about again.
        let _ = fs::remove_file(Self::path(cache, url));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_and_only_for_its_address() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(Kept::dir(dir.path())).unwrap();
        let validators = Validators { etag: Some("\"a: b\"".to_owned()), last_modified: None };
        let kept = Kept { validators, text: "-----\n\nETag: x\n\ny".to_owned() };
        kept.write(dir.path(), "http://a/InRelease").unwrap();
        assert_eq!(Kept::read(dir.path(), "http://a/InRelease", 99), Some(kept));
        assert_eq!(Kept::read(dir.path(), "http://b/InRelease", 99), None);
        let (a, b) = ["http://a/InRelease", "http://b/InRelease"]
            .map(|it| Kept::path(dir.path(), it))
            .into();
        fs::copy(&a, &b).unwrap();
        assert_eq!(Kept::read(dir.path(), "http://b/InRelease", 99), None);
        fs::write(&a, [0xff; 9]).unwrap();
        assert_eq!(Kept::read(dir.path(), "http://a/InRelease", 99), None);
    }
}
