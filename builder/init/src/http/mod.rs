//! A small client of HTTP/1.1, for what kiln-init asks of its server.
//!
//! Each request has a connection of its own. An answer is either kept in memory, up to a bound that the caller sets,
//! or streamed into a writer, where its length has to be the expected one exactly. A server that is slow, silent, or
//! says too much costs its time limit and no more.

mod head;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use self::head::{Head, LARGEST_HEAD, end_of_head};
use crate::clock::uptime;

/// How much of an answer is read at a time.
const CHUNK: usize = 32 << 10;

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
}

impl<'a> Request<'a> {
    pub(crate) const fn get(path: &'a str) -> Self {
        Self { method: "GET", path, token: None, body: &[] }
    }

    pub(crate) const fn post(path: &'a str, token: &'a str, body: &'a [u8]) -> Self {
        Self { method: "POST", path, token: Some(token), body }
    }
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty where the answer went into a writer.
    pub(crate) body: Vec<u8>,
    date: Option<u64>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns what the clock of the server showed when it answered, in seconds since 1970.
    pub(crate) const fn date(&self) -> Option<u64> {
        self.date
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
}

/// Reads `http://ADDRESS:PORT`. There is no resolver this early, so the server is told by address.
pub(crate) fn address_of(server: &str) -> Option<SocketAddr> {
    let host = server.strip_prefix("http://")?.trim_end_matches('/');
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse().ok()?, 80)))
}

/// Asks, and keeps an answer of up to `most` bytes in memory.
pub(crate) fn ask(
    server: SocketAddr,
    request: &Request<'_>,
    limits: Limits,
    most: usize,
) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(server, limits)?;
    connection.send(server, request)?;
    let (head, begun) = connection.head()?;
    let most = most as u64;
    let length = body_length(&head)?;
    if length > most {
        return Err(HttpError::TooLarge(most));
    }
    let mut body = Vec::new();
    connection.body(length, &begun, &mut body)?;
    Ok(Answer { status: head.status, body, date: head.date })
}

/// Asks, and writes the answer into `into`. A success has to have exactly `length` bytes; of any other answer only
/// the status is read.
pub(crate) fn fetch(
    server: SocketAddr,
    request: &Request<'_>,
    limits: Limits,
    length: u64,
    into: &mut dyn Write,
) -> Result<Answer, HttpError> {
    let mut connection = Connection::open(server, limits)?;
    connection.send(server, request)?;
    let (head, begun) = connection.head()?;
    let answer = Answer { status: head.status, body: Vec::new(), date: head.date };
    if answer.status == 200 {
        let told = body_length(&head)?;
        if told != length {
            return Err(HttpError::Length { told, wanted: length });
        }
        connection.body(length, &begun, into)?;
    }
    Ok(answer)
}

fn body_length(head: &Head) -> Result<u64, HttpError> {
    // Servers of ours tell the length of everything they send.
    if head.chunked {
        return Err(HttpError::Head("it comes in chunks"));
    }
    head.length.ok_or(HttpError::Head("it does not tell its length"))
}

struct Connection {
    stream: TcpStream,
    silence: Duration,
    /// In time since the kernel started.
    deadline: Duration,
}

impl Connection {
    fn open(server: SocketAddr, limits: Limits) -> Result<Self, HttpError> {
        let deadline = uptime() + limits.total;
        let stream = TcpStream::connect_timeout(&server, limits.connect.min(limits.total))
            .map_err(HttpError::Connect)?;
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, silence: limits.silence, deadline })
    }

    /// Returns how long the next step may take.
    fn patience(&self) -> Result<Duration, HttpError> {
        let left = self.deadline.saturating_sub(uptime());
        if left.is_zero() { Err(HttpError::TooSlow) } else { Ok(left.min(self.silence)) }
    }

    fn send(&mut self, server: SocketAddr, request: &Request<'_>) -> Result<(), HttpError> {
        let bytes = written(server, request)?;
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let patience = self.patience()?;
            self.stream.set_write_timeout(Some(patience)).map_err(HttpError::Broken)?;
            match self.stream.write(left) {
                Ok(0) => return Err(HttpError::Short),
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) => waited(error)?,
            }
        }
        Ok(())
    }

    /// Returns how many bytes came; none at the end.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        loop {
            let patience = self.patience()?;
            self.stream.set_read_timeout(Some(patience)).map_err(HttpError::Broken)?;
            match self.stream.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => waited(error)?,
            }
        }
    }

    /// Returns the head, and what came of the body together with it.
    fn head(&mut self) -> Result<(Head, Vec<u8>), HttpError> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let count = self.receive(&mut buffer)?;
            if count == 0 {
                return Err(HttpError::Short);
            }
            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if let Some(end) = end_of_head(&bytes) {
                let body = bytes.split_off(end);
                return Ok((head::parse(&bytes)?, body));
            }
            if bytes.len() > LARGEST_HEAD {
                return Err(HttpError::Head("its headers are too long"));
            }
        }
    }

    /// Moves exactly `length` bytes of the body, the first of which are here already.
    fn body(&mut self, length: u64, begun: &[u8], into: &mut dyn Write) -> Result<(), HttpError> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let first = begun.get(..wanted.min(begun.len())).unwrap_or_default();
        into.write_all(first).map_err(HttpError::Keep)?;
        let mut left = length.saturating_sub(first.len() as u64);
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let count = self.receive(buffer.get_mut(..most).unwrap_or_default())?;
            if count == 0 {
                return Err(HttpError::Short);
            }
            into.write_all(buffer.get(..count).unwrap_or_default()).map_err(HttpError::Keep)?;
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }
}

/// Takes an interruption as nothing, and says which error it was else.
fn waited(error: io::Error) -> Result<(), HttpError> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(HttpError::TooSlow),
        _ => Err(HttpError::Broken(error)),
    }
}

/// Writes a request. What could end a line and begin another one is refused.
fn written(server: SocketAddr, request: &Request<'_>) -> Result<Vec<u8>, HttpError> {
    let Request { method, path, token, body } = request;
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
