//! One registry or mirror, over HTTP.

mod access;
mod push;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kiln_types::Digest;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::{Client, Reference as Parsed, RegistryOperation};
use reqwest::header::{ACCEPT, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tokio::sync::Mutex;

use super::guard::{self, Guard};
use super::{RegistryError, RegistrySettings};
use crate::oci::document::Descriptor;
use crate::progress::Task;

const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// However long a registry asks to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
/// How long a registry may be silent: before its answer and between two pieces of it.
const SILENCE: Duration =
    if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };
const MAX_REDIRECTS: usize = 5;

/// What manifests may be.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) enum Object<'a> {
    /// A manifest by tag or digest.
    Manifest(&'a str),
    /// A blob.
    Blob(&'a Digest),
    /// The index of what refers to a manifest.
    Referrers(&'a Digest),
}

/// One registry or mirror.
pub(in crate::oci) struct Host {
    name: String,
    settings: Option<RegistrySettings>,
    plain: bool,
    http: reqwest::Client,
    /// Fetches tokens, and pushes.
    client: Client,
    /// By repository.
    tokens: Mutex<HashMap<String, Login>>,
    first_pause: Duration,
    down: AtomicBool,
}

/// How often something was tried, and how long to wait before the next time.
struct Tries {
    /// Which try it is, the first one being 1.
    number: u32,
    pause: Duration,
}

impl Tries {
    /// Returns whether another try may help.
    fn are_left_after(&self, error: &RegistryError) -> bool {
        error.is_transient() && self.number < TRIES
    }

    /// Waits for the next try, each time for longer.
    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.number += 1;
    }
}

#[derive(Clone, Debug)]
enum Login {
    Token(String),
    Basic(String, String),
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn new(
        name: &str,
        settings: Option<RegistrySettings>,
    ) -> Result<Self, RegistryError> {
        // An error says that one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let plain = settings.as_ref().is_some_and(|settings| settings.plain_http);
        let mut certificates = Vec::new();
        for path in settings.iter().flat_map(|settings| &settings.ca) {
            let wrong = |problem: String| RegistryError::File { path: path.clone(), problem };
            certificates
                .push((path, std::fs::read(path).map_err(|error| wrong(error.to_string()))?));
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .https_only(!plain)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS));
        // A proxy looks for names itself, and settles what can be reached.
        if !has_proxy() {
            let guard = Guard::new(name);
            http = http.redirect(guard.policy(MAX_REDIRECTS)).dns_resolver(guard);
        }
        for (path, pem) in &certificates {
            let wrong = |problem: String| RegistryError::File { path: (*path).clone(), problem };
            let parsed = reqwest::Certificate::from_pem_bundle(pem)
                .ok()
                .filter(|parsed| !parsed.is_empty())
                .ok_or_else(|| wrong("it has no certificate in PEM form".to_owned()))?;
            http = http.tls_certs_merge(parsed);
        }
        let unusable = |error: reqwest::Error| RegistryError::Unreachable {
            host: name.to_owned(),
            problem: error.to_string(),
        };
        let client = Client::new(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates
                .into_iter()
                .map(|(_, data)| Certificate { encoding: CertificateEncoding::Pem, data })
                .collect(),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            ..ClientConfig::default()
        });
        Ok(Self {
            name: name.to_owned(),
            settings,
            plain,
            http: http.build().map_err(unusable)?,
            client,
            tokens: Mutex::default(),
            first_pause: if cfg!(test) { Duration::from_millis(1) } else { FIRST_PAUSE },
            down: AtomicBool::default(),
        })
    }

    fn tries(&self) -> Tries {
        Tries { number: 1, pause: self.first_pause }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether it could not be reached, however often that was tried.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn noted<T>(&self, done: Result<T, RegistryError>) -> Result<T, RegistryError> {
        if matches!(done, Err(RegistryError::Unreachable { .. })) {
            self.down.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Fetches something small.
    pub(super) async fn document(
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
    pub(super) async fn blob(
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

    async fn collect(
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
        request.send().await.map_err(|error| match guard::sent_on(&error) {
            Some(refused) => {
                let (host, problem) = (self.name.clone(), refused.to_string());
                RegistryError::SentOn { host, problem }
            }
            None => self.unreachable(cause(&error)),
        })
    }

    /// Tells what is no matter of the network from what is, by the words that rustls has for it.
    fn unreachable(&self, problem: String) -> RegistryError {
        let host = self.name.clone();
        if problem.starts_with("invalid peer certificate") {
            RegistryError::Certificate { host, problem }
        } else if problem.contains("InvalidContentType") {
            RegistryError::Plain { host }
        } else {
            RegistryError::Unreachable { host, problem }
        }
    }

    fn parsed(&self, repository: &str) -> Parsed {
        Parsed::with_tag(self.name.clone(), repository.to_owned(), "latest".to_owned())
    }

    fn broken(&self, what: &str, error: &reqwest::Error) -> RegistryError {
        let (host, what) = (self.name.clone(), what.to_owned());
        RegistryError::Broken { host, what, problem: cause(error) }
    }

    fn too_large(&self, what: &str, limit: u64) -> RegistryError {
        RegistryError::TooLarge { host: self.name.clone(), what: what.to_owned(), limit }
    }
}

/// Returns the innermost cause, which is the one that a person understands; the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Returns whether requests go by a proxy, as the environment says.
fn has_proxy() -> bool {
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
