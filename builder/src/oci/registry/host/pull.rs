//! Fetching blobs and manifests (OCI distribution specification 1.1, "Pull").

use std::io::Write as _;

use bytes::BytesMut;
use reqwest::header::{ACCEPT, RANGE, RETRY_AFTER};

use super::*;

/// What manifests may be.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// What is asked for.
#[derive(Clone, Copy)]
pub(in crate::oci::registry) enum Object<'a> {
    /// A manifest by tag or digest.
    Manifest(&'a str),
    /// A blob.
    Blob(&'a Digest),
    /// The index of what refers to a manifest.
    Referrers(&'a Digest),
}

impl Host {
    /// Fetches something small.
    pub(in crate::oci::registry) async fn document(
        &self,
        repository: &str,
        object: Object<'_>,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut tries = self.tries();
        loop {
            let attempt = async {
                let response = self.get(repository, object, 0, what, tries.number).await?;
                self.collect(response, what, limit).await
            };
            match attempt.await {
                Err(error) if tries.are_left_after(&error) => tries.wait().await,
                done => return self.noted(done),
            }
        }
    }

    /// Appends a blob to a file. Each break is followed by another try from where the file ends.
    pub(in crate::oci::registry) async fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        file: &mut File,
        task: &mut dyn Task,
    ) -> Result<(), RegistryError> {
        let what = format!("{} of {repository}", blob.digest);
        let mut tries = self.tries();
        loop {
            let before = self.length(file)?;
            let result = self.blob_once(repository, blob, &what, file, task, tries.number).await;
            match result {
                Err(error) if tries.are_left_after(&error) => {
                    // Whoever gets further has all tries again.
                    if self.length(file)? > before {
                        tries = Tries { number: 0, pause: self.first_pause };
                    }
                    tries.wait().await;
                }
                done => return self.noted(done),
            }
        }
    }

    async fn blob_once(
        &self,
        repository: &str,
        blob: &Descriptor,
        what: &str,
        file: &mut File,
        task: &mut dyn Task,
        tries: u32,
    ) -> Result<(), RegistryError> {
        let write = |source| RegistryError::Write { host: self.name.clone(), source };
        let mut have = self.length(file)?;
        if have > blob.size {
            file.set_len(0).map_err(write)?;
            have = 0;
        }
        if have == blob.size && blob.size > 0 {
            return Ok(());
        }
        let mut response =
            self.get(repository, Object::Blob(&blob.digest), have, what, tries).await?;
        if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // It sends everything again.
            file.set_len(0).map_err(write)?;
            have = 0;
        }
        loop {
            let chunk = response.chunk().await.map_err(|error| self.broken(what, &error))?;
            let Some(chunk) = chunk else { break };
            have += chunk.len() as u64;
            if have > blob.size {
                file.set_len(0).map_err(write)?;
                return Err(self.too_large(what, blob.size));
            }
            file.write_all(&chunk).map_err(write)?;
            task.advance(chunk.len() as u64);
        }
        if have < blob.size {
            let problem = format!("{have} of {} bytes came", blob.size);
            return Err(RegistryError::Broken {
                host: self.name.clone(),
                what: what.to_owned(),
                problem,
            });
        }
        Ok(())
    }

    fn length(&self, file: &File) -> Result<u64, RegistryError> {
        let write = |source| RegistryError::Write { host: self.name.clone(), source };
        Ok(file.metadata().map_err(write)?.len())
    }

    pub(super) async fn collect(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(what, &error))? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(self.too_large(what, limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Asks once, and once more after a login. Returns an answer with the status 200 or 206.
    async fn get(
        &self,
        repository: &str,
        object: Object<'_>,
        from: u64,
        what: &str,
        tries: u32,
    ) -> Result<Response, RegistryError> {
        let mut logged_in = false;
        loop {
            let response = self.send(repository, object, from).await?;
            let status = response.status();
            let host = || self.name.clone();
            match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::UNAUTHORIZED if !logged_in => {
                    self.log_in(repository, RegistryOperation::Pull).await?;
                    logged_in = true;
                }
                StatusCode::UNAUTHORIZED => return Err(self.login_refused(repository).await),
                StatusCode::FORBIDDEN => {
                    return Err(RegistryError::Forbidden {
                        host: host(),
                        what: repository.to_owned(),
                    });
                }
                StatusCode::NOT_FOUND => {
                    return Err(RegistryError::NotFound { host: host(), what: what.to_owned() });
                }
                StatusCode::TOO_MANY_REQUESTS => {
                    let seconds =
                        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                    let seconds =
                        seconds.and_then(|value| value.parse().ok()).map(Duration::from_secs);
                    if tries < TRIES {
                        tokio::time::sleep(seconds.unwrap_or_default().min(LONGEST_PAUSE)).await;
                    }
                    return Err(RegistryError::Busy { host: host(), tries });
                }
                other => {
                    let (status, what) = (other.as_u16(), what.to_owned());
                    return Err(RegistryError::Status { host: host(), status, what });
                }
            }
        }
    }

    async fn send(
        &self,
        repository: &str,
        object: Object<'_>,
        from: u64,
    ) -> Result<Response, RegistryError> {
        let scheme = if self.plain { "http" } else { "https" };
        let parsed = self.parsed(repository);
        let host = parsed.resolve_registry();
        let path = match object {
            Object::Manifest(name) => format!("manifests/{name}"),
            Object::Blob(digest) => format!("blobs/{digest}"),
            Object::Referrers(digest) => format!("referrers/{digest}"),
        };
        let mut request = self.http.get(format!("{scheme}://{host}/v2/{repository}/{path}"));
        if !matches!(object, Object::Blob(_)) {
            request = request.header(ACCEPT, DOCUMENTS);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        request = match self.tokens.lock().await.get(repository) {
            Some(Login::Token(token)) => request.bearer_auth(token),
            Some(Login::Basic(name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        };
        self.sent(request).await
    }

    fn broken(&self, what: &str, error: &reqwest::Error) -> RegistryError {
        let (host, what) = (self.name.clone(), what.to_owned());
        RegistryError::Broken { host, what, problem: cause(error) }
    }

    fn too_large(&self, what: &str, limit: u64) -> RegistryError {
        RegistryError::TooLarge { host: self.name.clone(), what: what.to_owned(), limit }
    }
}
