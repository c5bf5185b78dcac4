//! An image as an OCI layout (image specification 1.1, `image-layout.md`), for machines that hand it on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use kiln_types::Digest;
use serde_json::{Value, json};

use super::document::{Configuration, Descriptor, Document, MAX_DOCUMENT, Manifest, Platform};
use super::images::{blocking, malformed};
use super::{Images, OciError, Reference, select};
use crate::hash::{Hasher, sha256};
use crate::layer::Limits;
use crate::tree::{Content, Kind, Node, Tree, TreePath, TreePathError};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The blobs of a layout.
struct Blobs<'a> {
    images: &'a Images<'a>,
    reference: &'a Reference,
    files: BTreeMap<Digest, Content>,
    bytes: u64,
}

impl Images<'_> {
    /// Returns the layout of an image, by the digest of its index or manifest, with everything that it is made of.
    /// Unless no platforms are named, an index keeps only these, as `linux/arm64` or `linux/arm64/v8`. Every part is
    /// checked.
    ///
    /// # Errors
    ///
    /// Fails when a part cannot be had or is not what its digest says, and when there is none of the platforms.
    pub async fn layout(
        &self,
        reference: &Reference,
        root: &Digest,
        platforms: &[String],
    ) -> Result<Tree, OciError> {
        let mut blobs = Blobs { images: self, reference, files: BTreeMap::new(), bytes: 0 };
        let (media_type, bytes) = match self.document(reference, root).await? {
            Document::Manifest(manifest) => {
                blobs.manifest(&manifest, platforms).await?;
                (MANIFEST, self.bytes_of(reference, root)?)
            }
            Document::Index(entries) => {
                let fits = |it: &&Descriptor| platforms.is_empty() || is_one_of(it, platforms);
                let chosen: Vec<_> = entries.iter().filter(fits).collect();
                if chosen.is_empty() {
                    return Err(nothing(reference, platforms, &entries));
                }
                for entry in &chosen {
                    let Document::Manifest(manifest) =
                        self.document(reference, &entry.digest).await?
                    else {
                        let problem = "its index names an index".to_owned();
                        return Err(malformed(reference, problem));
                    };
                    blobs.add(entry.digest, self.bytes_of(reference, &entry.digest)?)?;
                    blobs.manifest(&manifest, &[]).await?;
                }
                let bytes = self.bytes_of(reference, root)?;
                let whole = chosen.len() == entries.len();
                (INDEX, if whole { bytes } else { only(reference, &bytes, &chosen)? })
            }
        };
        let (digest, size) = (sha256(&bytes), bytes.len());
        blobs.add(digest, bytes)?;
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [{
                "mediaType": media_type, "digest": digest, "size": size,
                "annotations": {"org.opencontainers.image.ref.name": reference.to_string()},
            }],
        });
        tree(&index, blobs.files)
            .map_err(|error| malformed(reference, format!("it cannot be laid out: {error}")))
    }

    /// Returns a document that is here, as it was written.
    fn bytes_of(&self, reference: &Reference, digest: &Digest) -> Result<Vec<u8>, OciError> {
        let gone = || malformed(reference, format!("its part {digest} cannot be read back"));
        self.here(digest).ok_or_else(gone)
    }
}

impl Blobs<'_> {
    /// Adds what a manifest names.
    async fn manifest(
        &mut self,
        manifest: &Manifest,
        platforms: &[String],
    ) -> Result<(), OciError> {
        if manifest.config.size > MAX_DOCUMENT {
            let problem = format!("its configuration has {} bytes", manifest.config.size);
            return Err(malformed(self.reference, problem));
        }
        let config = self.images.small(self.reference, &manifest.config).await?;
        if !platforms.is_empty() {
            let found = Configuration::parse(&config).unwrap_or_default();
            let (architecture, os, variant) = (found.architecture, found.os, found.variant);
            let platform = Some(Platform { architecture, os, variant });
            let entry = Descriptor { platform, ..manifest.config.clone() };
            if !is_one_of(&entry, platforms) {
                return Err(nothing(self.reference, platforms, &[entry]));
            }
        }
        self.add(manifest.config.digest, config)?;
        for layer in &manifest.layers {
            if self.files.contains_key(&layer.digest) {
                continue;
            }
            self.count(layer.size)?;
            let (path, offset, len) = self.images.part(self.reference, layer).await?;
            let expected = layer.digest;
            let place = path.clone();
            let read = blocking(move || {
                let file = File::open(&place)?;
                let got = digest_of(&file, offset, len)?;
                Ok((Arc::new(file), got))
            });
            let (file, got) = read.await.map_err(OciError::cache(self.reference, &path))?;
            if got != expected {
                let reference = self.reference.to_string();
                return Err(OciError::Digest { reference, got, expected });
            }
            self.files.insert(expected, Content::Span { file, offset, len });
        }
        Ok(())
    }

    fn add(&mut self, digest: Digest, bytes: Vec<u8>) -> Result<(), OciError> {
        self.count(bytes.len() as u64)?;
        self.files.insert(digest, Content::Bytes(bytes.into()));
        Ok(())
    }

    fn count(&mut self, size: u64) -> Result<(), OciError> {
        let limits = Limits::default();
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > limits.bytes || self.files.len() >= limits.files {
            let problem = format!("it has more than {} bytes or too many parts", limits.bytes);
            return Err(malformed(self.reference, problem));
        }
        Ok(())
    }
}

fn digest_of(mut file: &File, offset: u64, len: u64) -> io::Result<Digest> {
    file.seek(SeekFrom::Start(offset))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    let mut rest = file.take(len);
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn is_one_of(entry: &Descriptor, platforms: &[String]) -> bool {
    let name = select::name(entry.platform.as_ref());
    let fits = |wanted: &String| {
        name == *wanted || name.strip_prefix(wanted.as_str()).is_some_and(|it| it.starts_with('/'))
    };
    entry.platform.is_some() && platforms.iter().any(fits)
}

fn nothing(reference: &Reference, platforms: &[String], there: &[Descriptor]) -> OciError {
    let there: Vec<_> = there.iter().map(|it| select::name(it.platform.as_ref())).collect();
    let (wanted, there) = (platforms.join(", "), there.join(", "));
    malformed(reference, format!("it has nothing for {wanted}; it is for {there}"))
}

/// Returns an index with only these entries, and everything else that it says.
fn only(reference: &Reference, bytes: &[u8], chosen: &[&Descriptor]) -> Result<Vec<u8>, OciError> {
    let wrong = |error: serde_json::Error| malformed(reference, format!("its index: {error}"));
    let mut index: Value = serde_json::from_slice(bytes).map_err(wrong)?;
    if let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        let wanted: Vec<_> = chosen.iter().map(|it| it.digest.to_string()).collect();
        let digest = |it: &Value| it["digest"].as_str().unwrap_or_default().to_owned();
        manifests.retain(|it| wanted.contains(&digest(it)));
    }
    serde_json::to_vec(&index).map_err(wrong)
}

fn tree(index: &Value, blobs: BTreeMap<Digest, Content>) -> Result<Tree, TreePathError> {
    let mut tree = Tree::new();
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    tree.insert(TreePath::new("oci-layout")?, Node::file(0o644, *layout));
    let index = index.to_string();
    tree.insert(TreePath::new("index.json")?, Node::file(0o644, index.into_bytes()));
    for (digest, content) in blobs {
        let path = TreePath::new(&format!("blobs/sha256/{}", digest.hex()))?;
        tree.insert(path, Node::new(0o644, Kind::File(content)));
    }
    Ok(tree)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
