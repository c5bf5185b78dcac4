//! Downloads over HTTP and HTTPS into files: hashed on the way, whole or not there at all.

mod apt_conf;
mod client;
mod error;
mod partial;
mod proxy;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED, LOCATION};
use hyper::{Response, StatusCode, Uri};
use kiln_types::Digest;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub(crate) use self::apt_conf::AptSettings;
use self::client::Clients;
pub use self::error::FetchError;
use self::partial::Partial;
use crate::durable::{folder_of, sync_folder};
use crate::progress::Progress;

const TRIES: u32 = 3;
/// How many downloads run at a time; the others wait for their turn.
const PARALLEL: usize = 8;
const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent: before its answer and between two pieces of it.
const SILENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A download client. Connections are kept and reused.
pub struct Fetcher<'p> {
    clients: Clients,
    turns: Semaphore,
    /// Directories where what earlier runs left has been looked for.
    clean: Mutex<BTreeSet<PathBuf>>,
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

/// What a server said of a file, to ask later whether it has changed (RFC 9110 §8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its `ETag`, as written.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as written.
    pub last_modified: Option<String>,
}

/// What became of a file that had been fetched before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It is as it was; nothing was written.
    Unchanged,
    /// It was fetched, and this is what the server says of it now.
    New(Validators),
}

/// What came of one try.
enum Attempt {
    Unchanged,
    Whole(Digest, Validators),
}

impl Validators {
    fn of(response: &Response<Incoming>) -> Self {
        let header = |name| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        Self { etag: header(ETAG), last_modified: header(LAST_MODIFIED) }
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
        Self {
            clients: Clients::default(),
            turns: Semaphore::new(PARALLEL),
            clean: Mutex::default(),
            progress,
            first_pause: FIRST_PAUSE,
        }
    }

