//! Manifests, indexes and image configurations, as far as they matter here (OCI image specification 1.1; Docker's
//! image manifest 2.2 has the same fields).

use std::collections::BTreeMap;

use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::{Compression, ImageConfig, LayerRef};

/// The largest manifest, index or configuration that is read, in bytes: the limit that registries commonly have.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// The most layers of an image. Container engines stop at 127.
const MAX_LAYERS: usize = 1024;
/// The most entries of an index.
const MAX_ENTRIES: usize = 4096;

/// The kind of attachment that Docker's builder puts into an index.
const ATTESTATION: &str = "attestation-manifest";

/// Names a document or a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// A manifest or an index.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Box<Manifest>),
}

/// The parts of one image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
}

/// Reads a manifest or an index, whichever it is by its fields: media types are often missing or wrong.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    #[derive(Deserialize)]
    struct Either {
        manifests: Option<Vec<Descriptor>>,
    }
    let either: Either = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(manifests) = either.manifests {
        return match manifests.len() {
            0..=MAX_ENTRIES => Ok(Document::Index(manifests)),
            many => Err(format!("it lists {many} images; {MAX_ENTRIES} are the most")),
        };
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match manifest.layers.len() {
        0..=MAX_LAYERS => Ok(Document::Manifest(Box::new(manifest))),
        many => Err(format!("it has {many} layers; {MAX_LAYERS} are the most")),
    }
}

/// Returns whether an entry of an index says something about another entry, and is no image.
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == ATTESTATION)
        || entry
            .platform
            .as_ref()
            .is_some_and(|it| it.architecture == "unknown" && it.os == "unknown")
}

/// The configuration of an image.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
    #[serde(default)]
    config: Option<Settings>,
    #[serde(default)]
    rootfs: RootFs,
}

/// Fields may be `null`, which Go writes for empty lists.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl Configuration {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Returns how the image wants to run.
    pub(crate) fn image_config(&self) -> ImageConfig {
        let settings = self.config.clone().unwrap_or_default();
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        ImageConfig {
            entrypoint: settings.entrypoint.unwrap_or_default(),
            cmd: settings.cmd.unwrap_or_default(),
            env: settings.env.unwrap_or_default(),
            working_dir: text(settings.working_dir),
            user: text(settings.user),
            labels: settings.labels.unwrap_or_default(),
        }
    }

    /// Returns the digests of the layers' contents.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }

    /// Puts the layers of the manifest and their contents' digests together.
    pub(crate) fn layers(&self, layers: &[Descriptor]) -> Result<Vec<LayerRef>, String> {
        let diff_ids = &self.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(format!(
                "its manifest has {} layers and its configuration {}",
                layers.len(),
                diff_ids.len()
            ));
        }
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
            Ok(LayerRef {
                digest: layer.digest,
                diff_id: *diff_id,
                size: layer.size,
                compression: compression(&layer.media_type)?,
            })
        };
        layers.iter().zip(diff_ids).map(layer).collect()
    }
}

/// Reads from the media type of a layer how it is compressed.
fn compression(media_type: &str) -> Result<Compression, String> {
    match media_type.rsplit_once(['+', '.']).map(|(_, end)| end) {
        Some("gzip") => Ok(Compression::Gzip),
        Some("zstd") => Ok(Compression::Zstd),
        Some("tar") => Ok(Compression::None),
        _ => Err(format!("it has a layer of the type `{media_type}`, which is no file system")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_compressed_as_their_media_types_say() {
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Ok(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Ok(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Ok(Compression::Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Ok(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar", Ok(Compression::None)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Ok(Compression::Gzip)),
            ("application/vnd.in-toto+json", Err(())),
        ] {
            assert_eq!(compression(media_type).map_err(drop), expected, "{media_type}");
        }
    }

    #[test]
    fn a_configuration_of_go_with_null_lists_is_read() {
        let text = r#"{"architecture":"arm64","os":"linux","config":{"Cmd":null,"Env":["A=b"],
            "Labels":null,"WorkingDir":"","User":"7"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = Configuration::parse(text.as_bytes()).unwrap();
        let image = config.image_config();
        assert_eq!((image.env, image.user), (vec!["A=b".to_owned()], Some("7".to_owned())));
        assert_eq!(image.working_dir, None);
        assert!(config.layers(&[]).unwrap().is_empty());
        assert!(Configuration::parse(b"7").is_err());
    }

    #[test]
    fn documents_are_told_apart_by_what_is_in_them() {
        let digest = Digest::from_bytes([1; 32]);
        let entry = format!(r#"{{"digest":"{digest}","size":1}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        assert!(matches!(parse(index.as_bytes()), Ok(Document::Index(all)) if all.len() == 1));
        let manifest = format!(r#"{{"config":{entry},"layers":[{entry},{entry}]}}"#);
        assert!(matches!(parse(manifest.as_bytes()), Ok(Document::Manifest(_))));
        let many =
            format!(r#"{{"config":{entry},"layers":[{}]}}"#, vec![entry.as_str(); 2000].join(","));
        assert_eq!(parse(many.as_bytes()).unwrap_err(), "it has 2000 layers; 1024 are the most");
        for bad in ["", "{}", "[]", r#"{"manifests":[{"digest":"md5:1","size":1}]}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn fuzzed_manifests_and_configurations_are_read_or_refused() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layer = r#""mediaType":"application/vnd.oci.image.layer.v1.tar+gzip""#;
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":7}},"layers":[{{{layer},"digest":"{digest}","size":9}}],"annotations":{{"a":"b"}}}}"#
        );
        let index = format!(
            r#"{{"manifests":[{{"digest":"{digest}","size":5,"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}}]}}"#
        );
        let config = format!(
            r#"{{"architecture":"arm64","os":"linux","config":{{"Cmd":null,"Env":["A=b"],"User":"7"}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
        );
        let samples = [manifest.as_bytes(), index.as_bytes(), config.as_bytes()];
        kiln_fuzz::check("oci", &samples, |bytes| {
            let document = parse(bytes);
            let Ok(config) = Configuration::parse(bytes) else { return };
            let _ = config.image_config();
            if let Ok(Document::Manifest(manifest)) = document {
                let layers = config.layers(&manifest.layers);
                assert!(layers.is_ok_and(|layers| layers.len() <= MAX_LAYERS) || bytes.len() > 2);
            }
        });
    }
}
