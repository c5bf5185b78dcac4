//! What one version of an image consists of. The digest of a manifest is the version's name.

use kiln_types::{Arch, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The schema that this program writes. It reads every earlier one: what those lack has a default.
pub const SCHEMA: u32 = 2;

/// One version of an image for one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// Name of the image.
    pub image: String,
    /// Architecture it runs on.
    pub arch: Arch,
    /// The kernel.
    pub kernel: KernelEntry,
    /// Parts of the initrd, in the order in which the kernel reads them.
    pub segments: Vec<SegmentEntry>,
    /// Kernel arguments.
    pub cmdline: String,
    /// The least memory to boot with, in bytes: an estimate on the safe side.
    pub min_ram: u64,
    /// Packages it was made from, by name.
    pub packages: Vec<PackageEntry>,
    /// Images it was made from, by component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceEntry>,
    /// Digest of the list of everything in it (SPDX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Digest>,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelEntry {
    /// Digest of the file.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What `uname -r` says.
    pub release: String,
    /// Whether UEFI can start it.
    pub efi_stub: bool,
}

/// A part of an initrd: a cpio archive, padded with zeros to a multiple of four bytes, so that a part that is not
/// compressed may follow any other: the kernel looks for one at such places only
/// (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEntry {
    /// What it holds: `init`, `kernel-modules`, `containers` (their settings), `files`, or the name of the first
    /// container that has these files.
    pub component: String,
    /// Digest of the archive as it is stored.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its length once unpacked.
    pub unpacked: u64,
    /// How it is compressed.
    #[serde(default)]
    pub compression: SegmentCompression,
}

/// How a segment is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentCompression {
    /// Not at all: what it holds is compressed in itself, or must be read before anything can be unpacked.
    None,
    /// As zstd, which kernels since 5.9 may understand.
    #[default]
    Zstd,
    /// As gzip, which every kernel understands.
    Gzip,
}

impl std::fmt::Display for SegmentCompression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        })
    }
}

/// An image of a registry, a layout or a folder that went into an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// The component that is made of it.
    pub component: String,
    /// What the specification calls it.
    pub reference: String,
    /// Digest of its manifest for the architecture.
    pub digest: Digest,
}

/// A package that went into an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageEntry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Debian's name of its architecture; `all` fits every one.
    pub arch: String,
    /// Digest of the package file.
    pub sha256: Digest,
}

impl Manifest {
    /// Returns the bytes that the version is the digest of: JSON without spaces, keys sorted.
    ///
    /// # Errors
    ///
    /// Fails only when a value has no JSON form, which none of ours lacks.
    pub fn to_canonical_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = String::new();
        write_canonical(&serde_json::to_value(self)?, &mut out);
        Ok(out.into_bytes())
    }

    /// Reads a manifest of this schema or an earlier one.
    ///
    /// # Errors
    ///
    /// Fails when it is not one, and when a later Kiln wrote it in a way that this one does not know.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        let Schema { schema } = serde_json::from_slice(bytes)?;
        if schema > SCHEMA {
            return Err(ManifestError::Newer { schema });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Returns the digest of every artifact that belongs to it.
    pub fn artifacts(&self) -> impl Iterator<Item = Digest> + '_ {
        let segments = self.segments.iter().map(|segment| segment.digest);
        [self.kernel.digest].into_iter().chain(segments).chain(self.sbom)
    }

    /// Returns how many bytes a machine fetches.
    pub fn download_size(&self) -> u64 {
        self.kernel.size + self.segments.iter().map(|segment| segment.size).sum::<u64>()
    }
}

/// A manifest cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is no manifest.
    #[error("it is not a manifest")]
    Json(#[from] serde_json::Error),
    /// It is of a schema that is not known.
    #[error(
        "it has schema {schema}; this kiln knows up to {SCHEMA}, so a newer one is needed to read it"
    )]
    Newer {
        /// The schema.
        schema: u32,
    },
}

/// Sorts by itself, whatever order the JSON library keeps its maps in.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (n, (key, value)) in entries.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    #[test]
    fn the_canonical_form_is_stable() {
        let digest = Digest::from_bytes([0; 32]);
        let manifest = Manifest {
            schema: SCHEMA,
            image: "demo".to_owned(),
            arch: Arch::X86_64,
            kernel: KernelEntry { digest, size: 1, release: "6.12".to_owned(), efi_stub: true },
            segments: vec![SegmentEntry {
                component: "init".to_owned(),
                digest,
                size: 2,
                unpacked: 3,
                compression: SegmentCompression::Zstd,
            }],
            cmdline: "a=\"b\"".to_owned(),
            min_ram: 4,
            packages: Vec::new(),
            sources: Vec::new(),
            sbom: None,
        };
        let zeros = digest.to_string();
        let expected = format!(
            r#"{{"arch":"x86_64","cmdline":"a=\"b\"","image":"demo","kernel":{{"digest":"{zeros}","efi_stub":true,"release":"6.12","size":1}},"min_ram":4,"packages":[],"schema":2,"segments":[{{"component":"init","compression":"zstd","digest":"{zeros}","size":2,"unpacked":3}}]}}"#
        );
        let bytes = manifest.to_canonical_json().unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
        assert_eq!(serde_json::from_slice::<Manifest>(&bytes).unwrap(), manifest);
        assert_eq!(sha256(&bytes), sha256(expected.as_bytes()));
        assert_eq!(manifest.download_size(), 3);
    }

    #[test]
    fn a_manifest_of_an_earlier_schema_is_read_and_one_of_a_later_is_told_apart() {
        let zeros = Digest::from_bytes([0; 32]);
        let first = format!(
            r#"{{"arch":"arm64","cmdline":"","image":"demo","kernel":{{"digest":"{zeros}","efi_stub":true,"release":"6.12","size":1}},"min_ram":4,"packages":[],"schema":1,"segments":[{{"component":"init","digest":"{zeros}","size":2,"unpacked":3}}]}}"#
        );
        let manifest = Manifest::from_json(first.as_bytes()).unwrap();
        assert_eq!(manifest.segments[0].compression, SegmentCompression::Zstd);
        let later = r#"{"schema":3,"segments":{}}"#;
        let error = Manifest::from_json(later.as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::Newer { schema: 3 }), "{error}");
    }
}
