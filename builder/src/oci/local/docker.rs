//! What `docker save` writes: `manifest.json` names the configuration and the layers of each image.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use kiln_types::Digest;
use serde::Deserialize;

use super::super::document::{Configuration, Descriptor, MAX_DOCUMENT, Manifest};
use super::archive::Members;
use super::{Entry, whole_name};
use crate::hash::sha256;

/// Layers are archives without compression.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// The images of an archive, in the terms of a layout.
pub(super) struct Images {
    pub(super) entries: Vec<Entry>,
    /// Members by the digests of layers.
    pub(super) layers: HashMap<Digest, String>,
    /// Manifests, which such an archive has none of, and configurations.
    pub(super) documents: HashMap<Digest, Vec<u8>>,
}

pub(super) fn read(path: &Path, members: &Members) -> Result<Images, String> {
    let text = members.bytes(path, "manifest.json", MAX_DOCUMENT).ok_or(
        "it has neither an index.json, as an OCI layout has, nor a manifest.json, as `docker save` writes it",
    )?;
    let saved: Vec<Saved> = serde_json::from_slice(&text)
        .map_err(|error| format!("its manifest.json is wrong: {error}"))?;
    let mut images =
        Images { entries: Vec::new(), layers: HashMap::new(), documents: HashMap::new() };
    for image in saved {
        let lacks =
            |name: &str| format!("it lacks `{}`", name.chars().take(200).collect::<String>());
        let config =
            members.bytes(path, &image.config, MAX_DOCUMENT).ok_or_else(|| lacks(&image.config))?;
        let parsed = Configuration::parse(&config)
            .map_err(|error| format!("a configuration in it is wrong: {error}"))?;
        let mut layers = Vec::new();
        for (member, diff_id) in image.layers.iter().zip(parsed.diff_ids()) {
            let (_, size) = members.find(member).ok_or_else(|| lacks(member))?;
            images.layers.insert(*diff_id, member.clone());
            layers.push(descriptor(LAYER, *diff_id, size));
        }
        if layers.len() != image.layers.len() {
            return Err(
                "an image in it has another number of layers than its configuration".to_owned()
            );
        }
        let digest = sha256(&config);
        let manifest = Manifest {
            config: descriptor(
                "application/vnd.oci.image.config.v1+json",
                digest,
                config.len() as u64,
            ),
            layers,
            annotations: BTreeMap::new(),
            artifact_type: None,
        };
        images.documents.insert(digest, config);
        let manifest = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        let found = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            sha256(&manifest),
            manifest.len() as u64,
        );
        images.documents.insert(found.digest, manifest);
        let tags = image.repo_tags.unwrap_or_default();
        if tags.is_empty() {
            // It was saved by its digest.
            let descriptor = found.clone();
            images.entries.push(Entry { name: None, called: Vec::new(), descriptor });
        }
        images.entries.extend(tags.into_iter().map(|tag| Entry {
            name: whole_name(&tag),
            called: vec![tag],
            descriptor: found.clone(),
        }));
    }
    Ok(images)
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
        artifact_type: None,
    }
}
