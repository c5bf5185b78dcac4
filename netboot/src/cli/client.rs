//! Talks to a running server: HTTP over its unix socket, or encrypted over TCP.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, IF_MATCH, LINK};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kiln_inventory::Machine;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::remote::Remote;
use super::sse::{Parser, Sent};
use super::{ClientArgs, Failure};
use crate::api::{GroupRow, Preview, Problem};
use crate::settings::DEFAULT_SOCKET;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a change is made anew where others change the same thing.
const MOST_TRIES: u32 = 100;
/// A server that follows events says something more often than this.
const SILENCE: Duration = Duration::from_secs(45);

/// A server on this computer, or elsewhere.
#[derive(Debug)]
pub(super) enum Client {
    Here(PathBuf),
    There(Remote),
}

impl Client {
    pub(super) fn new(args: &ClientArgs) -> Self {
        match &args.server {
            None => Self::Here(args.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into())),
            Some(url) => {
                Self::There(Remote::new(url, args.token_file.as_deref(), args.ca.as_deref()))
            }
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Here(socket) => socket.display().to_string(),
            Self::There(remote) => remote.url().to_owned(),
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(serde_json::from_slice(&self.send(Method::GET, path, Vec::new()).await?)?)
    }

    /// Gets a text; also that by which a server says that it is not ready.
    pub(super) async fn text(&self, path: &str) -> Result<String, Failure> {
        let exchange = async {
            let (response, _connection) = self.ask(Method::GET, path, Vec::new(), None).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            match status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE {
                true => Ok(String::from_utf8_lossy(&body).into_owned()),
                false => Err(refused(status, &body)),
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.map_err(|_| anyhow!("the server at {} takes too long to answer", self.place()))?
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        Ok(serde_json::from_slice(&self.send(Method::POST, path, body).await?)?)
    }

    /// Gets a list to its end, however many answers it takes.
    pub(super) async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        self.first(path, usize::MAX).await
    }

    /// Gets so many of the first of a list, however many answers it takes.
    pub(super) async fn first<T: DeserializeOwned>(
        &self,
        path: &str,
        most: usize,
    ) -> Result<Vec<T>, Failure> {
        let (mut first, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = next.take().filter(|_| first.len() < most) {
            let (headers, answer) = self.send_if(Method::GET, &path, Vec::new(), None).await?;
            first.extend(serde_json::from_slice::<Vec<T>>(&answer)?);
            next = headers.get(LINK).and_then(next_page);
        }
        first.truncate(most);
        Ok(first)
    }

    /// Changes something from what it is now, and anew where somebody else has changed it meanwhile. Without a body it is
    /// what it is to be.
    pub(super) async fn change<T: DeserializeOwned + Numbered>(
        &self,
        path: &str,
        made: impl Fn(&T) -> Result<Option<Vec<u8>>, Failure>,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            let now: T = self.get(path).await?;
            let Some(body) = made(&now)? else { return Ok(now) };
            let put = self.send_if(Method::PUT, path, body, Some(now.revision())).await;
            let was_changed = |failure: &Failure| {
                let status = failure.refusal().map(|refusal| refusal.0.status);
                status == Some(StatusCode::PRECONDITION_FAILED.as_u16())
            };
            match put {
                Err(failure) if was_changed(&failure) && tries < MOST_TRIES => tries += 1,
                answer => return Ok(serde_json::from_slice(&answer?.1)?),
            }
        }
    }

    /// Puts something whose answer is empty.
    pub(super) async fn put_only(&self, path: &str, body: Vec<u8>) -> Result<(), Failure> {
        self.send(Method::PUT, path, body).await.map(drop)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, Vec::new()).await.map(drop)
    }

