//! async-tftp behind our trait, with the limits without which it is not safe to expose. `[tftp] engine` chooses it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tftp::packet::Error;
use async_tftp::server::{Handler, TftpServerBuilder};
use futures_util::io::{AsyncRead, Sink};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::content::Body;
use super::{End, Ended, Files, Limits, name};

/// UEFI breaks its first request off and does not say so in a way that the engine hears; a port is free again after
/// five of these.
const TIMEOUT: Duration = Duration::from_secs(1);
const RETRIES: u32 = 4;

/// Starts the engine anew when it gives up, which it does on any error of its socket.
pub(super) async fn supervise<F: Files>(
    socket: UdpSocket,
    files: Arc<F>,
    limits: Limits,
    stop: CancellationToken,
) {
    loop {
        let copy = match socket.try_clone() {
            Ok(copy) => copy,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "tftp cannot go on");
                return;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            result = serve(copy, files.clone(), limits) => {
                if let Err(error) = result {
                    tracing::warn!(error, "tftp starts anew");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// Serves until the socket fails.
async fn serve<F: Files>(socket: UdpSocket, files: Arc<F>, limits: Limits) -> Result<(), String> {
    let server = TftpServerBuilder::with_handler(Lookup { files })
        .std_socket(socket)
        .map_err(|error| error.to_string())?
        .block_size_limit(limits.block)
        .window_size_limit(limits.window)
        .timeout(TIMEOUT)
        .max_send_retries(RETRIES)
        .build()
        .await
        .map_err(|error| error.to_string())?;
    server.serve().await.map_err(|error| error.to_string())
}

type Source = Box<dyn tokio::io::AsyncRead + Send + Unpin>;

struct Lookup<F> {
    files: Arc<F>,
}

impl<F: Files> Handler for Lookup<F> {
    type Reader = Reader<F>;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Self::Reader, Option<u64>), Error> {
        let Some(name) = name::clean(path.as_os_str().as_bytes()) else {
            return Err(Error::FileNotFound);
        };
        let Some(file) = self.files.open(client.ip(), &name).await else {
            tracing::debug!(peer = %client, path = name, "tftp: no such file");
            return Err(Error::FileNotFound);
        };
        let size = file.len;
        let reader: Source = match file.body {
            Body::Memory(bytes) => Box::new(io::Cursor::new(bytes)),
            Body::Stream(reader) => reader,
        };
        let started = Instant::now();
        let files = self.files.clone();
        Ok((Reader { files, client: *client, name, reader, left: size, size, started }, Some(size)))
    }

    async fn write_req_open(
        &mut self,
        _: &SocketAddr,
        _: &Path,
        _: Option<u64>,
    ) -> Result<Self::Writer, Error> {
        Err(Error::IllegalOperation)
    }
}

/// Hands out one file, and tells when all of it was taken.
struct Reader<F: Files> {
    files: Arc<F>,
    client: SocketAddr,
    name: String,
    reader: Source,
    left: u64,
    size: u64,
    started: Instant,
}

impl<F: Files> AsyncRead for Reader<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.reader).poll_read(context, &mut into))?;
        let read = into.filled().len();
        self.left = self.left.saturating_sub(read as u64);
        Poll::Ready(Ok(read))
    }
}

impl<F: Files> Drop for Reader<F> {
    fn drop(&mut self) {
        // A request that only asks for the size takes the first block and goes.
        let taken = self.size - self.left;
        self.files.ended(&Ended {
            peer: self.client.ip(),
            name: std::mem::take(&mut self.name),
            end: if taken == self.size { End::Done } else { End::Silent },
            size: self.size,
            taken,
            took: self.started.elapsed(),
            resent: 0,
        });
    }
}
