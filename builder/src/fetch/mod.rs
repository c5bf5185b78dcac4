//! Downloads over HTTP and HTTPS into files: hashed on the way, whole or not there at all.

mod error;

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kiln_types::Digest;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

pub use self::error::FetchError;
use crate::hash::Hasher;
use crate::progress::Progress;

const TRIES: u32 = 3;
const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent: before its answer and between two pieces of it.
const SILENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A download client. Connections are kept and reused.
pub struct Fetcher<'p> {
    http: Client<HttpConnector, Empty<Bytes>>,
    // Reading the system's certificates takes a while, and most mirrors are plain HTTP.
    https: OnceLock<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>>,
    progress: &'p dyn Progress,
    first_pause: Duration,
}

/// What to download and where to.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// The address.
    pub url: &'a str,
    /// The file to write. It appears when all bytes are there and right, and not before.
    pub path: &'a Path,
    /// What to call it on the progress bar.
    pub name: &'a str,
    /// The most bytes to accept.
    pub limit: u64,
    /// The exact size, if it is known.
    pub size: Option<u64>,
    /// The hash that it must have, if it is known.
    pub sha256: Option<Digest>,
}

impl fmt::Debug for Fetcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl<'p> Fetcher<'p> {
    /// Returns a client that shows its downloads on `progress`.
    pub fn new(progress: &'p dyn Progress) -> Self {
        let http = Client::builder(TokioExecutor::new()).build(connector());
        Self { http, https: OnceLock::new(), progress, first_pause: FIRST_PAUSE }
    }

    /// Returns where the downloads are shown.
    pub fn progress(&self) -> &'p dyn Progress {
        self.progress
    }

    /// Downloads one file, trying three times when the network or the server is at fault, and returns its hash.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be had, is not what was asked for, or cannot be written. Then there is no file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no file.
    pub async fn download(&self, what: Download<'_>) -> Result<Digest, FetchError> {
        let mut pause = self.first_pause;
        for _ in 1..TRIES {
            match self.attempt(what).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(url = what.url, %error, "download failed, trying again");
                    sleep(pause).await;
                    pause *= 4;
                }
                done => return done,
            }
        }
        self.attempt(what).await
    }

    async fn attempt(&self, what: Download<'_>) -> Result<Digest, FetchError> {
        let url = || what.url.to_owned();
        let response = self.open(what.url).await?;
        let announced = hyper::body::Body::size_hint(response.body()).exact();
        let limit = what.size.unwrap_or(what.limit).min(what.limit);
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(FetchError::TooLarge { url: url(), limit });
        }
        let failed = FetchError::write(what.path);
        let dir = what.path.parent().unwrap_or_else(|| Path::new("."));
        tokio::fs::create_dir_all(dir).await.map_err(&failed)?;
        let temp = NamedTempFile::new_in(dir).map_err(&failed)?;
        let mut file = tokio::fs::File::from_std(temp.as_file().try_clone().map_err(&failed)?);
        let mut task = self.progress.begin(what.name, what.size.or(announced));
        let mut hash = Hasher::default();
        let mut got = 0;
        let mut body = response.into_body();
        while let Some(frame) =
            timeout(SILENCE, body.frame()).await.map_err(|_| FetchError::Silent { url: url() })?
        {
            let frame = frame.map_err(|source| FetchError::Body { url: url(), source })?;
            let Ok(data) = frame.into_data() else { continue };
            got += data.len() as u64;
            if got > limit {
                return Err(FetchError::TooLarge { url: url(), limit });
            }
            hash.update(&data);
            file.write_all(&data).await.map_err(&failed)?;
            task.advance(data.len() as u64);
        }
        if let Some(expected) = what.size.or(announced).filter(|expected| got < *expected) {
            return Err(FetchError::Short { url: url(), got, expected });
        }
        let digest = hash.finish();
        if let Some(expected) = what.sha256.filter(|expected| *expected != digest) {
            return Err(FetchError::Hash { url: url(), got: digest, expected });
        }
        file.flush().await.map_err(&failed)?;
        file.sync_all().await.map_err(&failed)?;
        publish(temp, what.path)?;
        task.finish();
        Ok(digest)
    }

    /// Sends the request and follows redirects.
    async fn open(&self, url: &str) -> Result<Response<Incoming>, FetchError> {
        let mut at = checked(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(&at).await?;
            let status = response.status();
            let target = response.headers().get(LOCATION).filter(|_| status.is_redirection());
            let Some(target) = target else {
                return match status {
                    StatusCode::OK => Ok(response),
                    _ => Err(FetchError::Status { url: at.to_string(), status }),
                };
            };
            let bad = |reason| FetchError::Address { url: url.to_owned(), reason };
            let target = target.to_str().map_err(|_| bad("it redirects to no address"))?;
            let next = checked(&join(&at, target))?;
            if at.scheme_str() == Some("https") && next.scheme_str() == Some("http") {
                return Err(bad("it redirects from https to plain http"));
            }
            at = next;
        }
        Err(FetchError::Redirects { url: url.to_owned() })
    }

    async fn request(&self, at: &Uri) -> Result<Response<Incoming>, FetchError> {
        let url = at.to_string();
        let request = Request::get(at)
            .header(USER_AGENT, concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .header(HOST, at.authority().map_or("", |authority| authority.as_str()))
            .body(Empty::new())
            .map_err(|_| FetchError::Address { url: url.clone(), reason: "it is malformed" })?;
        let response = match at.scheme_str() {
            Some("https") => self.https(&url)?.request(request),
            _ => self.http.request(request),
        };
        match timeout(SILENCE, response).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(FetchError::Connect { url, source }),
            Err(_) => Err(FetchError::Silent { url }),
        }
    }

    fn https(
        &self,
        url: &str,
    ) -> Result<&Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, FetchError> {
        if let Some(client) = self.https.get() {
            return Ok(client);
        }
        let builder = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|source| FetchError::Certificates { url: url.to_owned(), source })?;
        let connector = builder.https_only().enable_http1().wrap_connector(connector());
        Ok(self.https.get_or_init(|| Client::builder(TokioExecutor::new()).build(connector)))
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector
}

/// Parses an address that this client can use.
fn checked(url: &str) -> Result<Uri, FetchError> {
    let bad = |url: &str, reason| FetchError::Address { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|_| bad(url, "it is malformed"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad(url, "it does not begin with http:// or https://"));
    }
    if let Some((_, host)) = uri.authority().and_then(|it| it.as_str().rsplit_once('@')) {
        // What stands before the host is a secret: it must not reach a log.
        return Err(bad(host, "a user name or password in an address is not supported"));
    }
    Ok(uri)
}

/// Resolves the target of a redirect (RFC 3986 §5.2, without `.` and `..`, which servers do not send).
fn join(base: &Uri, target: &str) -> String {
    let scheme = base.scheme_str().unwrap_or("http");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    if target.contains("://") {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{target}")
    }
}

/// Gives a complete, synced temporary file its name, durably.
pub(crate) fn publish(temp: NamedTempFile, path: &Path) -> Result<(), FetchError> {
    let failed = FetchError::write(path);
    temp.persist(path).map_err(|error| failed(error.error))?;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests;
