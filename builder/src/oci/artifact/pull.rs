use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_types::{Arch, Digest, ImageRef};

use super::{ARTIFACT, ATTACHMENT_NAME};
use crate::manifest::Manifest;
use crate::oci::document::{self, Descriptor, MAX_DOCUMENT};
use crate::oci::images::{blocking, malformed};
use crate::oci::{ImageSettings, Images, OciError, Reference, select};
use crate::progress::Progress;
use crate::store::{Store, VersionEntry};

/// The most attachments of a version, and the largest.
const MAX_ATTACHMENTS: usize = 32;
const MAX_ATTACHMENT: u64 = 64 << 20;

/// Where a version comes from.
#[derive(Clone, Debug)]
pub enum PullFrom {
    /// A registry, or a layout or archive of the settings that has the name.
    Name(Reference),
    /// A layout folder or an archive of one, whatever names it has.
    Path(PathBuf),
}

/// A version that was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// What it is called here.
    pub image: ImageRef,
    /// Digest of its manifest.
    pub version: Digest,
    /// What the store says of it now.
    pub entry: VersionEntry,
}

/// Brings a version for an architecture into the store, under the name that it was built as or another one. Every part
/// is compared with its digest, and the version is published once all are there. Whether it is served is a matter of
/// its signature, which comes with it.
///
/// # Errors
///
/// Fails when there is no such version or it is damaged, when the policy does not let it be used, and when the store
/// cannot be written.
pub async fn pull(
    from: &PullFrom,
    arch: Arch,
    store: &Store,
    name: Option<&ImageRef>,
    settings: &ImageSettings,
    progress: &dyn Progress,
) -> Result<Pulled, OciError> {
    let mut settings = settings.clone();
    let (reference, root) = match from {
        PullFrom::Name(reference) => (reference.clone(), None),
        PullFrom::Path(path) => {
            settings.dirs = vec![path.clone()];
            settings.offline = true;
            let (reference, digest) = only(path, arch)?;
            (reference, Some(digest))
        }
    };
    let images = Images::open(&settings, &store.cache_dir(), progress)?;
    images.check_rejected(&reference)?;
    let (digest, document) = match root {
        Some(digest) => (digest, images.document(&reference, &digest).await?),
        None => images.root(&reference).await?,
    };
    let (digest, manifest, index, _) =
        images.manifest_for(&reference, arch, digest, document).await?;
    images.check_signed(&reference, &digest, index.as_ref()).await?;
    if manifest.artifact_type.as_deref() != Some(ARTIFACT) {
        return Err(OciError::NotBuilt { reference: reference.to_string() });
    }
    let version = Version { images: &images, reference: &reference, store };
    version.take(*manifest, arch, name).await
}

/// A version on its way into the store.
struct Version<'a> {
    images: &'a Images<'a>,
    reference: &'a Reference,
    store: &'a Store,
}

