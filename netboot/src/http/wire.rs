//! A connection without encryption, which takes parts of files beside bytes: the kernel sends them (`sendfile(2)`), so
//! that no byte of an image passes through this process.
//!
//! hyper knows bodies of bytes alone. A body of ours hands it, for each part of a file, as many bytes of [`blank`], a
//! block of memory that nobody ever reads, and queues the part in [`Pieces`]. hyper counts these bytes, puts the head
//! in front of them and gives them to [`Wire`], which knows them by their address and sends the part in their place.
//! hyper must not copy bytes on the way for that, and does not where a connection says that it writes vectored.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite as _, Interest};
use tokio::net::TcpStream;

/// The longest part of a file that is handed over at a time.
pub(super) const BLANK_LEN: usize = 2 << 20;

/// Bytes that stand for parts of files. Nobody reads them, so that they never become real memory.
pub(super) fn blank() -> &'static [u8] {
    static BLANK: LazyLock<&'static [u8]> = LazyLock::new(|| vec![0; BLANK_LEN].leak());
    *BLANK
}

fn is_blank(bytes: &[u8]) -> bool {
    blank().as_ptr_range().contains(&bytes.as_ptr())
}

#[derive(Debug)]
struct Piece {
    file: Arc<File>,
    offset: u64,
    left: usize,
}

/// Parts of files that a connection is to send, in the order of their bodies.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces(Arc<Mutex<VecDeque<Piece>>>);

impl Pieces {
    pub(super) fn push(&self, file: Arc<File>, offset: u64, left: usize) {
        self.lock().push_back(Piece { file, offset, left });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TokioIo<TcpStream>,
    pieces: Pieces,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, pieces: Pieces) -> Self {
        Self { stream: TokioIo::new(stream), pieces }
    }

    /// Sends some of the part of a file that is next.
    fn poll_send(&self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let stream = self.stream.inner();
        let mut pieces = self.pieces.lock();
        let Some(piece) = pieces.front_mut() else {
            return Poll::Ready(Err(io::Error::other("a part of a file is not there")));
        };
        loop {
            ready!(stream.poll_write_ready(context))?;
            let want = most.min(piece.left);
            let sent = stream.try_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(stream, &piece.file, Some(&mut piece.offset), want)?)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(sent) => {
                    piece.left = piece.left.saturating_sub(sent);
                    if piece.left == 0 {
                        pieces.pop_front();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if is_blank(bytes) {
            return self.poll_send(context, bytes.len());
        }
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(0);
        let slices = slices.get(first..).unwrap_or_default();
        let bytes = slices.iter().position(|slice| is_blank(slice)).unwrap_or(slices.len());
        match slices.first() {
            Some(slice) if bytes == 0 => self.poll_send(context, slice.len()),
            _ => {
                let stream = self.get_mut().stream.inner_mut();
                Pin::new(stream).poll_write_vectored(context, slices.get(..bytes).unwrap_or(slices))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
