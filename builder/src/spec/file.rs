//! Files of the root file system, and of the build host that they come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::fields::FileMode;
use super::ids::UserId;
use super::place::Placed;
use super::text::{as_text, short};
use crate::tree::TreePath;

/// A file, directory or link of the root file system: exactly one of `contents`, `source`, `metadata`, `symlink` and
/// `directory: true`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Where it goes.
    #[serde(serialize_with = "absolute")]
    #[schemars(with = "String")]
    pub path: Placed<TreePath>,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
    /// A file of the build host to copy; relative to the specification, or else to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFile>,
    /// The whole specification, as it is built, in this format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataFormat>,
    /// The target of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symlink: Option<String>,
    /// Whether it is a directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub directory: bool,
    /// Whether a `source` may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Permissions in octal; 0600, for a directory 0700.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Owner; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Placed<UserId>>,
    /// Group; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Placed<UserId>>,
}

/// Writes a path from the root.
fn absolute<S: Serializer>(path: &TreePath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("/{path}"))
}

/// How the specification is written into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetadataFormat {
    /// As YAML.
    Yaml,
    /// As JSON.
    Json,
}

/// A file of the build host. Two are the same when they are written in the same way.
#[derive(Clone, Debug)]
pub struct SourceFile {
    written: String,
    path: PathBuf,
}

impl SourceFile {
    pub(super) fn new(written: &str) -> Self {
        Self { written: written.to_owned(), path: PathBuf::from(written) }
    }

    /// Returns the path as it is written in the specification.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_dir(&self) -> bool {
        self.path.is_dir()
    }

    /// Finds where it is, for a specification in this folder.
    pub(super) fn find(&mut self, dir: &Path) {
        self.path = beside(Path::new(&self.written), dir);
    }
}

/// Returns where a file or folder of the build host is that a specification in this folder names.
pub(super) fn beside(written: &Path, dir: &Path) -> PathBuf {
    if let Ok(rest) = written.strip_prefix("~") {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        return home.map_or_else(|| written.to_owned(), |home| Path::new(&home).join(rest));
    }
    let beside = dir.join(written);
    // LinuxKit looks in the working directory.
    if beside.exists() || !written.exists() { beside } else { written.to_owned() }
}

impl PartialEq for SourceFile {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for SourceFile {}

impl FromStr for SourceFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err(format!("`{}` is not the path of a file", short(text)));
        }
        Ok(Self::new(text))
    }
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.written)
    }
}

as_text!(SourceFile);
