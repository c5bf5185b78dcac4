//! One connection to the server, encrypted or not, with an end to all patience.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::{ClientConnection, Stream};

use super::head::{self, Head, LARGEST_HEAD, end_of_head};
use super::{HttpError, Limits, Server};
use crate::clock::uptime;
use crate::console::say;
use crate::tls;

/// How much of an answer is read at a time.
const CHUNK: usize = 32 << 10;

pub(super) struct Connection {
    stream: Timed,
    /// Large, and not there without encryption.
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    pub(super) fn open(server: &Server, limits: Limits) -> Result<Self, HttpError> {
        let deadline = uptime() + limits.total;
        let tls = server.trust().map(|trust| trust.connection(server.address())).transpose();
        let tls = tls.map_err(|error| HttpError::Untrusted(tls::refusal(&error)))?;
        let patience = limits.connect.min(limits.total);
        let stream =
            TcpStream::connect_timeout(&server.address(), patience).map_err(HttpError::Connect)?;
        let _ = stream.set_nodelay(true);
        let stream = Timed { stream, silence: limits.silence, deadline };
        let mut connection = Self { stream, tls: tls.map(Box::new) };
        let agreed = connection.agree();
        if let Err(HttpError::Untrusted(why)) = agreed {
            tell_once(server, why);
        }
        agreed.map(|()| connection)
    }

    /// Agrees on encryption. Nothing else is sent before the server has shown who it is.
    fn agree(&mut self) -> Result<(), HttpError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.is_handshaking() {
            match tls.complete_io(&mut self.stream) {
                Ok(_) => {}
                Err(error) => waited(error)?,
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let mut left = bytes;
        while !left.is_empty() {
            let written = match &mut self.tls {
                Some(tls) => Stream::new(tls.as_mut(), &mut self.stream).write(left),
                None => self.stream.write(left),
            };
            match written {
                Ok(0) => return Err(HttpError::Short),
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) => waited(error)?,
            }
        }
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) => waited(error)?,
            }
        }
        Ok(())
    }

    /// Returns how many bytes came; none at the end.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        loop {
            let read = match &mut self.tls {
                Some(tls) => Stream::new(tls.as_mut(), &mut self.stream).read(buffer),
                None => self.stream.read(buffer),
            };
            match read {
                Ok(count) => return Ok(count),
                Err(error) => waited(error)?,
            }
        }
    }

    /// Returns the head, and what came of the body together with it.
    pub(super) fn head(&mut self) -> Result<(Head, Vec<u8>), HttpError> {
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

    /// Moves exactly `length` bytes of the body, the first of which are here already, but for the first `skip`.
    pub(super) fn body(
        &mut self,
        skip: u64,
        length: u64,
        begun: &[u8],
        into: &mut dyn Write,
    ) -> Result<(), HttpError> {
        let mut into = Behind { skip, into };
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let first = begun.get(..wanted.min(begun.len())).unwrap_or_default();
        into.take(first)?;
        let mut left = length.saturating_sub(first.len() as u64);
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let count = self.receive(buffer.get_mut(..most).unwrap_or_default())?;
            if count == 0 {
                return Err(HttpError::Short);
            }
            into.take(buffer.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }
}

/// Leaves out the first bytes.
struct Behind<'a> {
    skip: u64,
    into: &'a mut dyn Write,
}

impl Behind<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        let rest = bytes.get(skipped..).unwrap_or_default();
        self.into.write_all(rest).map_err(HttpError::Keep)
    }
}

/// A connection on which nothing takes longer than there is time.
struct Timed {
    stream: TcpStream,
    silence: Duration,
    /// In time since the kernel started.
    deadline: Duration,
}

impl Timed {
    /// Returns how long the next step may take.
    fn patience(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_sub(uptime());
        if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(left.min(self.silence))
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.patience()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.patience()?))?;
        self.stream.write(bytes)
    }

    /// All that is to be said goes at once: why a server is refused is the last of several pieces.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.patience()?))?;
        self.stream.write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes an interruption as nothing, and says which error it was else.
fn waited(error: io::Error) -> Result<(), HttpError> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return Err(HttpError::Untrusted(tls::refusal(tls)));
    }
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(HttpError::TooSlow),
        io::ErrorKind::UnexpectedEof => Err(HttpError::Short),
        _ => Err(HttpError::Broken(error)),
    }
}

/// Says on the console that a server is refused: once, because it is asked again and again.
fn tell_once(server: &Server, why: &str) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        let address = server.address();
        say(&format!("the server {address} is not talked to and gets nothing: {why}"));
    }
}
