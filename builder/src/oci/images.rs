//! Where images come from: local sources first, then the cache, then registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_types::{Arch, Digest};

use super::blobs::{Blobs, Taken};
use super::document::{
    Configuration, Descriptor, Document, MAX_DOCUMENT, Manifest, is_attestation, parse,
};
use super::given::Given;
use super::local::Local;
use super::registry::{Registries, RegistryError, RegistrySettings};
use super::{ImageConfig, ImagePolicy, LayerFile, LayerRef, OciError, Reference, select};
use crate::hash::sha256;
use crate::progress::Progress;

/// Layers that are fetched at a time.
const PARALLEL: usize = 4;

/// Where images may come from.
#[derive(Clone, Debug, Default)]
pub struct ImageSettings {
    /// Folders and archives with images, which are asked before any registry, in this order.
    pub dirs: Vec<PathBuf>,
    /// Registries that need something said about them.
    pub registries: Vec<RegistrySettings>,
    /// Ask no registry.
    pub offline: bool,
    /// Which images may be used.
    pub policy: ImagePolicy,
}

/// An image for one architecture, of which nothing but its description need be here yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it was asked for as.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Digest of the index that it was found in.
    pub index: Option<Digest>,
    /// How it wants to run.
    pub config: ImageConfig,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerRef>,
    /// Manifests of what its builder attests, such as its packages.
    pub attestations: Vec<Digest>,
}

/// The sources of images.
#[derive(Debug)]
pub struct Images<'p> {
    pub(super) local: Vec<Local>,
    /// Folders and files that a specification names, by what it calls them.
    pub(super) given: BTreeMap<String, Given>,
    pub(super) blobs: Blobs,
    pub(super) registries: Option<Registries>,
    pub(super) policy: ImagePolicy,
    progress: &'p dyn Progress,
}

impl<'p> Images<'p> {
    /// Opens the local sources; what is pulled is kept below `cache`.
    ///
    /// # Errors
    ///
    /// Fails when a local source cannot be used, or a setting is wrong.
    pub fn open(
        settings: &ImageSettings,
        cache: &Path,
        progress: &'p dyn Progress,
    ) -> Result<Self, OciError> {
        let local = settings.dirs.iter().map(|dir| Local::open(dir)).collect::<Result<_, _>>()?;
        let blobs = Blobs::new(cache);
        blobs.clean_up();
        let registries = (!settings.offline).then(|| Registries::new(settings.registries.clone()));
        let policy = settings.policy.clone();
        Ok(Self { local, given: BTreeMap::new(), blobs, registries, policy, progress })
    }

    /// Finds an image for an architecture. With a pin, the manifest is the pinned one and nobody is asked what a tag
    /// means now; when it is here already, nobody is asked anything.
    ///
    /// # Errors
    ///
    /// Fails when no source has the image for the architecture, when what it has makes no sense, and when the policy
    /// does not let it be used.
    pub async fn resolve(
        &self,
        reference: &Reference,
        arch: Arch,
        pin: Option<Digest>,
    ) -> Result<Image, OciError> {
        self.check_rejected(reference)?;
        let (digest, document) = match (reference.given(), pin) {
            (Some(given), _) => self.given_root(reference, given, arch).await?,
            (None, Some(pin)) => (pin, self.document(reference, &pin).await?),
            (None, None) => self.root(reference).await?,
        };
        let (digest, manifest, index, attestations) =
            self.manifest_for(reference, arch, digest, document).await?;
        // Only what is there now can be used, unlike at a registry.
        if let Some(pinned) = pin.filter(|it| *it != digest && Some(*it) != index)
            && reference.given().is_some()
        {
            let (reference, is) = (reference.to_string(), index.unwrap_or(digest));
            return Err(OciError::Moved { reference, is, pinned });
        }
        self.check_signed(reference, &digest, index.as_ref()).await?;
        self.image(reference, arch, digest, *manifest, index, attestations).await
    }

    /// Returns the manifest for an architecture: the document itself, or the one that an index names, with the digest
    /// of that index and what it attests of the image.
    pub(super) async fn manifest_for(
        &self,
        reference: &Reference,
        arch: Arch,
        digest: Digest,
        document: Document,
    ) -> Result<(Digest, Box<Manifest>, Option<Digest>, Vec<Digest>), OciError> {
        let entries = match document {
            Document::Manifest(manifest) => return Ok((digest, manifest, None, Vec::new())),
            Document::Index(entries) => entries,
        };
        let entry = select::pick(&entries, arch).map_err(|there| OciError::NotForArch {
            reference: reference.to_string(),
            arch,
            there,
        })?;
        let about = |it: &&Descriptor| {
            let subject = it.annotations.get("vnd.docker.reference.digest");
            is_attestation(it) && subject.is_some_and(|it| *it == entry.digest.to_string())
        };
        let attestations = entries.iter().filter(about).map(|it| it.digest).collect();
        match self.document(reference, &entry.digest).await? {
            Document::Manifest(manifest) => {
                Ok((entry.digest, manifest, Some(digest), attestations))
            }
            Document::Index(_) => Err(malformed(reference, "its index names an index".to_owned())),
        }
    }

