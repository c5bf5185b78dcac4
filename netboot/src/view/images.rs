//! Reads the index of the artifact store, and settles which versions may be served.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::Arc;

use kiln_builder::hash::sha256;
use kiln_builder::manifest::Manifest;
use kiln_builder::store::{Index, Store as Artifacts, VersionEntry};
use kiln_builder::trust::{KeyDir, SIGNATURE, Signature, check_signature};
use kiln_inventory::{Artifact, ImageVersion};
use kiln_types::{Arch, Digest, ImageRef};

use super::{ServedVersion, ViewError};

/// The most that a signature has.
const MAX_SIGNATURE: u64 = 4096;

/// Each channel's version, by architecture.
type Named = BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>;
/// The version that each channel was served with last.
pub(super) type Served = BTreeMap<ImageRef, BTreeMap<Arch, Digest>>;

/// What was read, to be served and to be compared with the next time.
#[derive(Clone, Debug, Default)]
pub(super) struct Images {
    pub(super) named: Named,
    pub(super) blobs: HashMap<Digest, u64>,
    /// Manifests that were read and checked. They never change.
    versions: HashMap<Digest, Arc<Manifest>>,
    /// Versions that are not served, and why.
    pub(super) refused: BTreeMap<Digest, String>,
    /// Versions that are served, whether a channel names them or not.
    pub(super) served: HashMap<Digest, ServedVersion>,
    /// The public keys whose signatures count, in hexadecimal digits.
    pub(super) keys: Vec<String>,
}

/// Returns which versions would not be served, and why: those that no trusted key has signed.
///
/// # Errors
///
/// Fails when the keys cannot be read.
pub fn refused(
    artifacts: &Artifacts,
    index: &Index,
    keys: &KeyDir,
) -> Result<BTreeMap<Digest, String>, kiln_builder::trust::TrustError> {
    let trusted = keys.trusted()?;
    let arches = index.images.values().flat_map(BTreeMap::values);
    let versions = arches.flat_map(|entry| &entry.versions);
    let check = |version: &VersionEntry| {
        let error = check_signature(artifacts, version, &trusted).err()?;
        Some((version.digest, error.to_string()))
    };
    Ok(versions.filter_map(check).collect())
}

/// Reads the index and every manifest that is new. A version that is damaged, or that is not signed although it has to
/// be, is left out; a channel that names such a version keeps the one that it was served with before.
pub(super) fn read(
    artifacts: &Artifacts,
    keys: Option<&KeyDir>,
    before: &Images,
) -> Result<Images, ViewError> {
    let failed = |source| ViewError::Artifacts(artifacts.dir().to_owned(), source);
    let index = artifacts.index().map_err(failed)?;
    let mut images = Images::default();
    if let Some(keys) = keys {
        let unread = |source| ViewError::Keys(keys.path().to_owned(), source);
        images.refused = refused(artifacts, &index, keys).map_err(unread)?;
        images.keys = keys.list().map_err(unread)?.iter().map(|known| known.key.hex()).collect();
    }
    for (name, arches) in &index.images {
        for version in arches.values().flat_map(|entry| &entry.versions) {
            images.add(artifacts, version, before);
        }
        let versions = arches.values().flat_map(|entry| &entry.versions);
        for digest in versions.map(|version| &version.digest) {
            let told = before.refused.get(digest);
            if let Some(reason) = images.refused.get(digest).filter(|now| told != Some(*now)) {
                tracing::warn!(image = name, version = %digest, reason, "version is not served");
            }
        }
    }
    let memory = sha256(b"versions that channels were served with");
    let was: Served = match before.named.is_empty() {
        // A server that has just started.
        true => artifacts.remembered(&memory).unwrap_or_default(),
        false => served(&before.named),
    };
    for (name, arches) in &index.images {
        for (arch, entry) in arches {
            for (channel, digest) in &entry.channels {
                let Ok(image) = format!("{name}:{channel}").parse::<ImageRef>() else { continue };
                let last = was.get(&image).and_then(|arches| arches.get(arch));
                let Some(version) = images.choose(*digest, last.copied()) else { continue };
                if version.version != *digest && before.version(&image, *arch) != Some(*digest) {
                    tracing::debug!(%image, %arch, version = %version.version, "keeps the version before");
                }
                images.named.entry(image).or_default().insert(*arch, Arc::new(version));
            }
        }
    }
    let now = served(&images.named);
    if now != was && keys.is_some() {
        // Without it, a channel that names a bad version has nothing to serve after the next start.
        if let Err(error) = artifacts.remember(&memory, &now) {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "what is served is not remembered");
        }
    }
    Ok(images)
}