impl Version<'_> {
    async fn take(
        &self,
        artifact: document::Manifest,
        arch: Arch,
        name: Option<&ImageRef>,
    ) -> Result<Pulled, OciError> {
        let wrong = |problem: String| malformed(self.reference, problem);
        if artifact.config.size > MAX_DOCUMENT {
            return Err(wrong(format!("its manifest has {} bytes", artifact.config.size)));
        }
        let bytes = self.images.small(self.reference, &artifact.config).await?;
        let manifest = Manifest::from_json(&bytes)
            .map_err(|error| wrong(format!("its manifest cannot be read: {error}")))?;
        if manifest.arch != arch {
            return Err(OciError::NotForArch {
                reference: self.reference.to_string(),
                arch,
                there: vec![manifest.arch.to_string()],
            });
        }
        // It names files later on, whatever the image is called here.
        let own: ImageRef = manifest
            .image
            .parse()
            .map_err(|error| wrong(format!("its name is no name of an image: {error}")))?;
        let image = name.cloned().unwrap_or(own);
        let sizes = [(manifest.kernel.digest, manifest.kernel.size)];
        let sizes =
            sizes.into_iter().chain(manifest.segments.iter().map(|it| (it.digest, it.size)));
        for (digest, size) in sizes {
            let layer = layer(&artifact, &digest).ok_or_else(|| wrong(lacks(&digest)))?;
            if layer.size != size {
                return Err(wrong(format!(
                    "its part {digest} has {} bytes and not {size}",
                    layer.size
                )));
            }
        }
        for digest in manifest.artifacts() {
            let layer = layer(&artifact, &digest).ok_or_else(|| wrong(lacks(&digest)))?;
            self.part(layer).await?;
        }
        let digest = artifact.config.digest;
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let created = created.map_or(0, |time| time.as_secs());
        let mut entry = VersionEntry::new(digest, created, manifest.download_size());
        for (name, attachment) in attachments(&artifact).map_err(wrong)? {
            self.part(attachment).await?;
            entry = entry.with(name, attachment.digest);
        }
        self.store.put(&bytes)?;
        self.store.publish(&image, arch, entry.clone())?;
        Ok(Pulled { image, version: digest, entry })
    }

    /// Brings one part into the store.
    async fn part(&self, part: &Descriptor) -> Result<(), OciError> {
        if self.store.holds(&part.digest, part.size) {
            return Ok(());
        }
        let local = self.images.local.iter().find_map(|local| local.file(&part.digest));
        let (path, offset, len, cached) = match local {
            Some((path, offset, len)) => (path, offset, len, false),
            None => (self.images.pull(self.reference, part).await?, 0, part.size, true),
        };
        let (store, from, digest) = (self.store.clone(), path.clone(), part.digest);
        let copied = blocking(move || copy(&store, &from, offset, len, &digest)).await;
        let copied = copied.map_err(OciError::cache(self.reference, self.store.dir()))?;
        if let Err(got) = copied {
            let reference = self.reference.to_string();
            return Err(OciError::Digest { reference, got, expected: part.digest });
        }
        if cached {
            // The store has it now; two copies are no use.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }
}

/// Copies a part of a file into the store, if it has the digest; otherwise returns which it has.
fn copy(
    store: &Store,
    path: &Path,
    offset: u64,
    len: u64,
    digest: &Digest,
) -> io::Result<Result<(), Digest>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut writer = store.writer().map_err(io::Error::other)?;
    io::copy(&mut file.take(len), &mut writer)?;
    writer.flush()?;
    let got = writer.digest();
    if got != *digest {
        return Ok(Err(got));
    }
    writer.commit().map_err(io::Error::other)?;
    Ok(Ok(()))
}

fn layer<'a>(artifact: &'a document::Manifest, digest: &Digest) -> Option<&'a Descriptor> {
    artifact.layers.iter().find(|layer| layer.digest == *digest)
}

fn lacks(digest: &Digest) -> String {
    format!("it lacks its part {digest}; push it again")
}

/// Returns the layers that are attachments, by name.
fn attachments(artifact: &document::Manifest) -> Result<Vec<(&str, &Descriptor)>, String> {
    let layers = artifact.layers.iter();
    let found: Vec<_> = layers
        .filter_map(|layer| Some((layer.annotations.get(ATTACHMENT_NAME)?.as_str(), layer)))
        .collect();
    if found.len() > MAX_ATTACHMENTS {
        return Err(format!("it has {} attachments; {MAX_ATTACHMENTS} are the most", found.len()));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    for (name, layer) in &found {
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(
                "it has an attachment whose name has other signs than a-z, 0-9 and -".to_owned()
            );
        }
        if layer.size > MAX_ATTACHMENT {
            return Err(format!(
                "its attachment `{name}` has {} bytes; {MAX_ATTACHMENT} are the most",
                layer.size
            ));
        }
    }
    Ok(found)
}

/// Returns the one version for an architecture that a layout has, and a name to call it by in messages.
fn only(path: &Path, arch: Arch) -> Result<(Reference, Digest), OciError> {
    let wrong = |problem: String| OciError::Source { path: path.to_owned(), problem };
    let local = crate::oci::local::Local::open(path)?;
    let entries: Vec<_> = local.descriptors().cloned().collect();
    let reference: Reference =
        "localhost/archive".parse().map_err(|error| wrong(format!("{error}")))?;
    match entries.as_slice() {
        [only] => Ok((reference, only.digest)),
        several => match select::pick(several, arch) {
            Ok(entry) => Ok((reference, entry.digest)),
            Err(there) => {
                Err(OciError::NotForArch { reference: path.display().to_string(), arch, there })
            }
        },
    }
}