    async fn image(
        &self,
        reference: &Reference,
        arch: Arch,
        digest: Digest,
        manifest: Manifest,
        index: Option<Digest>,
        attestations: Vec<Digest>,
    ) -> Result<Image, OciError> {
        let wrong = |problem: String| malformed(reference, problem);
        if manifest.config.size > MAX_DOCUMENT {
            return Err(wrong(format!("its configuration has {} bytes", manifest.config.size)));
        }
        let bytes = self.small(reference, &manifest.config).await?;
        let config = Configuration::parse(&bytes)
            .map_err(|error| wrong(format!("its configuration is wrong: {error}")))?;
        select::check(&config, arch).map_err(|there| OciError::NotForArch {
            reference: reference.to_string(),
            arch,
            there: vec![there],
        })?;
        Ok(Image {
            reference: reference.clone(),
            digest,
            index,
            config: config.image_config(),
            layers: config.layers(&manifest.layers).map_err(wrong)?,
            attestations,
        })
    }

    /// Brings every layer of an image here and returns where they are, the lowest first. Layers from a registry were
    /// checked against their digests; those of local sources are checked, by the digests of their contents, when they
    /// are unpacked.
    ///
    /// # Errors
    ///
    /// Fails when a layer cannot be had, is not what its digest says, or cannot be kept.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a part of a download, with which the next one goes on.
    pub async fn fetch(&self, image: &Image) -> Result<Vec<LayerFile>, OciError> {
        use futures_util::{StreamExt as _, TryStreamExt as _};
        let layers = image.layers.iter().map(|layer| self.layer(&image.reference, layer));
        futures_util::stream::iter(layers).buffered(PARALLEL).try_collect().await
    }

