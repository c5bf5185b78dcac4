//! Volumes: directories that containers share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::VolumeName;
use super::place::Placed;
use crate::oci::Reference;

/// A directory that containers share by naming it in `binds` or `mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// What it is called.
    pub name: Placed<VolumeName>,
    /// The image whose files are in it; it is empty without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub image: Option<Placed<Reference>>,
    /// Whether nothing can be written to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
    /// How the image is in it; `filesystem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Placed<VolumeFormat>>,
    /// For the format `oci`, which platforms of the image, as `linux/amd64`; all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
}

/// How an image is in a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFormat {
    /// Unpacked: its files.
    #[default]
    Filesystem,
    /// As an OCI image layout.
    Oci,
}
