//! Talks to a running server: HTTP over its unix socket, or encrypted over TCP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::remote::Remote;
use super::{ClientArgs, Failure};
use crate::api::Problem;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server on this computer, or elsewhere.
#[derive(Debug)]
pub(super) enum Client {
    Here(PathBuf),
    There(Remote),
}

impl Client {
    pub(super) fn new(args: &ClientArgs) -> Self {
        match &args.server {
            None => Self::Here(args.socket.clone()),
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

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        Ok(serde_json::from_slice(&self.send(Method::POST, path, body).await?)?)
    }

    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        Ok(serde_json::from_slice(&self.send(Method::PUT, path, body).await?)?)
    }

    /// Puts something whose answer is empty.
    pub(super) async fn put_only(&self, path: &str, body: Vec<u8>) -> Result<(), Failure> {
        self.send(Method::PUT, path, body).await.map(drop)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, Vec::new()).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let exchange = self.exchange(method, path, body);
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.map_err(|_| anyhow!("the server at {} takes too long to answer", self.place()))?
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
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

/// Sends a request and reads the answer.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Bytes, Failure> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow!(error))?.to_bytes();
    connection.abort();
    if status.is_success() {
        return Ok(body);
    }
    let code = match status {
        StatusCode::NOT_FOUND => Failure::NOT_FOUND,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Failure::CONFLICT,
        StatusCode::BAD_REQUEST => Failure::USAGE,
        _ => 1,
    };
    let text = told(&body).unwrap_or_else(|| format!("the server answers {status}"));
    Err(Failure::new(code, anyhow!(text)))
}

/// Returns what a problem says.
fn told(body: &[u8]) -> Option<String> {
    let Problem { detail, pointer, .. } = serde_json::from_slice(body).ok()?;
    Some(match pointer {
        Some(pointer) => format!("{detail} (at {pointer})"),
        None => detail,
    })
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