    /// Asks what a change would do, without doing it.
    pub(super) async fn preview(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Preview, Failure> {
        let answer = self.send(method, &format!("{path}?dry_run=true"), body).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        Ok(self.send_if(method, path, body, None).await?.1)
    }

    /// Sends a request, which counts only where what it is about still has a revision.
    pub(super) async fn send_if(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        revision: Option<i64>,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let exchange = async {
            let (response, _connection) = self.ask(method, path, body, revision).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            match parts.status.is_success() {
                true => Ok((parts.headers, body)),
                false => Err(refused(parts.status, &body)),
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.map_err(|_| anyhow!("the server at {} takes too long to answer", self.place()))?
    }

    /// Sends a request. The connection ends with the second thing.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        revision: Option<i64>,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(revision) = revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        match self {
            Self::Here(socket) => {
                let stream = open(socket).await?;
                let request = request.header("host", "kiln").body(Full::new(Bytes::from(body)))?;
                converse(stream, request).await
            }
            Self::There(remote) => {
                let mut request = request.header("host", remote.host()?);
                if let Some(token) = remote.token()? {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                let request = request.body(Full::new(Bytes::from(body)))?;
                converse(remote.connect().await?, request).await
            }
        }
    }

    /// Begins to follow what happens; what is after `?` says since when and of what.
    pub(super) async fn events(&self, query: &str) -> Result<Events, Failure> {
        let path = format!("/api/v1/events?{query}");
        let asked =
            tokio::time::timeout(TIMEOUT, self.ask(Method::GET, &path, Vec::new(), None)).await;
        let (response, connection) = asked
            .map_err(|_| anyhow!("the server at {} takes too long to answer", self.place()))??;
        let status = response.status();
        let mut body = response.into_body();
        if status.is_success() {
            let (parser, waiting) = (Parser::default(), VecDeque::new());
            return Ok(Events { body, parser, waiting, _connection: connection });
        }
        let text = Limited::new(&mut body, MAX_ANSWER).collect().await;
        let text = text.map_err(|error| anyhow!(error))?.to_bytes();
        Err(refused(status, &text))
    }
}

/// What happens, as the server sends it.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
    waiting: VecDeque<Sent>,
    _connection: Connection,
}

impl Events {
    /// Waits for the next event. Nothing comes after the server has ended the stream.
    ///
    /// # Cancel safety
    ///
    /// What has come stays for the next call.
    pub(super) async fn next(&mut self) -> Result<Option<Sent>, Failure> {
        loop {
            if let Some(sent) = self.waiting.pop_front() {
                return Ok(Some(sent));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| anyhow!("nothing comes from the server any more"))?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.waiting.extend(self.parser.take(&data)?);
            }
        }
    }
}

/// A connection, as long as somebody needs it.
#[derive(Debug)]
struct Connection(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open(socket: &Path) -> Result<UnixStream, Failure> {
    Ok(UnixStream::connect(socket).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "run as root or join its group",
            _ => "start one with `kiln serve`, or name its socket with --socket",
        };
        let socket = socket.display();
        anyhow::Error::new(error).context(format!("no server at {socket}; {hint}"))
    })?)
}

/// Sends a request and waits for the answer to begin.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection), Failure> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = Connection(tokio::spawn(connection));
    Ok((sender.send_request(request).await?, connection))
}

/// Returns why the server refused.
/// What has another revision after each change.
pub(super) trait Numbered {
    fn revision(&self) -> i64;
}

impl Numbered for Machine {
    fn revision(&self) -> i64 {
        self.revision
    }
}

impl Numbered for GroupRow {
    fn revision(&self) -> i64 {
        self.revision
    }
}

/// Returns where a list goes on (RFC 8288).
fn next_page(link: &HeaderValue) -> Option<String> {
    let (path, rest) = link.to_str().ok()?.strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then(|| path.to_owned())
}

fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let code = match status {
        StatusCode::NOT_FOUND => Failure::NOT_FOUND,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Failure::CONFLICT,
        StatusCode::BAD_REQUEST => Failure::USAGE,
        _ => 1,
    };
    match serde_json::from_slice(body) {
        Ok(problem) => Failure::new(code, Refusal(problem)),
        Err(_) => Failure::new(code, anyhow!("the server answers {status}")),
    }
}

/// What the server says why it does not do something.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub(super) struct Refusal(pub(super) Problem);

/// Returns what a problem says.
fn told(Problem { detail, pointer, .. }: &Problem) -> String {
    match pointer {
        Some(pointer) => format!("{detail} (at {pointer})"),
        None => detail.clone(),
    }
}

/// Writes a text so that it is one part of a path.
pub(super) fn path_part(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
