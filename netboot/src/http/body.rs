//! Bodies of answers: a few bytes in memory, or a part of a file that is read, or sent by the kernel, piece by piece.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::disk;
use super::transfers::Pace;
use super::wire::{self, Pieces};
use crate::observe::{COUNTS, Route};
use crate::pieces::Pieces as Planned;

/// How much of a file is read at a time where it has to be encrypted. Each transfer holds this much memory.
const READ: usize = 64 << 10;

/// How much of a body was handed to the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) total: u64,
}

/// Called once, when a body was handed to the connection to its end, or broke off.
pub(super) type Done = Box<dyn FnOnce(Sent) + Send + Sync>;

/// The body of an answer. Its length is always known.
pub(super) struct Body {
    source: Source,
    left: u64,
    total: u64,
    done: Option<Done>,
    /// What holds a file back, and the place among the transfers, which is given back with the body.
    pace: Option<Pace>,
    /// The next part, when it has to wait for its turn.
    held: Option<(Pin<Box<Sleep>>, Bytes)>,
    /// Where what is sent is counted.
    route: Option<Route>,
}

enum Source {
    Memory(Bytes),
    File(FilePart),
    Planned(Planned),
}

/// What is left of a file.
struct FilePart {
    file: Arc<File>,
    offset: u64,
    /// Where a connection takes files themselves.
    pieces: Option<Pieces>,
    /// A read that waits for the disk.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let left = bytes.len() as u64;
        let source = Source::Memory(bytes);
        Self { source, left, total: left, done: None, pace: None, held: None, route: None }
    }

    /// Sends `len` bytes of a file, by the kernel alone where the connection can.
    pub(super) fn file(file: File, offset: u64, len: u64, pieces: Option<Pieces>) -> Self {
        let file = Arc::new(file);
        let source = Source::File(FilePart { file, offset, pieces, reading: None });
        Self { source, left: len, total: len, done: None, pace: None, held: None, route: None }
    }

    /// Sends a planned file of this length.
    pub(super) fn planned(file: Planned, len: u64) -> Self {
        let source = Source::Planned(file);
        Self { source, left: len, total: len, done: None, pace: None, held: None, route: None }
    }

    /// Counts what is sent under a route.
    pub(super) fn count(&mut self, route: Route) {
        self.route = Some(route);
        COUNTS.http_now.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn when_done(mut self, done: Done) -> Self {
        self.done = Some(done);
        self
    }

    pub(super) fn paced(mut self, pace: Pace) -> Self {
        self.pace = Some(pace);
        self
    }
}

impl FilePart {
    /// Returns the next part: its bytes, or what stands for them on a connection that takes files.
    fn poll_next(&mut self, context: &mut Context<'_>, most: u64) -> Poll<io::Result<Bytes>> {
        let limit = if self.pieces.is_some() { wire::BLANK_LEN } else { READ };
        let want = usize::try_from(most).unwrap_or(limit).min(limit);
        let chunk = if let Some(reading) = &mut self.reading {
            let chunk = ready!(Pin::new(reading).poll(context));
            self.reading = None;
            chunk.map_err(io::Error::other)??
        } else {
            let now = match &self.pieces {
                Some(_) => disk::is_in_memory(&self.file, self.offset, want)
                    .then(|| Bytes::from_static(&wire::blank()[..want])),
                None => {
                    let mut buffer = BytesMut::zeroed(want);
                    disk::read_now(&self.file, &mut buffer, self.offset)?.map(|read| {
                        buffer.truncate(read);
                        buffer.freeze()
                    })
                }
            };
            let Some(now) = now else {
                // The disk has to move: not on a thread that others wait for.
                let (file, offset, whole) =
                    (Arc::clone(&self.file), self.offset, self.pieces.is_none());
                self.reading = Some(tokio::task::spawn_blocking(move || {
                    let bytes = disk::read(&file, offset, want, whole)?;
                    Ok(if whole { bytes } else { Bytes::from_static(&wire::blank()[..want]) })
                }));
                return self.poll_next(context, most);
            };
            now
        };
        if chunk.is_empty() {
            // The length is promised already; breaking off is the only way to say that it was wrong.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(pieces) = &self.pieces {
            pieces.push(Arc::clone(&self.file), self.offset, chunk.len());
        }
        self.offset += chunk.len() as u64;
        Poll::Ready(Ok(chunk))
    }
}

/// Reads the next part of a planned file.
fn poll_planned(
    file: &mut Planned,
    context: &mut Context<'_>,
    most: u64,
) -> Poll<io::Result<Bytes>> {
    let want = usize::try_from(most).unwrap_or(READ).min(READ);
    let mut buffer = BytesMut::zeroed(want);
    let mut into = ReadBuf::new(&mut buffer);
    ready!(Pin::new(file).poll_read(context, &mut into))?;
    let filled = into.filled().len();
    if filled == 0 {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    buffer.truncate(filled);
    Poll::Ready(Ok(buffer.freeze()))
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some((sleep, _)) = &mut this.held {
            ready!(sleep.as_mut().poll(context));
        } else if this.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match this.held.take() {
            Some((_, chunk)) => chunk,
            None => {
                let chunk = match &mut this.source {
                    Source::Memory(bytes) => std::mem::take(bytes),
                    Source::Planned(file) => {
                        let step = this.pace.as_ref().map_or(u64::MAX, Pace::step);
                        match ready!(poll_planned(file, context, this.left.min(step))) {
                            Ok(chunk) => chunk,
                            Err(error) => return Poll::Ready(Some(Err(error))),
                        }
                    }
                    Source::File(part) => {
                        let step = this.pace.as_ref().map_or(u64::MAX, Pace::step);
                        match ready!(part.poll_next(context, this.left.min(step))) {
                            Ok(chunk) => chunk,
                            Err(error) => return Poll::Ready(Some(Err(error))),
                        }
                    }
                };
                this.left = this.left.saturating_sub(chunk.len() as u64);
                if let Some(delay) = this.pace.as_ref().and_then(|pace| pace.take(chunk.len())) {
                    let mut sleep = Box::pin(tokio::time::sleep(delay));
                    if sleep.as_mut().poll(context).is_pending() {
                        this.held = Some((sleep, chunk));
                        return Poll::Pending;
                    }
                }
                chunk
            }
        };
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().map_or(0, |(_, chunk)| chunk.len() as u64);
        SizeHint::with_exact(self.left + held)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let held = self.held.as_ref().map_or(0, |(_, chunk)| chunk.len() as u64);
        let bytes = self.total.saturating_sub(self.left).saturating_sub(held);
        if let Some(route) = self.route {
            COUNTS.sent(route, bytes);
            COUNTS.http_now.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(done) = self.done.take() {
            done(Sent { bytes, total: self.total });
        }
    }
}
