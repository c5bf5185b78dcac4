use std::fmt;

use serde::Deserialize;

/// The longest path, in bytes: `PATH_MAX` without its NUL.
const MAX_PATH: usize = 4095;

/// A clean relative path inside a tree: no empty, `.` or `..` parts, no NUL, at most 4095 bytes (`PATH_MAX`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TreePath(String);

/// The text is not a path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path inside an image: {problem}")]
pub struct TreePathError {
    path: String,
    problem: &'static str,
}

impl TreePath {
    /// Cleans a path: a leading `/` or `./`, `.` parts, doubled and trailing slashes are dropped.
    ///
    /// # Errors
    ///
    /// Fails when nothing is left, when a part is `..`, when there is a NUL or when it is too long.
    pub fn new(path: &str) -> Result<Self, TreePathError> {
        let fail = |problem| TreePathError { path: path.chars().take(200).collect(), problem };
        if path.contains('\0') {
            return Err(fail("it contains a NUL byte"));
        }
        let mut clean = String::with_capacity(path.len().min(MAX_PATH));
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(fail("`..` could lead out of it"));
            }
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.push_str(part);
        }
        match clean.len() {
            0 => Err(fail("it names the root itself")),
            1..=MAX_PATH => Ok(Self(clean)),
            _ => Err(fail("it is longer than 4095 bytes")),
        }
    }

    /// Returns the path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the directory that holds it, or nothing when that is the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Returns the last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Returns the bounds, the second one excluded, between which all paths below this one sort.
    pub(crate) fn range_below(&self) -> (Self, Self) {
        // `/` is followed by `0`.
        (Self(format!("{self}/")), Self(format!("{self}0")))
    }

    /// Returns this path below another one.
    ///
    /// # Errors
    ///
    /// Fails when the two together are too long.
    pub fn below(&self, base: &Self) -> Result<Self, TreePathError> {
        Self::new(&format!("{base}/{self}"))
    }
}

impl TryFrom<String> for TreePath {
    type Error = TreePathError;

    fn try_from(path: String) -> Result<Self, TreePathError> {
        Self::new(&path)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> TreePath {
        TreePath::new(s).unwrap()
    }

    #[test]
    fn paths_are_cleaned_and_never_leave_the_tree() {
        assert_eq!(path("./usr//bin/./sh/").as_str(), "usr/bin/sh");
        assert_eq!(path("/etc").parent(), None);
        assert_eq!(path("a/b").parent(), Some(path("a")));
        for bad in ["", "/", ".", "..", "a/../b", "a\0", &"a".repeat(4096)] {
            assert!(TreePath::new(bad).is_err(), "{bad}");
        }
    }
}
