//! The small files in which the kernel tells about the machine.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_types::facts::line;

/// The most that one of them may have.
const LARGEST: u64 = 4096;

/// `/sys`, `/proc` and so on below some directory: `/` on a machine, another one in tests.
#[derive(Debug, Clone)]
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Reads a file, up to a bound; nothing when it is not there.
    pub(super) fn bytes(&self, path: &str, most: u64) -> Option<Vec<u8>> {
        let file = fs::File::open(self.path(path)).ok()?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Reads a file of one line. The device tree ends its texts with a zero byte, and so may drivers.
    pub(super) fn text(&self, path: &str) -> String {
        let bytes = self.bytes(path, LARGEST).unwrap_or_default();
        let first = bytes.split(|byte| matches!(byte, 0 | b'\n')).next().unwrap_or_default();
        line(&String::from_utf8_lossy(first))
    }

    /// Reads the first file that says something.
    pub(super) fn first_text(&self, paths: &[String]) -> String {
        paths.iter().map(|path| self.text(path)).find(|text| !text.is_empty()).unwrap_or_default()
    }

    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path).parse().ok()
    }

    /// Returns the names in a directory in order, at most so many.
    pub(super) fn names(&self, directory: &str, most: usize) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(directory)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .take(most)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Returns the last part of where a link leads.
    pub(super) fn link(&self, path: &str) -> String {
        let target = fs::read_link(self.path(path)).unwrap_or_default();
        name_of(&target)
    }

    /// Returns the directory that a path is in truth.
    pub(super) fn real(&self, path: &str) -> Option<PathBuf> {
        fs::canonicalize(self.path(path)).ok()
    }
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