    /// Returns where the downloads are shown.
    pub fn progress(&self) -> &'p dyn Progress {
        self.progress
    }

    /// Downloads one file, trying three times when the network or the server is at fault, and returns its hash. Where
    /// the hash is known, what has come is kept for the next try, also that of a later run; it goes when it is a day
    /// old.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be had, is not what was asked for, or cannot be written. Then there is no file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no file.
    pub async fn download(&self, what: Download<'_>) -> Result<Digest, FetchError> {
        match self.run(what, &Validators::default()).await? {
            Attempt::Whole(digest, _) => Ok(digest),
            // It was not asked whether the file has changed.
            Attempt::Unchanged => Err(FetchError::Status {
                url: what.url.to_owned(),
                status: StatusCode::NOT_MODIFIED,
            }),
        }
    }

    /// Downloads one file again if the server has another one than that of which it said `known`. All else is as
    /// with [`download`](Self::download).
    ///
    /// # Errors
    ///
    /// As [`download`](Self::download).
    pub async fn refresh(
        &self,
        what: Download<'_>,
        known: &Validators,
    ) -> Result<Refreshed, FetchError> {
        Ok(match self.run(what, known).await? {
            Attempt::Unchanged => Refreshed::Unchanged,
            Attempt::Whole(_, validators) => Refreshed::New(validators),
        })
    }

    async fn run(&self, what: Download<'_>, known: &Validators) -> Result<Attempt, FetchError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let failed = FetchError::write(what.path);
        let dir = folder_of(what.path);
        let new = {
            let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
            clean.insert(dir.to_owned())
        };
        if new {
            partial::clean_up(dir);
        }
        // Only a hash tells whether two parts belong together.
        let keep = what.sha256.is_some();
        let mut partial = Partial::open(what.path, keep).map_err(failed)?;
        let mut pause = self.first_pause;
        for left in (0..TRIES).rev() {
            let resumed = partial.got > 0;
            match self.attempt(what, &mut partial, known).await {
                Ok(Attempt::Unchanged) => {
                    partial.discard();
                    return Ok(Attempt::Unchanged);
                }
                Ok(whole) => {
                    partial.finish(what.path)?;
                    return Ok(whole);
                }
                Err(error) => {
                    // A part of another file had been kept.
                    let mixed = resumed && error.is_about_content();
                    if left == 0 || !(mixed || error.is_transient()) {
                        if partial.got == 0 || !error.is_transient() {
                            partial.discard();
                        }
                        return Err(error);
                    }
                    tracing::debug!(url = what.url, %error, "download failed, trying again");
                    if mixed || !keep {
                        partial.restart().map_err(FetchError::write(what.path))?;
                    }
                }
            }
            sleep(pause).await;
            pause *= 4;
        }
        Err(FetchError::Silent { url: what.url.to_owned() })
    }

    async fn attempt(
        &self,
        what: Download<'_>,
        partial: &mut Partial,
        known: &Validators,
    ) -> Result<Attempt, FetchError> {
        let url = || what.url.to_owned();
        let failed = FetchError::write(what.path);
        let limit = what.size.unwrap_or(what.limit).min(what.limit);
        let mut task = self.progress.begin(what.name, what.size);
        let mut validators = Validators::default();
        if partial.got == 0 || what.size != Some(partial.got) {
            let response = self.open(what.url, partial.got, known).await?;
            if response.status() == StatusCode::NOT_MODIFIED {
                task.finish();
                return Ok(Attempt::Unchanged);
            }
            validators = Validators::of(&response);
            if response.status() != StatusCode::PARTIAL_CONTENT && partial.got > 0 {
                partial.restart().map_err(&failed)?;
            }
            let announced = hyper::body::Body::size_hint(response.body()).exact();
            let announced = announced.map(|bytes| bytes.saturating_add(partial.got));
            if announced.is_some_and(|bytes| bytes > limit) {
                return Err(FetchError::TooLarge { url: url(), limit });
            }
            task.advance(partial.got);
            let mut file = tokio::fs::File::from_std(partial.writer().map_err(&failed)?);
            let received = async {
                let mut body = response.into_body();
                while let Some(frame) = timeout(SILENCE, body.frame())
                    .await
                    .map_err(|_| FetchError::Silent { url: url() })?
                {
                    let frame = frame.map_err(|source| FetchError::Body { url: url(), source })?;
                    let Ok(data) = frame.into_data() else { continue };
                    if partial.got + data.len() as u64 > limit {
                        return Err(FetchError::TooLarge { url: url(), limit });
                    }
                    file.write_all(&data).await.map_err(&failed)?;
                    partial.add(&data);
                    task.advance(data.len() as u64);
                }
                Ok(())
            }
            .await;
            // Also after a failure: what is counted has to be there when the next try goes on.
            file.flush().await.map_err(&failed)?;
            received?;
            let got = partial.got;
            if let Some(expected) = what.size.or(announced).filter(|expected| got < *expected) {
                return Err(FetchError::Short { url: url(), got, expected });
            }
            file.sync_all().await.map_err(&failed)?;
        }
        let digest = partial.digest();
        if let Some(expected) = what.sha256.filter(|expected| *expected != digest) {
            return Err(FetchError::Hash { url: url(), got: digest, expected });
        }
        task.finish();
        Ok(Attempt::Whole(digest, validators))
    }

    /// Sends the request and follows redirects. `from` is how many bytes are there already.
    async fn open(
        &self,
        url: &str,
        from: u64,
        known: &Validators,
    ) -> Result<Response<Incoming>, FetchError> {
        let mut at = checked(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.clients.request(&at, from, known).await?;
            let status = response.status();
            let target = response.headers().get(LOCATION).filter(|_| status.is_redirection());
            let Some(target) = target else {
                return match status {
                    StatusCode::OK => Ok(response),
                    StatusCode::NOT_MODIFIED if *known != Validators::default() => Ok(response),
                    StatusCode::PARTIAL_CONTENT if goes_on(&response, from) => Ok(response),
                    // The file has become shorter: from the beginning.
                    StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                        self.clients.request(&at, 0, known).await.and_then(|response| {
                            let status = response.status();
                            match status {
                                StatusCode::OK => Ok(response),
                                _ => Err(FetchError::Status { url: at.to_string(), status }),
                            }
                        })
                    }
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
}

/// Returns whether a partial answer begins where ours ends (RFC 9110 §14.4).
fn goes_on(response: &Response<Incoming>, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|it| it.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(from) && from > 0
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
    sync_folder(folder_of(path)).map_err(failed)
}

#[cfg(test)]
mod tests;
