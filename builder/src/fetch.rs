//! Downloads over HTTP and HTTPS into files: hashed on the way, whole or not there at all.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use kiln_types::Digest;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

use crate::disk::is_full;
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

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address cannot be used.
    #[error("cannot download from `{url}`: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system's certificates cannot be read.
    #[error(
        "cannot read the certificates to check {url} with; install the package ca-certificates"
    )]
    Certificates {
        /// The address.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// No connection, or it broke before the answer.
    #[error("cannot reach {url}; check the network and the name of the mirror")]
    Connect {
        /// The address.
        url: String,
        /// The cause.
        source: ClientError,
    },
    /// The connection broke within the answer.
    #[error("the download of {url} broke off; try again")]
    Body {
        /// The address.
        url: String,
        /// The cause.
        source: hyper::Error,
    },
    /// The server was silent for too long.
    #[error("{url} did not answer within {} s; check the network or try another mirror", SILENCE.as_secs())]
    Silent {
        /// The address.
        url: String,
    },
    /// The server answered with something other than the file.
    #[error("{url} answered `{status}`; check the name of the mirror and of the suite")]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// One redirect led to the next.
    #[error("{url} redirects more than {MAX_REDIRECTS} times; try another mirror")]
    Redirects {
        /// The address.
        url: String,
    },
    /// More bytes than the limit or than were announced.
    #[error("{url} is larger than the {limit} bytes that were expected; it was not kept")]
    TooLarge {
        /// The address.
        url: String,
        /// The most that was accepted.
        limit: u64,
    },
    /// Fewer bytes than were announced.
    #[error("{url} ended after {got} of {expected} bytes; try again or try another mirror")]
    Short {
        /// The address.
        url: String,
        /// How many bytes came.
        got: u64,
        /// How many should have come.
        expected: u64,
    },
    /// The bytes are not those that were asked for.
    #[error(
        "{url} has the hash {got}, but {expected} was expected; the mirror is broken or being changed, try again later or try another one"
    )]
    Hash {
        /// The address.
        url: String,
        /// The hash of what came.
        got: Digest,
        /// The hash that was asked for.
        expected: Digest,
    },
    /// No space is left for the file.
    #[error("no space is left on the disk for {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl FetchError {
    fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match is_full(&source) {
            true => Self::DiskFull { path: path.to_owned() },
            false => Self::Write { path: path.to_owned(), source },
        }
    }

    /// Whether the same request may well succeed a moment later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Body { .. } | Self::Silent { .. } | Self::Short { .. } => {
                true
            }
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            _ => false,
        }
    }
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::progress::Silent;

    /// Serves one canned answer per connection, the last one for ever, and counts the connections.
    async fn serve(answers: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let at = counter.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answers[at].as_bytes()).await;
            }
        });
        (base, count)
    }

    async fn get(url: &str, limit: u64, sha256: Option<Digest>) -> (Result<Digest, String>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file");
        let mut fetcher = Fetcher::new(&Silent);
        fetcher.first_pause = Duration::from_millis(1);
        let what = Download { url, path: &path, name: "file", limit, size: None, sha256 };
        let result = fetcher.download(what).await.map_err(|error| error.to_string());
        let left = std::fs::read_dir(dir.path().join("sub")).map_or(0, Iterator::count);
        assert_eq!(left, usize::from(path.exists()), "a temporary file was left");
        (result, path.exists())
    }

    const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

    #[tokio::test]
    async fn a_file_arrives_and_is_hashed() {
        let (base, _) = serve(&[HELLO]).await;
        let (digest, exists) = get(&format!("{base}/x"), 5, None).await;
        assert_eq!(digest.unwrap().short(), "2cf24dba5fb0");
        assert!(exists);
    }

    #[tokio::test]
    async fn redirects_are_followed_and_limited() {
        let (base, _) = serve(&[
            "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            HELLO,
        ])
        .await;
        assert!(get(&format!("{base}/x"), 5, None).await.1);
        let (base, count) = serve(&[
            "HTTP/1.1 302 Found\r\nlocation: again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ])
        .await;
        let (result, _) = get(&format!("{base}/x"), 5, None).await;
        assert!(result.unwrap_err().contains("redirects more than 5 times"));
        assert_eq!(count.load(Ordering::SeqCst), 6);
    }

    #[tokio::test]
    async fn a_server_that_stumbles_is_asked_three_times() {
        const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let (base, count) = serve(&[BUSY, BUSY, HELLO]).await;
        assert!(get(&format!("{base}/x"), 5, None).await.1);
        assert_eq!(count.load(Ordering::SeqCst), 3);
        let (base, count) =
            serve(&["HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]).await;
        let (result, _) = get(&format!("{base}/x"), 5, None).await;
        assert!(result.unwrap_err().contains("answered `404 Not Found`"));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_wrong_is_not_kept() {
        let (base, _) = serve(&[HELLO]).await;
        let url = format!("{base}/x");
        let (result, exists) = get(&url, 4, None).await;
        assert_eq!(
            result.unwrap_err(),
            format!("{url} is larger than the 4 bytes that were expected; it was not kept")
        );
        assert!(!exists);
        let (result, exists) = get(&url, 5, Some(Digest::from_bytes([0; 32]))).await;
        assert!(result.unwrap_err().contains("has the hash sha256:2cf24"));
        assert!(!exists);
        // Without a length, the limit counts while the bytes come.
        let (base, _) = serve(&["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"]).await;
        let (result, _) = get(&format!("{base}/x"), 4, None).await;
        assert!(result.unwrap_err().contains("larger"));
        let (base, _) =
            serve(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhello"])
                .await;
        let (result, exists) = get(&format!("{base}/x"), 99, None).await;
        assert!(result.unwrap_err().contains("broke off"));
        assert!(!exists);
    }

    #[tokio::test]
    async fn addresses_that_cannot_work_are_refused_without_their_secrets() {
        for (url, text) in [
            ("ftp://a/b", "does not begin with http"),
            ("http://a b/", "malformed"),
            ("http://me:secret@mirror/x", "not supported"),
        ] {
            let (result, _) = get(url, 1, None).await;
            let error = result.unwrap_err();
            assert!(error.contains(text) && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_named() {
        // Every write to this device fails with ENOSPC.
        let error = std::fs::write("/dev/full", "x").unwrap_err();
        let error = FetchError::write(Path::new("/cache/x"))(error);
        assert_eq!(
            error.to_string(),
            "no space is left on the disk for /cache/x; free some or choose another directory"
        );
    }
}
