//! Reads a planned file as a stream: what is in memory from there, what is in the store piece by piece from disk.

use std::collections::VecDeque;
use std::io::{self, Seek as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use kiln_builder::Store;
use kiln_builder::output::{Piece, Plan};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

/// A planned file that is being read. It holds one open file at most.
#[derive(Debug)]
pub struct Pieces {
    store: Store,
    rest: VecDeque<Piece>,
    now: Now,
}

/// What is left of the piece that is being read.
#[derive(Debug)]
enum Now {
    Bytes(Bytes),
    Zeros(u64),
    File(File, u64),
}

impl Pieces {
    /// Reads a plan from its beginning.
    pub fn new(store: Store, plan: &Plan) -> Self {
        Self { store, rest: plan.pieces().iter().cloned().collect(), now: Now::Zeros(0) }
    }

    fn begin(&self, piece: Piece) -> io::Result<Now> {
        Ok(match piece {
            Piece::Bytes(bytes) => Now::Bytes(bytes),
            Piece::Zeros(len) => Now::Zeros(len),
            Piece::Artifact { digest, offset, len } => {
                // To open a file of this computer takes no time worth a thread.
                let mut file = std::fs::File::open(self.store.artifact(&digest))?;
                file.seek(io::SeekFrom::Start(offset))?;
                Now::File(File::from_std(file), len)
            }
        })
    }
}

/// Returns how much of what is left fits.
fn fitting(left: u64, into: &ReadBuf<'_>) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(into.remaining())
}

impl AsyncRead for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut this.now {
                Now::Bytes(bytes) if !bytes.is_empty() => {
                    let len = bytes.len().min(into.remaining());
                    into.put_slice(bytes.get(..len).unwrap_or_default());
                    bytes.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Now::Zeros(left) if *left > 0 => {
                    let len = fitting(*left, into);
                    into.initialize_unfilled_to(len).fill(0);
                    into.advance(len);
                    *left -= len as u64;
                    return Poll::Ready(Ok(()));
                }
                Now::File(file, left) if *left > 0 => {
                    let len = fitting(*left, into);
                    let mut part = ReadBuf::new(into.initialize_unfilled_to(len));
                    ready!(Pin::new(file).poll_read(context, &mut part))?;
                    let len = part.filled().len();
                    if len == 0 {
                        // The length is promised already.
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    *left -= len as u64;
                    into.advance(len);
                    return Poll::Ready(Ok(()));
                }
                _ => {}
            }
            match this.rest.pop_front() {
                Some(piece) => this.now = this.begin(piece)?,
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_plan_is_read_as_it_is_written_and_any_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let body: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        let digest = store.put(&body).unwrap();
        let mut plan = Plan::default();
        plan.push_bytes(&b"head"[..]);
        plan.push_artifact(digest, body.len() as u64);
        plan.align(4096);
        plan.push_bytes(&b"tail"[..]);
        let mut written = Vec::new();
        plan.write(&store, &mut written).unwrap();
        for range in [0..plan.len(), 2..600_001, 700_003..plan.len() - 2] {
            let mut read = Vec::new();
            let part = plan.slice(range.clone());
            Pieces::new(store.clone(), &part).read_to_end(&mut read).await.unwrap();
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
            assert!(read == written[start..end], "{range:?}");
        }
    }

    #[tokio::test]
    async fn an_artifact_that_is_shorter_than_promised_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut plan = Plan::default();
        plan.push_artifact(store.put(b"abc").unwrap(), 4);
        let mut read = Vec::new();
        assert!(Pieces::new(store, &plan).read_to_end(&mut read).await.is_err());
    }
}
