//! Which package each fetched loader is from, in a file beside them: a loader stays as it is until someone removes it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use kiln_builder::deb::Package;
use kiln_builder::durable;
use kiln_builder::hash::sha256;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::read;

/// The file.
const NAME: &str = "origins.json";

/// Where a file is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    package: String,
    version: String,
    /// Hash of the package.
    package_sha256: Digest,
    /// Hash of the file; of a folder there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
}

impl Origin {
    /// Names a package.
    pub(super) fn of(package: &Package) -> Self {
        Self {
            package: package.name.clone(),
            version: package.version.to_string(),
            package_sha256: package.sha256,
            sha256: None,
        }
    }

    /// Adds the file itself.
    pub(super) fn with(&self, bytes: &[u8]) -> Self {
        Self { sha256: Some(sha256(bytes)), ..self.clone() }
    }
}

type Origins = BTreeMap<String, Origin>;

fn origins(dir: &Path) -> Origins {
    let bytes = read(&dir.join(NAME)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Writes down where files are from.
pub(super) fn note(dir: &Path, new: impl IntoIterator<Item = (String, Origin)>) -> io::Result<()> {
    let mut all = origins(dir);
    all.extend(new);
    let mut text = serde_json::to_vec_pretty(&all)?;
    text.push(b'\n');
    durable::replace(&dir.join(NAME), &text, 0o600)
}

/// Says which files are not those that were fetched.
pub(super) fn compare(dir: &Path) {
    for (file, origin) in changed(dir) {
        let Origin { package, version, .. } = origin;
        tracing::warn!(
            file,
            package,
            version,
            "the loader is not the one that was fetched; remove it to have it fetched again"
        );
    }
}

fn changed(dir: &Path) -> Vec<(String, Origin)> {
    let differs = |file: &String, origin: &Origin| {
        let is = read(&dir.join(file)).ok().map(|bytes| sha256(&bytes));
        is.is_some() && origin.sha256.is_some() && is != origin.sha256
    };
    origins(dir).into_iter().filter(|(file, origin)| differs(file, origin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_than_the_one_that_was_fetched_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin {
            package: "ipxe".to_owned(),
            version: "1.21.1".to_owned(),
            package_sha256: Digest::from_bytes([1; 32]),
            sha256: None,
        };
        for (name, bytes) in [("a.efi", b"one"), ("b.efi", b"two")] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            note(dir.path(), [(name.to_owned(), origin.with(bytes))]).unwrap();
        }
        note(dir.path(), [("raspberry-pi".to_owned(), origin.clone())]).unwrap();
        assert_eq!(origins(dir.path()).len(), 3);
        assert!(changed(dir.path()).is_empty());
        std::fs::write(dir.path().join("b.efi"), b"else").unwrap();
        std::fs::remove_file(dir.path().join("a.efi")).unwrap();
        let found: Vec<String> = changed(dir.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["b.efi"]);
        std::fs::write(dir.path().join(NAME), b"{").unwrap();
        assert!(changed(dir.path()).is_empty());
    }
}
