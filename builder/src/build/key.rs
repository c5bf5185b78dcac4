use std::path::PathBuf;

use kiln_types::Digest;

use super::BuildError;
use crate::hash::{Hasher, HashingWriter};
use crate::lock::PackagePin;
use crate::segment::Packing;
use crate::tree::{Kind, Tree};

/// Changed whenever the same inputs would give other bytes.
const RECIPE: &str = "18";

/// Begins the key that a result is remembered under.
pub(super) fn key(what: &str, packing: Packing) -> Hasher {
    let mut hasher = Hasher::default();
    let Packing { mtime, compression, level, marked } = packing;
    let numbers = format!("{mtime} {compression} {level} {marked}");
    for field in [what, RECIPE, env!("CARGO_PKG_VERSION"), &numbers] {
        hasher.field(field);
    }
    hasher
}

/// Adds packages to a key.
pub(super) fn add_packages(key: &mut Hasher, packages: &[PackagePin]) {
    for package in packages {
        key.update(Digest::as_bytes(&package.sha256));
    }
}

/// Adds all that decides about the bytes of an archive to a key.
pub(super) fn add_tree(key: &mut Hasher, tree: &Tree) -> Result<(), BuildError> {
    for (path, node) in tree {
        key.field(path.as_str());
        key.field(&format!("{:o} {} {}", node.mode, node.uid, node.gid));
        match &node.kind {
            Kind::File(content) => {
                let mut inner =
                    HashingWriter { out: std::io::sink(), hasher: Hasher::default(), written: 0 };
                std::io::copy(&mut content.reader(), &mut inner).map_err(|source| {
                    BuildError::Source { path: PathBuf::from(path.as_str()), source }
                })?;
                key.update(inner.hasher.finish().as_bytes());
            }
            other => key.field(&format!("{other:?}")),
        }
    }
    Ok(())
}