impl Images {
    fn add(&mut self, artifacts: &Artifacts, version: &VersionEntry, before: &Self) {
        let digest = version.digest;
        if self.versions.contains_key(&digest) || self.refused.contains_key(&digest) {
            return;
        }
        let manifest = match before.versions.get(&digest) {
            Some(manifest) => manifest.clone(),
            None => match artifacts.manifest(&digest) {
                Ok(manifest) => Arc::new(manifest),
                Err(error) => {
                    self.refused.insert(digest, crate::cli::chain(&error));
                    return;
                }
            },
        };
        let served = before.served.get(&digest).cloned();
        if let Some(served) = served.or_else(|| served_version(artifacts, version, &manifest)) {
            // A system that runs fetches the manifest before it starts the version.
            self.blobs.insert(digest, served.manifest_size);
            self.served.insert(digest, served);
        }
        self.blobs.insert(manifest.kernel.digest, manifest.kernel.size);
        self.blobs.extend(manifest.segments.iter().map(|s| (s.digest, s.size)));
        self.versions.insert(digest, manifest);
    }

    /// Takes the version that a channel names if that is good, else the one from before if that still is.
    fn choose(&self, named: Digest, last: Option<Digest>) -> Option<ImageVersion> {
        let mut candidates = [Some(named), last].into_iter().flatten();
        candidates.find_map(|digest| Some(image_version(digest, self.versions.get(&digest)?)))
    }

    /// Returns a version that may be served, whether a channel names it or not.
    pub(super) fn by_digest(&self, version: &Digest) -> Option<ImageVersion> {
        Some(image_version(*version, self.versions.get(version)?))
    }

    fn version(&self, image: &ImageRef, arch: Arch) -> Option<Digest> {
        Some(self.named.get(image)?.get(&arch)?.version)
    }
}

pub(super) fn served(named: &Named) -> Served {
    let digests = |arches: &BTreeMap<Arch, Arc<ImageVersion>>| {
        arches.iter().map(|(arch, version)| (*arch, version.version)).collect()
    };
    named.iter().map(|(image, arches)| (image.clone(), digests(arches))).collect()
}

fn served_version(
    artifacts: &Artifacts,
    version: &VersionEntry,
    manifest: &Manifest,
) -> Option<ServedVersion> {
    let signature = version.attachments.get(SIGNATURE);
    let signature = signature.and_then(|digest| {
        let file = std::fs::File::open(artifacts.artifact(digest)).ok()?;
        let mut text = Vec::new();
        file.take(MAX_SIGNATURE).read_to_end(&mut text).ok()?;
        Signature::from_json(&text).ok()?.hex()
    });
    Some(ServedVersion {
        image: manifest.image.clone(),
        arch: manifest.arch,
        min_ram: manifest.min_ram,
        segments: manifest.segments.len(),
        manifest_size: std::fs::metadata(artifacts.artifact(&version.digest)).ok()?.len(),
        signature,
    })
}

fn image_version(version: Digest, manifest: &Manifest) -> ImageVersion {
    ImageVersion {
        version,
        kernel: Artifact {
            name: "kernel".to_owned(),
            digest: manifest.kernel.digest,
            size: manifest.kernel.size,
        },
        efi_stub: manifest.kernel.efi_stub,
        segments: manifest
            .segments
            .iter()
            .map(|s| Artifact { name: s.component.clone(), digest: s.digest, size: s.size })
            .collect(),
        cmdline: manifest.cmdline.clone(),
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
