//! The bytes of a file while it is sent: all in memory, or read ahead of the client by some.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Notify;

/// Bytes that are read at once, and how far ahead of the client; a window is at most 94 KB where frames are usual.
const PART: usize = 128 << 10;
const AHEAD: u64 = 1 << 20;

/// A file as it is sent: its length is known before its bytes are read.
pub struct File {
    /// Its length.
    pub len: u64,
    pub(super) body: Body,
}

pub(super) enum Body {
    Memory(Bytes),
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

impl File {
    /// A file that is read while it is sent. It ends when its bytes do not last for its length.
    pub fn streamed(len: u64, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self { len, body: Body::Stream(Box::new(reader)) }
    }
}

impl From<Bytes> for File {
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len() as u64, body: Body::Memory(bytes) }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What a transfer takes its blocks from.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes),
    Ahead(Ahead),
}

impl Content {
    /// Makes one of a file. `more` is called whenever there are more bytes of one that is read.
    pub(super) fn of(file: File, more: impl Fn() + Send + 'static) -> Self {
        match file.body {
            Body::Memory(bytes) => Self::Memory(bytes),
            Body::Stream(reader) => Self::Ahead(Ahead::start(reader, more)),
        }
    }

    /// Returns some bytes, or nothing while they are not there yet.
    pub(super) fn get(&self, range: Range<usize>) -> io::Result<Option<Cow<'_, [u8]>>> {
        match self {
            Self::Memory(bytes) => Ok(bytes.get(range).map(Cow::Borrowed)),
            Self::Ahead(ahead) => Ok(ahead.get(range)?.map(Cow::Owned)),
        }
    }

    /// Lets go of what is before this.
    pub(super) fn taken(&self, until: u64) {
        if let Self::Ahead(ahead) = self {
            ahead.taken(until);
        }
    }
}

/// A part of a file around where the client is.
#[derive(Debug)]
pub(super) struct Ahead {
    held: Arc<Held>,
    task: tokio::task::AbortHandle,
}

#[derive(Debug, Default)]
struct Held {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Where the first of the parts begins.
    start: u64,
    parts: VecDeque<Bytes>,
    len: u64,
    failed: Option<io::ErrorKind>,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    fn start(
        mut reader: Box<dyn AsyncRead + Send + Unpin>,
        more: impl Fn() + Send + 'static,
    ) -> Self {
        let held = Arc::new(Held::default());
        let kept = held.clone();
        let task = tokio::spawn(async move {
            loop {
                let mut part = Vec::with_capacity(PART);
                let read = (&mut reader).take(PART as u64).read_to_end(&mut part).await;
                let ends = {
                    let mut state = kept.state();
                    state.len += part.len() as u64;
                    let ends = !matches!(read, Ok(1..));
                    if ends {
                        // To go on where the bytes should be is an error; the end of the file is not.
                        state.failed = Some(match read {
                            Ok(_) => io::ErrorKind::UnexpectedEof,
                            Err(error) => error.kind(),
                        });
                    } else {
                        state.parts.push_back(part.into());
                    }
                    ends
                };
                more();
                if ends {
                    return;
                }
                loop {
                    let room = kept.room.notified();
                    if kept.state().len < AHEAD {
                        break;
                    }
                    room.await;
                }
            }
        });
        Self { held, task: task.abort_handle() }
    }

    fn get(&self, range: Range<usize>) -> io::Result<Option<Vec<u8>>> {
        let state = self.held.state();
        let start = usize::try_from(state.start).map_err(io::Error::other)?;
        let len = usize::try_from(state.len).map_err(io::Error::other)?;
        if range.end > start + len {
            return state.failed.map_or(Ok(None), |kind| Err(kind.into()));
        }
        let (mut at, mut bytes) = (start, Vec::with_capacity(range.len()));
        for part in &state.parts {
            let from = range.start.max(at).saturating_sub(at).min(part.len());
            let to = range.end.saturating_sub(at).min(part.len());
            bytes.extend_from_slice(part.get(from..to).unwrap_or_default());
            at += part.len();
        }
        Ok(Some(bytes))
    }

    fn taken(&self, until: u64) {
        let mut state = self.held.state();
        while let Some(part) = state.parts.front().map(|part| part.len() as u64) {
            if state.start + part > until {
                return;
            }
            state.parts.pop_front();
            state.start += part;
            state.len -= part;
            self.held.room.notify_one();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_ahead_of_the_client_by_so_much_and_no_more() {
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let file = File::streamed(bytes.len() as u64, io::Cursor::new(bytes.clone()));
        let content = Content::of(file, move || {
            let _ = told.send(());
        });
        let Content::Ahead(ahead) = &content else { panic!("it is a stream") };
        let mut at = 0;
        while at < bytes.len() {
            let range = at..(at + 23_000).min(bytes.len());
            match content.get(range.clone()).unwrap() {
                Some(part) => {
                    assert!(*part == bytes[range.clone()]);
                    at = range.end;
                    content.taken(at as u64);
                }
                None => heard.recv().await.unwrap(),
            }
            assert!(ahead.held.state().len <= AHEAD + PART as u64);
        }
        while content.get(0..9_000_000).is_ok() {
            heard.recv().await.unwrap();
        }
    }
}