    async fn layer(&self, reference: &Reference, layer: &LayerRef) -> Result<LayerFile, OciError> {
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: layer.digest,
            size: layer.size,
            platform: None,
            annotations: Default::default(),
            artifact_type: None,
        };
        let (path, offset, len) = self.part(reference, &descriptor).await?;
        Ok(LayerFile { layer: layer.clone(), path, offset, len })
    }

    /// Brings a part of an image here; returns the file that has it, where in it that begins, and how long it is.
    pub(super) async fn part(
        &self,
        reference: &Reference,
        part: &Descriptor,
    ) -> Result<(PathBuf, u64, u64), OciError> {
        for local in self.sources() {
            if let Some((path, offset, len)) = local.file(&part.digest) {
                if len != part.size {
                    let problem = format!(
                        "its layer {} has {len} bytes in {} and should have {}",
                        part.digest,
                        local.path().display(),
                        part.size
                    );
                    return Err(malformed(reference, problem));
                }
                return Ok((path, offset, len));
            }
        }
        let path = match self.blobs.find(&part.digest) {
            Some(path) => path,
            None => self.pull(reference, part).await?,
        };
        Ok((path, 0, part.size))
    }

    /// Returns what a name means: in local sources, at the registry, or in the cache if it is a digest.
    pub(super) async fn root(&self, reference: &Reference) -> Result<(Digest, Document), OciError> {
        if let Some(digest) = reference.digest() {
            return Ok((digest, self.document(reference, &digest).await?));
        }
        for local in &self.local {
            if let Some(digest) = local.find(reference) {
                return Ok((digest, self.document(reference, &digest).await?));
            }
        }
        let registries = self.registries_for(reference, None)?;
        let bytes = registries.manifest(reference, None).await.map_err(|e| failed(reference, e))?;
        let document = self.parsed(reference, &bytes)?;
        Ok((self.keep(reference, bytes.to_vec()).await?, document))
    }

    /// Returns a manifest or index that is known by its digest.
    pub(super) async fn document(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Document, OciError> {
        if let Some(bytes) = self.here(digest) {
            return self.parsed(reference, &bytes);
        }
        if let Some(local) = self.sources().find(|local| local.has(digest)) {
            let (path, digest) = (local.path().to_owned(), *digest);
            return Err(OciError::Missing { path, reference: reference.to_string(), digest });
        }
        let registries = self.registries_for(reference, Some(digest))?;
        let bytes = registries
            .manifest(reference, Some(*digest))
            .await
            .map_err(|e| failed(reference, e))?;
        let document = self.parsed(reference, &bytes)?;
        self.keep(reference, bytes.to_vec()).await?;
        Ok(document)
    }

    /// Returns a small blob, such as a configuration.
    pub(crate) async fn small(
        &self,
        reference: &Reference,
        blob: &Descriptor,
    ) -> Result<Vec<u8>, OciError> {
        if let Some(bytes) = self.here(&blob.digest) {
            return Ok(bytes);
        }
        self.pull(reference, blob).await?;
        self.blobs.read(&blob.digest, MAX_DOCUMENT).ok_or_else(|| {
            malformed(reference, format!("its part {} cannot be read back", blob.digest))
        })
    }

    pub(super) fn here(&self, digest: &Digest) -> Option<Vec<u8>> {
        let local = self.sources().find_map(|local| local.read(digest));
        local.or_else(|| self.blobs.read(digest, MAX_DOCUMENT))
    }

    /// Pulls a blob into the cache. Two builds that want the same share one download.
    pub(super) async fn pull(
        &self,
        reference: &Reference,
        blob: &Descriptor,
    ) -> Result<PathBuf, OciError> {
        let registries = self.registries_for(reference, Some(&blob.digest))?;
        let failed_cache = OciError::cache(reference, self.blobs.dir());
        let (blobs, digest) = (self.blobs.clone(), blob.digest);
        let taken = blocking(move || blobs.take(&digest)).await.map_err(&failed_cache)?;
        let mut partial = match taken {
            Taken::There(path) => return Ok(path),
            Taken::Ours(partial) => partial,
        };
        if partial.len().map_err(&failed_cache)? > blob.size {
            partial.restart().map_err(&failed_cache)?;
        }
        let name = format!("{} {}", reference.repository(), &blob.digest.hex()[..12]);
        let mut task = self.progress.begin(&name, Some(blob.size));
        task.advance(partial.len().map_err(&failed_cache)?);
        let sent = registries.blob(reference, blob, &mut partial.file, &mut *task).await;
        sent.map_err(|error| match error {
            RegistryError::Write { source, .. } => failed_cache(source),
            error => failed(reference, error),
        })?;
        let blobs = self.blobs.clone();
        let checked = blocking(move || partial.finish(&blobs)).await.map_err(&failed_cache)?;
        task.finish();
        checked.map_err(|got| OciError::Digest {
            reference: reference.to_string(),
            got,
            expected: blob.digest,
        })
    }

    fn parsed(&self, reference: &Reference, bytes: &[u8]) -> Result<Document, OciError> {
        parse(bytes)
            .map_err(|error| malformed(reference, format!("its manifest is wrong: {error}")))
    }

    async fn keep(&self, reference: &Reference, bytes: Vec<u8>) -> Result<Digest, OciError> {
        let (blobs, digest) = (self.blobs.clone(), sha256(&bytes));
        let kept = blocking(move || blobs.write(&bytes).map(drop)).await;
        kept.map_err(OciError::cache(reference, self.blobs.dir()))?;
        Ok(digest)
    }

    /// Returns every folder and archive whose parts are known by their digests.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Local> {
        self.local.iter().chain(self.given.values().filter_map(Given::source))
    }

    /// Returns whom to ask for what is not here; nobody has a part of a folder or file that was named.
    fn registries_for(
        &self,
        reference: &Reference,
        part: Option<&Digest>,
    ) -> Result<&Registries, OciError> {
        if let (Some(given), Some(digest)) = (reference.given(), part) {
            let (path, digest) = (given.path().to_owned(), *digest);
            return Err(OciError::Missing { path, reference: reference.to_string(), digest });
        }
        self.registries.as_ref().ok_or_else(|| self.offline(reference))
    }

    fn offline(&self, reference: &Reference) -> OciError {
        let places: Vec<_> =
            self.local.iter().map(|local| format!("`{}`", local.path().display())).collect();
        let places =
            if places.is_empty() { "a folder of --images".to_owned() } else { places.join(", ") };
        OciError::Offline { reference: reference.to_string(), places }
    }
}

pub(super) fn malformed(reference: &Reference, problem: String) -> OciError {
    OciError::Malformed { reference: reference.to_string(), problem }
}

pub(super) fn failed(reference: &Reference, source: RegistryError) -> OciError {
    OciError::Registry { reference: reference.to_string(), source: Box::new(source) }
}

/// Waits for locks and disks where that holds nothing else up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
#[path = "images_tests.rs"]
pub(super) mod tests;
