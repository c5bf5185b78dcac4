use kiln_types::{Arch, Digest};

use super::{ARTIFACT, Artifact, OCI_INDEX, OCI_MANIFEST, index};
use crate::hash::sha256;
use crate::oci::registry::Registries;
use crate::oci::{ImageSettings, OciError, Reference};
use crate::progress::Progress;
use crate::store::{Store, VersionEntry};

/// What came of pushing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the index: by it, nothing else is ever pulled.
    pub digest: Digest,
    /// How many bytes were sent. What the registry had already was not.
    pub sent: u64,
}

/// Sends versions of an image, one for each architecture, to a registry. The tag of the name, `latest` where there is
/// none, then names these and no others.
///
/// # Errors
///
/// Fails when the store lacks a part, and when the registry does not take one. What was sent until then stays there,
/// and nothing names it.
pub async fn push(
    store: &Store,
    versions: &[(Arch, VersionEntry)],
    reference: &Reference,
    settings: &ImageSettings,
    progress: &dyn Progress,
) -> Result<Pushed, OciError> {
    if reference.digest().is_some() {
        let problem = "a name with a digest is no place to push to; write a tag".to_owned();
        return Err(OciError::Malformed { reference: reference.to_string(), problem });
    }
    let failed =
        |source| OciError::Push { reference: reference.to_string(), source: Box::new(source) };
    if settings.offline {
        let places = "this store alone".to_owned();
        return Err(OciError::Offline { reference: reference.to_string(), places });
    }
    let registries = Registries::new(settings.registries.clone());
    let home = registries.home(reference).await.map_err(failed)?;
    let repository = reference.repository();
    let mut sent = 0;
    let mut artifacts = Vec::new();
    for (arch, version) in versions {
        let artifact = Artifact::of(store, *arch, version)?;
        for part in &artifact.parts {
            if home.has_blob(repository, &part.digest).await.map_err(failed)? {
                continue;
            }
            let name = format!("{repository} {}", part.digest.short());
            let mut task = progress.begin(&name, Some(part.size));
            let path = store.artifact(&part.digest);
            home.put_blob(repository, part, &path, &mut *task).await.map_err(failed)?;
            task.finish();
            sent += part.size;
        }
        artifacts.push(artifact);
    }
    // A manifest may be sent once all that it names is there, and the tag is set last.
    for artifact in &artifacts {
        let name = artifact.descriptor.digest.to_string();
        let bytes = artifact.bytes.clone();
        home.put_manifest(repository, &name, OCI_MANIFEST, bytes).await.map_err(failed)?;
    }
    let bytes = index(artifacts.iter().map(|it| &it.descriptor).collect(), Some(ARTIFACT))?;
    let digest = sha256(&bytes);
    let tag = reference.tag().unwrap_or("latest");
    home.put_manifest(repository, tag, OCI_INDEX, bytes).await.map_err(failed)?;
    Ok(Pushed { digest, sent })
}
