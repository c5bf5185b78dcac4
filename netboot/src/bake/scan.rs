//! Reads the folder of specifications.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_builder::hash::Hasher;
use kiln_types::{Digest, ImageRef};

/// The largest specification that is looked at.
const MAX_SPEC: u64 = 16 << 20;
/// The most images in a folder.
const MAX_IMAGES: usize = 10_000;

/// The specification of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its files, in the order in which they are merged.
    pub(super) specs: Vec<PathBuf>,
    /// Digest of all their bytes, and of the lock file beside them.
    pub(super) fingerprint: Digest,
    /// The lock file beside them, where there is one.
    pub(super) lock: Option<PathBuf>,
}

/// What is in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Images by name.
    pub(super) found: BTreeMap<String, Found>,
    /// What is left out, and why; it may be as it should the next time.
    pub(super) left_out: BTreeMap<PathBuf, String>,
}

/// Finds every image: `NAME.yml` is one, and so is a folder `NAME` with `.yml` files, which are merged in the order of
/// their names.
///
/// # Errors
///
/// Fails when the folder itself cannot be read.
pub(super) fn scan(dir: &Path) -> std::io::Result<Scanned> {
    let Scanned { mut found, mut left_out } = Scanned::default();
    for entry in sorted(dir)? {
        let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with('.') || found.len() >= MAX_IMAGES {
            continue;
        }
        let (image, specs) = if entry.is_dir() {
            let inside = sorted(&entry).unwrap_or_default();
            (name, inside.into_iter().filter(|path| is_spec(path)).collect())
        } else if is_spec(&entry) {
            (stem(name), vec![entry.clone()])
        } else {
            continue;
        };
        if specs.is_empty() {
            continue;
        }
        match image.parse::<ImageRef>() {
            Ok(parsed) if parsed.name() == image => {}
            _ => {
                left_out.insert(entry, "it has no name for an image".to_owned());
                continue;
            }
        }
        let lock = dir.join(format!("{image}.lock"));
        let lock = lock.is_file().then_some(lock);
        match fingerprint(specs.iter().chain(&lock)) {
            Ok(fingerprint) => {
                found.insert(image.to_owned(), Found { specs, fingerprint, lock });
            }
            Err(error) => {
                left_out.insert(entry, crate::cli::chain(&error));
            }
        }
    }
    Ok(Scanned { found, left_out })
}

fn sorted(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn is_spec(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|end| end == "yml" || end == "yaml") && path.is_file()
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn fingerprint<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> std::io::Result<Digest> {
    let mut hasher = Hasher::default();
    for path in paths {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_SPEC + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_SPEC {
            return Err(std::io::Error::other("it is larger than 16 MiB"));
        }
        hasher.field(&path.to_string_lossy());
        hasher.update(kiln_builder::hash::sha256(&bytes).as_bytes());
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_and_folders_are_images_and_other_things_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["node", "empty"] {
            fs::create_dir(path(folder)).unwrap();
        }
        for file in [
            "web.yml",
            "db.yaml",
            "web.lock",
            "notes.txt",
            ".web.yml.swp",
            "Bad Name.yml",
            "node/20-more.yml",
            "node/10-base.yml",
            "node/readme",
        ] {
            fs::write(path(file), file).unwrap();
        }
        let Scanned { found, left_out } = scan(dir.path()).unwrap();
        assert_eq!(left_out.keys().collect::<Vec<_>>(), [&path("Bad Name.yml")]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["db", "node", "web"]);
        assert_eq!(found["node"].specs, [path("node/10-base.yml"), path("node/20-more.yml")]);
        assert_eq!(found["web"].lock, Some(path("web.lock")));
        assert_eq!(found["db"].lock, None);
    }

    #[test]
    fn a_change_of_a_specification_or_its_lock_changes_its_fingerprint_only() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.yml", "b.yml"] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        let before = scan(dir.path()).unwrap().found;
        fs::write(dir.path().join("a.yml"), "y").unwrap();
        let changed = scan(dir.path()).unwrap().found;
        assert_ne!(before["a"].fingerprint, changed["a"].fingerprint);
        assert_eq!(before["b"], changed["b"]);
        fs::write(dir.path().join("b.lock"), "z").unwrap();
        assert_ne!(scan(dir.path()).unwrap().found["b"].fingerprint, before["b"].fingerprint);
        assert!(scan(&dir.path().join("gone")).is_err());
    }
}
