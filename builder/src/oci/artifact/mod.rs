//! Versions of built images as artifacts of registries (OCI image specification 1.1, "Guidelines for Artifact Usage").
//!
//! ```text
//! index ─┬─► manifest for amd64 ─┬─► config: the manifest of the version, byte for byte
//!        └─► manifest for arm64  ├─► layers: kernel, segments, list of contents
//!                                └─► layers: attachments, such as the signature
//! ```
//!
//! Everything is named by the digest that it has in the store, so the same version gives the same bytes.

mod archive;
mod pull;
mod push;

use std::collections::BTreeMap;

use kiln_types::{Arch, Digest};
use serde::Serialize;

pub use self::archive::write_archive;
pub use self::pull::{PullFrom, Pulled, pull};
pub use self::push::{Pushed, push};

use super::OciError;
use super::document::{Descriptor, Platform};
use super::select::oci_name;
use crate::hash::sha256;
use crate::manifest::SegmentCompression;
use crate::store::{Store, VersionEntry};

/// What such an artifact is.
const ARTIFACT: &str = "application/vnd.kiln.image.v1";
const CONFIG: &str = "application/vnd.kiln.manifest.v1+json";
const KERNEL: &str = "application/vnd.kiln.kernel.v1";
const SEGMENT: &str = "application/vnd.kiln.segment.v1";
const SBOM: &str = "application/spdx+json";
const ATTACHMENT: &str = "application/vnd.kiln.attachment.v1";
/// The annotation of a layer with the name of an attachment.
const ATTACHMENT_NAME: &str = "vnd.kiln.attachment";
/// The annotation of a layer with a name for a file.
const TITLE: &str = "org.opencontainers.image.title";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One version as an artifact. Its layers, and its configuration, are artifacts of the store.
#[derive(Debug)]
struct Artifact {
    /// The manifest.
    bytes: Vec<u8>,
    /// Names the manifest in an index.
    descriptor: Descriptor,
    /// Everything that the manifest names, each once.
    parts: Vec<Descriptor>,
    /// The name of the image.
    image: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireManifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    manifests: Vec<&'a Descriptor>,
}

impl Artifact {
    /// Describes a version.
    fn of(store: &Store, arch: Arch, version: &VersionEntry) -> Result<Self, OciError> {
        let manifest = store.manifest(&version.digest)?;
        let size = |digest: &Digest| {
            let path = store.artifact(digest);
            let meta = std::fs::metadata(&path);
            meta.map(|meta| meta.len()).map_err(|source| OciError::Artifact { path, source })
        };
        let config = descriptor(CONFIG, version.digest, size(&version.digest)?, &[]);
        let kernel = &manifest.kernel;
        let mut layers = vec![descriptor(KERNEL, kernel.digest, kernel.size, &[(TITLE, "kernel")])];
        for segment in &manifest.segments {
            let (ending, media_type) = match segment.compression {
                SegmentCompression::None => ("", SEGMENT.to_owned()),
                SegmentCompression::Gzip => (".gz", format!("{SEGMENT}+gzip")),
                SegmentCompression::Zstd => (".zst", format!("{SEGMENT}+zstd")),
            };
            let title = format!("{}.cpio{ending}", segment.component);
            layers.push(descriptor(&media_type, segment.digest, segment.size, &[(TITLE, &title)]));
        }
        if let Some(sbom) = manifest.sbom {
            layers.push(descriptor(SBOM, sbom, size(&sbom)?, &[(TITLE, "sbom.spdx.json")]));
        }
        for (name, digest) in &version.attachments {
            let annotations = [(ATTACHMENT_NAME, name.as_str()), (TITLE, name)];
            layers.push(descriptor(ATTACHMENT, *digest, size(digest)?, &annotations));
        }
        let bytes = json(&WireManifest {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            artifact_type: ARTIFACT,
            config: &config,
            layers: &layers,
            annotations: BTreeMap::from([(TITLE, manifest.image.as_str())]),
        })?;
        let mut found = descriptor(OCI_MANIFEST, sha256(&bytes), bytes.len() as u64, &[]);
        found.artifact_type = Some(ARTIFACT.to_owned());
        found.platform = Some(Platform {
            architecture: oci_name(arch).to_owned(),
            os: "linux".to_owned(),
            variant: None,
        });
        let mut parts = layers;
        parts.push(config);
        let mut seen = std::collections::BTreeSet::new();
        parts.retain(|part| seen.insert(part.digest));
        Ok(Self { bytes, descriptor: found, parts, image: manifest.image })
    }
}

fn descriptor(
    media_type: &str,
    digest: Digest,
    size: u64,
    annotations: &[(&str, &str)],
) -> Descriptor {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: annotations.iter().map(own).collect(),
        artifact_type: None,
    }
}

/// Writes the index of some manifests.
fn index(manifests: Vec<&Descriptor>, artifact_type: Option<&str>) -> Result<Vec<u8>, OciError> {
    json(&WireIndex { schema_version: 2, media_type: OCI_INDEX, artifact_type, manifests })
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, OciError> {
    serde_json::to_vec(value).map_err(OciError::Json)
}

#[cfg(test)]
mod tests;
