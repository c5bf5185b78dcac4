//! A small client of HTTP/1.1, for what kiln-init asks of its server.
//!
//! Each request has a connection of its own. An answer is either kept in memory, up to a bound that the caller sets,
//! or streamed into a writer, where its length has to be the expected one exactly. A server that is slow, silent, or
//! says too much costs its time limit and no more.

mod backoff;
mod connection;
mod head;
mod server;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use self::backoff::Backoff;
use self::connection::Connection;
use self::head::Head;
pub(crate) use self::server::Server;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Until the server has taken the connection.
    pub(crate) connect: Duration,
    /// Without a byte in either direction.
    pub(crate) silence: Duration,
    /// From beginning to end.
    pub(crate) total: Duration,
}

impl Limits {
    /// For a question with a short answer.
    pub(crate) const SHORT: Self = Self {
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        total: Duration::from_secs(15),
    };
}

/// What a server is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Begins with `/`; a query may be behind it.
    pub(crate) path: &'a str,
    /// What the machine proves itself with.
    pub(crate) token: Option<&'a str>,
    /// JSON; there is none in most requests.
    pub(crate) body: &'a [u8],
    /// The first byte that is wanted; what is before it is here already.
    pub(crate) from: u64,
}

impl<'a> Request<'a> {
    pub(crate) const fn get(path: &'a str) -> Self {
        Self { method: "GET", path, token: None, body: &[], from: 0 }
    }

    pub(crate) const fn post(path: &'a str, token: &'a str, body: &'a [u8]) -> Self {
        Self { method: "POST", path, token: Some(token), body, from: 0 }
    }
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty where the answer went into a writer.
    pub(crate) body: Vec<u8>,
    date: Option<u64>,
    retry_after: Option<u64>,
}

impl Answer {
    fn new(head: &Head, body: Vec<u8>) -> Self {
        Self { status: head.status, body, date: head.date, retry_after: head.retry_after }
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns what the clock of the server showed when it answered, in seconds since 1970.
    pub(crate) const fn date(&self) -> Option<u64> {
        self.date
    }

    /// Returns in how many seconds the server wants to be asked again.
    pub(crate) const fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the request cannot be written as HTTP")]
    Request,
    #[error("the server does not take the connection")]
    Connect(#[source] io::Error),
    #[error("the connection to the server broke")]
    Broken(#[source] io::Error),
    #[error("the server took too long")]
    TooSlow,
    #[error("the server's answer cannot be understood: {0}")]
    Head(&'static str),
    #[error("the server's answer is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the server sends {told} bytes where {wanted} are wanted")]
    Length { told: u64, wanted: u64 },
    #[error("the server closed the connection before its answer was complete")]
    Short,
    #[error("what the server sends cannot be kept")]
    Keep(#[source] io::Error),
    #[error("this server is not talked to: {0}")]
    Untrusted(&'static str),
    #[error("the server sends another part than is wanted")]
    Part,
}

impl HttpError {
    /// Says whether it may go better the next time.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Broken(_) | Self::TooSlow | Self::Short)
    }
}

/// Asks, and keeps an answer of up to `most` bytes in memory.
pub(crate) fn ask(
    server: &Server,
    request: &Request<'_>,
    limits: Limits,
    most: usize,
) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(server, limits)?;
    connection.send(&written(server.address(), request)?)?;
    let (head, begun) = connection.head()?;
    let most = most as u64;
    let length = body_length(&head)?;
    if length > most {
        return Err(HttpError::TooLarge(most));
    }
    let mut body = Vec::new();
    connection.body(0, length, &begun, &mut body)?;
    Ok(Answer::new(&head, body))
}

/// Asks, and writes the answer into `into`. A success has to have exactly `length` bytes, and what the request says that
/// is here already is left out of them; of any other answer only the status is read.
pub(crate) fn fetch(
    server: &Server,
    request: &Request<'_>,
    limits: Limits,
    length: u64,
    into: &mut dyn Write,
) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(server, limits)?;
    connection.send(&written(server.address(), request)?)?;
    let (head, begun) = connection.head()?;
    let (skip, wanted) = match head.status {
        // A server may send the whole all the same.
        200 => (request.from, length),
        206 if head.part != Some((request.from, length)) => return Err(HttpError::Part),
        206 => (0, length.saturating_sub(request.from)),
        _ => return Ok(Answer::new(&head, Vec::new())),
    };
    let told = body_length(&head)?;
    if told != wanted {
        return Err(HttpError::Length { told, wanted });
    }
    connection.body(skip, told, &begun, into)?;
    Ok(Answer::new(&head, Vec::new()))
}

fn body_length(head: &Head) -> Result<u64, HttpError> {
    // Servers of ours tell the length of everything they send.
    if head.chunked {
        return Err(HttpError::Head("it comes in chunks"));
    }
    head.length.ok_or(HttpError::Head("it does not tell its length"))
}

/// Writes a request. What could end a line and begin another one is refused.
fn written(server: SocketAddr, request: &Request<'_>) -> Result<Vec<u8>, HttpError> {
    let Request { method, path, token, body, from } = request;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !plain(path) || !plain(token.unwrap_or_default()) {
        return Err(HttpError::Request);
    }
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    if let Some(token) = token {
        text.push_str("Authorization: Bearer ");
        text.push_str(token);
        // With it the server puts what this machine reports on its own clock.
        text.push_str("\r\nKiln-Uptime: ");
        text.push_str(&crate::clock::uptime_millis().to_string());
        text.push_str("\r\n");
    }
    if *from > 0 {
        text.push_str("Range: bytes=");
        text.push_str(&from.to_string());
        text.push_str("-\r\n");
    }
    if !body.is_empty() || *method != "GET" {
        text.push_str("Content-Type: application/json\r\nContent-Length: ");
        text.push_str(&body.len().to_string());
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
