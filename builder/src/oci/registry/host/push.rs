//! Sending blobs and manifests (OCI distribution specification 1.1, "Push").

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use oci_client::RegistryOperation;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Method, Url};

use super::*;

/// The most that is sent at a time, in bytes: a registry must take it within [`SILENCE`].
const CHUNK: u64 = if cfg!(test) { 1000 } else { 4 << 20 };

/// A request that can be made again after a login.
struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Host {
    /// Returns whether a blob is there already.
    pub(in crate::oci) async fn has_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let what = format!("{digest} of {repository}");
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let call = Call::new(Method::HEAD, url, Bytes::new());
        match self.call(repository, &what, &call, &[StatusCode::OK]).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a blob out of a file, in pieces. When the registry or the way to it fails, all of it is sent again.
    pub(in crate::oci) async fn put_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        path: &Path,
        task: &mut dyn Task,
    ) -> Result<(), RegistryError> {
        let what = format!("{} of {repository}", blob.digest);
        let mut tries = self.tries();
        loop {
            match self.put_blob_once(repository, blob, path, &what, task).await {
                Err(error) if tries.are_left_after(&error) => tries.wait().await,
                done => return done,
            }
        }
    }

    async fn put_blob_once(
        &self,
        repository: &str,
        blob: &Descriptor,
        path: &Path,
        what: &str,
        task: &mut dyn Task,
    ) -> Result<(), RegistryError> {
        let url = self.url(repository, "blobs/uploads/")?;
        let call = Call::new(Method::POST, url, Bytes::new());
        let answer = self.call(repository, what, &call, &[StatusCode::ACCEPTED]).await?;
        let mut place = self.location(&answer, &call.url, what)?;
        let mut from = 0;
        let mut last = Bytes::new();
        while from < blob.size {
            let chunk = read(path, from, CHUNK.min(blob.size - from)).await.map_err(|error| {
                RegistryError::File { path: path.to_owned(), problem: error.to_string() }
            })?;
            let (len, end) = (chunk.len() as u64, from + chunk.len() as u64);
            if blob.size <= CHUNK {
                // What fits into one piece ends the upload in the same request.
                last = chunk;
            } else {
                let mut call = Call::new(Method::PATCH, place.clone(), chunk);
                let range = HeaderValue::from_str(&format!("{from}-{}", end - 1));
                if let Ok(range) = range {
                    call.headers.insert(CONTENT_RANGE, range);
                }
                call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
                let answer = self.call(repository, what, &call, &[StatusCode::ACCEPTED]).await?;
                place = self.location(&answer, &place, what)?;
            }
            from = end;
            task.advance(len);
        }
        place.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let mut call = Call::new(Method::PUT, place, last);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        let taken = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        self.call(repository, what, &call, &taken).await.map(drop)
    }

    /// Sends a manifest or index under a tag or its digest.
    pub(in crate::oci) async fn put_manifest(
        &self,
        repository: &str,
        name: &str,
        media_type: &'static str,
        bytes: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let what = format!("{repository}:{name}");
        let url = self.url(repository, &format!("manifests/{name}"))?;
        let mut call = Call::new(Method::PUT, url, bytes.into());
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let mut tries = self.tries();
        loop {
            match self.call(repository, &what, &call, &[StatusCode::CREATED]).await {
                Err(error) if tries.are_left_after(&error) => tries.wait().await,
                done => return done.map(drop),
            }
        }
    }

    /// Makes a request, and once more after a login that allows writing.
    async fn call(
        &self,
        repository: &str,
        what: &str,
        call: &Call,
        good: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        let mut logged_in = false;
        loop {
            let mut request = self
                .http
                .request(call.method.clone(), call.url.clone())
                .headers(call.headers.clone())
                .body(call.body.clone());
            if call.method != Method::HEAD {
                request = request.header(CONTENT_LENGTH, call.body.len());
            }
            // An upload may lead elsewhere, where our login is nobody's business.
            if self.url(repository, "").is_ok_and(|own| own.origin() == call.url.origin()) {
                request = match self.tokens.lock().await.get(repository) {
                    Some(Login::Token(token)) => request.bearer_auth(token),
                    Some(Login::Basic(name, password)) => request.basic_auth(name, Some(password)),
                    None => request,
                };
            }
            let response = self.sent(request).await?;
            let (host, what) = (self.name.clone(), what.to_owned());
            return match response.status() {
                status if good.contains(&status) => Ok(response),
                StatusCode::UNAUTHORIZED if !logged_in => {
                    self.log_in(repository, RegistryOperation::Push).await?;
                    logged_in = true;
                    continue;
                }
                StatusCode::UNAUTHORIZED => Err(self.login_refused(repository).await),
                StatusCode::FORBIDDEN => {
                    Err(RegistryError::Forbidden { host, what: repository.to_owned() })
                }
                StatusCode::NOT_FOUND => Err(RegistryError::NotFound { host, what }),
                StatusCode::TOO_MANY_REQUESTS => Err(RegistryError::Busy { host, tries: TRIES }),
                other => Err(RegistryError::Status { host, status: other.as_u16(), what }),
            };
        }
    }

    fn url(&self, repository: &str, path: &str) -> Result<Url, RegistryError> {
        let scheme = if self.plain { "http" } else { "https" };
        let host = self.parsed(repository).resolve_registry().to_owned();
        Url::parse(&format!("{scheme}://{host}/v2/{repository}/{path}")).map_err(|error| {
            RegistryError::Unreachable { host: self.name.clone(), problem: error.to_string() }
        })
    }

    /// Returns where an upload goes on.
    fn location(&self, answer: &Response, base: &Url, what: &str) -> Result<Url, RegistryError> {
        let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url =
            text.and_then(|text| base.join(text).ok()).ok_or_else(|| RegistryError::Broken {
                host: self.name.clone(),
                what: what.to_owned(),
                problem: "it does not say where to send it".to_owned(),
            })?;
        self.may_go_to(&url)?;
        Ok(url)
    }
}

const OCTETS: &str = "application/octet-stream";

impl Call {
    fn new(method: Method, url: Url, body: Bytes) -> Self {
        Self { method, url, headers: HeaderMap::new(), body }
    }
}

/// Reads a part of a file, all of it or not.
async fn read(path: &Path, from: u64, len: u64) -> std::io::Result<Bytes> {
    let path = path.to_owned();
    let read = move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == len {
            true => Ok(bytes.into()),
            false => Err(std::io::Error::other("it is shorter than its manifest says")),
        }
    };
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
