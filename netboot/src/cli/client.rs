//! Talks to the running server: HTTP over its unix socket.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ClientArgs, Failure};
use crate::api::Problem;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server on this computer.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(args: &ClientArgs) -> Self {
        Self { socket: args.socket.clone() }
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

    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, Vec::new()).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let exchange = self.exchange(method, path, body);
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.map_err(|_| {
            anyhow!("the server at {} takes too long to answer", self.socket.display())
        })?
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "run as root or join its group",
                _ => "start one with `kiln serve`, or name its socket with --socket",
            };
            let socket = self.socket.display();
            anyhow::Error::new(error).context(format!("no server at {socket}; {hint}"))
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kiln")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
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
