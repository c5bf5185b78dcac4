use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{BuildError, BuildSettings};
use crate::hash::sha256;
use crate::manifest::Manifest;
use crate::provenance::{self, Material, Recipe};
use crate::store::{Store, VersionEntry};
use crate::trust::{PROVENANCE, SIGNATURE, SiteKey, sign_version};

/// Says what a version was built from. Files are named by their last part only: where they are is of no use to others.
pub(super) fn recipe(
    specs: &[PathBuf],
    manifest: &Manifest,
    settings: &BuildSettings,
    finished: u64,
) -> Recipe {
    let mut materials: Vec<_> = manifest.packages.iter().map(Material::package).collect();
    let images = &manifest.sources;
    materials.extend(images.iter().map(|image| Material::image(&image.reference, &image.digest)));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for path in specs {
        if let Ok(bytes) = std::fs::read(path) {
            materials.push(Material::file(name(path), &sha256(&bytes)));
        }
    }
    let specs: Vec<_> = specs.iter().map(|path| name(path)).collect();
    let parameters = BTreeMap::from([
        ("image".to_owned(), json!(manifest.image)),
        ("arch".to_owned(), json!(manifest.arch)),
        ("specifications".to_owned(), json!(specs)),
        ("settings".to_owned(), json!(settings)),
    ]);
    Recipe { parameters, materials, finished }
}

/// Signs a version and states how it was built.
pub(super) fn sign(
    version: VersionEntry,
    store: &Store,
    key: &SiteKey,
    manifest: &Manifest,
    recipe: &Recipe,
) -> Result<VersionEntry, BuildError> {
    let digest = version.digest;
    let statement =
        provenance::signed(key, manifest, &digest, recipe).map_err(BuildError::Manifest)?;
    Ok(version
        .with(SIGNATURE, sign_version(store, key, &digest)?)
        .with(PROVENANCE, store.put(&statement)?))
}
