//! The engine behind our trait: async-tftp, with the limits without which it is not safe to expose.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
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

use super::{File, Files};

/// The largest blocks that fit a frame of 1500 bytes: firmware cannot put fragments together.
const BLOCK_LIMIT: u16 = 1468;
const BLOCK_LIMIT_IPV6: u16 = 1448;
/// A window is read into memory, once per transfer.
const WINDOW_LIMIT: u16 = 16;
/// UEFI breaks its first request off and does not say so in a way that the engine hears; a port is free again after
/// five of these.
const TIMEOUT: Duration = Duration::from_secs(1);
const RETRIES: u32 = 4;

/// Serves until the socket fails.
pub(super) async fn serve<F: Files>(socket: UdpSocket, files: Arc<F>) -> Result<(), String> {
    let is_ipv6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
    let server = TftpServerBuilder::with_handler(Lookup { files })
        .std_socket(socket)
        .map_err(|error| error.to_string())?
        .block_size_limit(if is_ipv6 { BLOCK_LIMIT_IPV6 } else { BLOCK_LIMIT })
        .window_size_limit(WINDOW_LIMIT)
        .timeout(TIMEOUT)
        .max_send_retries(RETRIES)
        .build()
        .await
        .map_err(|error| error.to_string())?;
    server.serve().await.map_err(|error| error.to_string())
}

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
        // Some firmware writes paths as Windows does, or with a leading slash.
        let path = path.to_string_lossy().replace('\\', "/");
        let path = path.trim_start_matches('/').to_owned();
        let peer = client.ip();
        let Some(file) = self.files.open(peer, &path).await else {
            tracing::debug!(%peer, path, "tftp: no such file");
            return Err(Error::FileNotFound);
        };
        let (files, size, started) = (self.files.clone(), file.len, Instant::now());
        Ok((Reader { files, peer, path, file, left: size, started }, Some(size)))
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
    peer: IpAddr,
    path: String,
    file: File,
    left: u64,
    started: Instant,
}

impl<F: Files> AsyncRead for Reader<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.file.reader).poll_read(context, &mut into))?;
        let read = into.filled().len();
        self.left = self.left.saturating_sub(read as u64);
        Poll::Ready(Ok(read))
    }
}

impl<F: Files> Drop for Reader<F> {
    fn drop(&mut self) {
        // A request that only asks for the size takes the first block and goes.
        if self.left == 0 {
            self.files.sent(self.peer, &self.path, self.file.len, self.started.elapsed());
        }
    }
}
