//! The engine behind our trait: async-tftp, with the limits without which it is not safe to expose.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_tftp::packet::Error;
use async_tftp::server::{Handler, TftpServerBuilder};
use bytes::{Buf as _, Bytes};
use futures_util::io::{AsyncRead, Sink};
use tokio::time::Instant;

use super::Files;

/// The largest block that fits a frame of 1500 bytes: firmware cannot put fragments together.
const BLOCK_LIMIT: u16 = 1468;
/// A window is read into memory, once per transfer.
const WINDOW_LIMIT: u16 = 16;
/// UEFI breaks its first request off and does not say so in a way that the engine hears; a port is free again after
/// five of these.
const TIMEOUT: Duration = Duration::from_secs(1);
const RETRIES: u32 = 4;

/// Serves until the socket fails.
pub(super) async fn serve<F: Files>(socket: UdpSocket, files: Arc<F>) -> Result<(), String> {
    let server = TftpServerBuilder::with_handler(Lookup { files })
        .std_socket(socket)
        .map_err(|error| error.to_string())?
        .block_size_limit(BLOCK_LIMIT)
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
        let Some(bytes) = self.files.get(&path) else {
            tracing::debug!(peer = %client, path, "tftp: no such file");
            return Err(Error::FileNotFound);
        };
        let size = bytes.len() as u64;
        let started = Instant::now();
        let files = self.files.clone();
        Ok((Reader { files, client: *client, path, bytes, size, started }, Some(size)))
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
    path: String,
    bytes: Bytes,
    size: u64,
    started: Instant,
}

impl<F: Files> AsyncRead for Reader<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = buffer.len().min(self.bytes.len());
        let (head, _) = buffer.split_at_mut(len);
        self.bytes.copy_to_slice(head);
        Poll::Ready(Ok(len))
    }
}

impl<F: Files> Drop for Reader<F> {
    fn drop(&mut self) {
        // A request that only asks for the size takes the first block and goes.
        if let (true, IpAddr::V4(peer)) = (self.bytes.is_empty(), self.client.ip()) {
            self.files.sent(peer, &self.path, self.size, self.started.elapsed());
        }
    }
}
