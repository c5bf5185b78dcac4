//! Bodies of answers: a few bytes in memory, or a part of a file that is read while it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};

/// How much of a file is read at a time. Each transfer holds this much memory.
const CHUNK: usize = 256 << 10;

/// Called once, with the number of bytes, when a body was handed to the connection to its end.
pub(super) type Done = Box<dyn FnOnce(u64) + Send + Sync>;

/// The body of an answer. Its length is always known.
pub(super) struct Body {
    source: Source,
    left: u64,
    total: u64,
    done: Option<Done>,
}

enum Source {
    Memory(Bytes),
    File(File),
}

impl Body {
    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let left = bytes.len() as u64;
        Self { source: Source::Memory(bytes), left, total: left, done: None }
    }

    /// Sends `len` bytes of a file from where it stands.
    pub(super) const fn file(file: File, len: u64) -> Self {
        Self { source: Source::File(file), left: len, total: len, done: None }
    }

    pub(super) fn when_done(mut self, done: Done) -> Self {
        self.done = Some(done);
        self
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match &mut this.source {
            Source::Memory(bytes) => std::mem::take(bytes),
            Source::File(file) => {
                let want = usize::try_from(this.left).unwrap_or(CHUNK).min(CHUNK);
                let mut buffer = BytesMut::zeroed(want);
                let mut into = ReadBuf::new(&mut buffer);
                if let Err(error) = ready!(Pin::new(file).poll_read(context, &mut into)) {
                    return Poll::Ready(Some(Err(error)));
                }
                let filled = into.filled().len();
                if filled == 0 {
                    // The length is promised already; breaking off is the only way to say that it was wrong.
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                buffer.truncate(filled);
                buffer.freeze()
            }
        };
        this.left = this.left.saturating_sub(chunk.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let (0, Some(done)) = (self.left, self.done.take()) {
            done(self.total);
        }
    }
}
