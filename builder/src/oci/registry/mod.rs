//! Registries (OCI distribution specification 1.1): manifests and blobs, with logins, mirrors, retries and limits.

mod error;
mod guard;
mod host;
mod login;
mod settings;

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use kiln_types::Digest;
use tokio::sync::Mutex;

pub use self::error::RegistryError;
pub use self::settings::RegistrySettings;

use self::host::{Host, Object};
use super::Reference;
use super::document::{Descriptor, Document, MAX_DOCUMENT, parse};
use crate::hash::sha256;
use crate::progress::Task;

/// The registries that images are pulled from. Connections and logins are kept.
#[derive(Debug)]
pub(crate) struct Registries {
    settings: Vec<RegistrySettings>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// A place to ask: a host, and the repository as it is called there.
struct Place {
    host: Arc<Host>,
    repository: String,
}

impl Registries {
    pub(crate) fn new(settings: Vec<RegistrySettings>) -> Self {
        Self { settings, hosts: Mutex::default() }
    }

    /// Returns a manifest or an index, by the digest if there is one, else by the tag of the reference.
    pub(crate) async fn manifest(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
    ) -> Result<Bytes, RegistryError> {
        let digest = digest.or_else(|| reference.digest());
        let name = match &digest {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let mut first = None;
        for place in self.places(reference).await? {
            let what = format!("{}:{name}", place.repository);
            let object = Object::Manifest(&name);
            let found = place.host.document(&place.repository, object, &what, MAX_DOCUMENT).await;
            let found = found.and_then(|bytes| match digest {
                Some(digest) if sha256(&bytes) != digest => Err(RegistryError::Broken {
                    host: place.host.name().to_owned(),
                    what,
                    problem: format!("it is {}", sha256(&bytes)),
                }),
                _ => Ok(bytes),
            });
            match found {
                Ok(bytes) => return Ok(bytes),
                Err(error) => note(&mut first, error),
            }
        }
        Err(last(first))
    }

    /// Returns the manifest or index of another tag in the repository of the reference.
    pub(crate) async fn tagged(
        &self,
        reference: &Reference,
        tag: &str,
    ) -> Result<Bytes, RegistryError> {
        let mut first = None;
        for place in self.places(reference).await? {
            let what = format!("{}:{tag}", place.repository);
            let object = Object::Manifest(tag);
            match place.host.document(&place.repository, object, &what, MAX_DOCUMENT).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => note(&mut first, error),
            }
        }
        Err(last(first))
    }

    /// Returns what says something about a manifest, signatures for example. Registries that do not know the call have
    /// an index under a tag (OCI distribution specification 1.1, "Referrers Tag Schema").
    pub(crate) async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        for place in self.places(reference).await? {
            let what = format!("list of what refers to {subject}");
            let object = Object::Referrers(subject);
            let found = place.host.document(&place.repository, object, &what, MAX_DOCUMENT).await;
            if let Ok(Ok(Document::Index(all))) = found.as_deref().map(parse)
                && !all.is_empty()
            {
                return Ok(all);
            }
        }
        match self.tagged(reference, &format!("sha256-{}", subject.hex())).await {
            Ok(bytes) => match parse(&bytes) {
                Ok(Document::Index(all)) => Ok(all),
                _ => Ok(Vec::new()),
            },
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Appends a blob to a file, from where that ends. What comes is counted, not checked.
    pub(crate) async fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        file: &mut File,
        task: &mut dyn Task,
    ) -> Result<(), RegistryError> {
        let mut first = None;
        for place in self.places(reference).await? {
            match place.host.blob(&place.repository, blob, file, task).await {
                Ok(()) => return Ok(()),
                Err(error @ RegistryError::Write { .. }) => return Err(error),
                Err(error) => note(&mut first, error),
            }
        }
        Err(last(first))
    }

    /// Returns the registry itself, for pushing. Mirrors are for pulling.
    pub(in crate::oci) async fn home(
        &self,
        reference: &Reference,
    ) -> Result<Arc<Host>, RegistryError> {
        self.host(reference.registry()).await
    }

    /// Returns where to ask: the mirrors in order, then the registry.
    async fn places(&self, reference: &Reference) -> Result<Vec<Place>, RegistryError> {
        let registry = reference.registry();
        let mut places = Vec::new();
        for mirror in self.settings(registry).iter().flat_map(|settings| &settings.mirrors) {
            let (host, path) = mirror.split_once('/').unwrap_or((mirror, ""));
            let repository = format!("{path}/{}", reference.repository());
            let repository = repository.trim_start_matches('/').to_owned();
            let host = self.host(host).await?;
            // Each part of an image would wait for it as long as the first one has.
            if !host.is_down() {
                places.push(Place { host, repository });
            }
        }
        let repository = reference.repository().to_owned();
        places.push(Place { host: self.host(registry).await?, repository });
        Ok(places)
    }

    fn settings(&self, host: &str) -> Option<&RegistrySettings> {
        self.settings.iter().find(|settings| settings.host == host)
    }

    async fn host(&self, name: &str) -> Result<Arc<Host>, RegistryError> {
        let mut hosts = self.hosts.lock().await;
        if let Some(host) = hosts.get(name) {
            return Ok(host.clone());
        }
        let host = Arc::new(Host::new(name, self.settings(name).cloned())?);
        hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }
}

/// Keeps what is most worth telling: a mirror that lacks something is no news, the registry's own word is.
fn note(first: &mut Option<RegistryError>, error: RegistryError) {
    tracing::debug!(error = &error as &dyn std::error::Error, "a registry or mirror failed");
    *first = Some(error);
}

fn last(error: Option<RegistryError>) -> RegistryError {
    error.unwrap_or_else(|| RegistryError::Unreachable {
        host: String::new(),
        problem: "there is nowhere to ask".to_owned(),
    })
}

#[cfg(test)]
mod tests;
