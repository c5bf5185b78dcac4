//! Images that a specification names by their folder or file.

use kiln_types::{Arch, Digest};

use super::directory::{self, Problem};
use super::document::Document;
use super::local::{Local, Miss};
use super::{GivenImage, GivenKind, Images, OciError, Reference};

/// A folder or file that was named, ready to take an image from.
#[derive(Debug)]
pub(super) enum Given {
    /// A layout or an archive.
    Source(Box<Local>),
    /// A root file system that is in the cache by now, for this architecture, under this manifest.
    Directory(Arch, Digest),
}

impl Given {
    pub(super) fn source(&self) -> Option<&Local> {
        match self {
            Self::Source(local) => Some(local),
            Self::Directory(..) => None,
        }
    }
}

impl Images<'_> {
    /// Opens the folder or file that a reference names; does nothing for one in a registry. [`resolve`](Self::resolve)
    /// needs it.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, is something else, or is a folder with programs for other architectures only.
    pub async fn open_given(&mut self, reference: &Reference, arch: Arch) -> Result<(), OciError> {
        let Some(given) = reference.given() else { return Ok(()) };
        // What is rejected is not even looked at.
        self.check_rejected(reference)?;
        let (name, given, blobs) = (reference.clone(), given.clone(), self.blobs.clone());
        let opened = tokio::task::spawn_blocking(move || match given.kind() {
            GivenKind::Directory => directory::keep(given.path(), arch, &blobs)
                .map(|digest| Given::Directory(arch, digest))
                .map_err(|problem| folder_problem(&name, arch, problem, blobs.dir())),
            _ => open(&given).map(|local| Given::Source(Box::new(local))),
        });
        let opened = opened.await.map_err(|error| {
            OciError::cache(reference, self.blobs.dir())(std::io::Error::other(error))
        })??;
        self.given.insert(reference.to_string(), opened);
        Ok(())
    }

    /// Returns what a folder or file that was opened means for an architecture.
    pub(super) async fn given_root(
        &self,
        reference: &Reference,
        given: &GivenImage,
        arch: Arch,
    ) -> Result<(Digest, Document), OciError> {
        let wrong = |problem: String| OciError::Source { path: given.path().to_owned(), problem };
        let digest = match self.given.get(&reference.to_string()) {
            Some(Given::Directory(made, digest)) if *made == arch => *digest,
            Some(Given::Source(local)) => {
                local.choose(given.name(), arch).map_err(|miss| match miss {
                    Miss::Name(problem) => wrong(problem),
                    Miss::NotForArch(there) => {
                        OciError::NotForArch { reference: reference.to_string(), arch, there }
                    }
                })?
            }
            _ => return Err(wrong("it was not opened".to_owned())),
        };
        Ok((digest, self.document(reference, &digest).await?))
    }
}

fn open(given: &GivenImage) -> Result<Local, OciError> {
    let path = given.path();
    let wrong = |problem: &str| {
        let (path, problem) = (path.to_owned(), problem.to_owned());
        Err(OciError::Source { path, problem })
    };
    match given.kind() {
        GivenKind::Layout if path.is_file() => {
            wrong("it is a file; write `oci-archive:` or `docker-archive:` before it")
        }
        GivenKind::LayoutArchive | GivenKind::DockerArchive if path.is_dir() => wrong(
            "it is a folder; write `oci:` before a layout, and `dir:` before a root file system",
        ),
        _ => Local::open(path),
    }
}

fn folder_problem(
    reference: &Reference,
    arch: Arch,
    problem: Problem,
    cache: &std::path::Path,
) -> OciError {
    match problem {
        Problem::NotForArch(there) => {
            OciError::NotForArch { reference: reference.to_string(), arch, there }
        }
        Problem::Path(path, source) => OciError::Source { path, problem: source.to_string() },
        Problem::Cache(source) => OciError::cache(reference, cache)(source),
    }
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
