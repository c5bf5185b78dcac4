//! Which versions of which images there are.

use std::collections::BTreeMap;

use kiln_types::{Arch, Digest, ImageRef};
use serde::{Deserialize, Serialize};

/// Every image of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Index {
    /// By name, then by architecture.
    pub images: BTreeMap<String, BTreeMap<Arch, ImageEntry>>,
}

/// One image for one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageEntry {
    /// The version that each channel names.
    pub channels: BTreeMap<String, Digest>,
    /// Every version, the last one built first.
    pub versions: Vec<VersionEntry>,
}

/// One version of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionEntry {
    /// Digest of its manifest.
    pub digest: Digest,
    /// When it was built, in seconds since 1970.
    pub created: u64,
    /// Bytes of its kernel and its segments.
    pub size: u64,
    /// What belongs to it but is not served with it, by name: signature, provenance, recorded specification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attachments: BTreeMap<String, Digest>,
}

impl VersionEntry {
    /// Returns a version without attachments.
    pub const fn new(digest: Digest, created: u64, size: u64) -> Self {
        Self { digest, created, size, attachments: BTreeMap::new() }
    }

    /// Adds an attachment, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, name: &str, attachment: Digest) -> Self {
        self.attachments.insert(name.to_owned(), attachment);
        self
    }
}

impl Index {
    /// Puts a version first and lets the channel name it. One that is known keeps the time it was first built; its
    /// attachments are replaced by those that come with it.
    pub(crate) fn add(&mut self, image: &ImageRef, arch: Arch, version: VersionEntry) {
        let by_arch = self.images.entry(image.name().to_owned()).or_default();
        let entry = by_arch.entry(arch).or_default();
        entry.channels.insert(image.channel().to_owned(), version.digest);
        let known = entry.versions.iter().position(|known| known.digest == version.digest);
        let version = match known {
            Some(at) => {
                let mut known = entry.versions.remove(at);
                known.attachments.extend(version.attachments);
                known
            }
            None => version,
        };
        entry.versions.insert(0, version);
    }
}
