//! TFTP: loaders, and what is made for one machine. One instance per address, so that answers leave from the address
//! that was asked (a server on the wildcard address answers from another one, and much firmware drops that).

mod engine;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What TFTP serves, by the path that was asked for.
pub trait Files: Send + Sync + 'static {
    /// Returns the file that whoever has this address gets. Firmware asks twice: for the length, then for the file.
    fn open(&self, peer: IpAddr, path: &str) -> impl Future<Output = Option<File>> + Send;

    /// Hears of a file that was read to its end, at the speed at which it was sent. Must not wait.
    fn sent(&self, peer: IpAddr, path: &str, bytes: u64, took: Duration);
}

/// A file as it is sent: its length is known before its bytes are read.
pub struct File {
    /// Its length.
    pub len: u64,
    /// Its bytes.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
}

impl From<Bytes> for File {
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len() as u64, reader: Box::new(std::io::Cursor::new(bytes)) }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A running TFTP server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Server {
    /// Serves files on a socket that is bound to one address.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be used.
    pub fn start<F: Files>(socket: UdpSocket, files: Arc<F>) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(socket, files, stop.clone()));
        Ok(Self { address, task, stop })
    }

    /// Returns where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops at once. Firmware repeats a transfer that broke off.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Starts the engine anew when it gives up, which it does on any error of its socket.
async fn supervise<F: Files>(socket: UdpSocket, files: Arc<F>, stop: CancellationToken) {
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
            result = engine::serve(copy, files.clone()) => {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct One {
        sent: Mutex<Vec<(String, u64)>>,
    }

    impl Files for One {
        async fn open(&self, _: IpAddr, path: &str) -> Option<File> {
            (path == "ipxe/a").then(|| Bytes::from(vec![7; 3000]).into())
        }

        fn sent(&self, _: IpAddr, path: &str, bytes: u64, _: Duration) {
            self.sent.lock().unwrap().push((path.to_owned(), bytes));
        }
    }

    /// Fetches a file as firmware does: block size 1468, and each block acknowledged.
    async fn fetch(server: SocketAddr, path: &str) -> Result<Vec<u8>, u16> {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let request = format!("\0\u{1}{path}\0octet\0blksize\x001468\0");
        socket.send_to(request.as_bytes(), server).await.unwrap();
        let (mut file, mut packet) = (Vec::new(), [0; 2000]);
        loop {
            let receive = socket.recv_from(&mut packet);
            let (len, peer) =
                tokio::time::timeout(Duration::from_secs(10), receive).await.unwrap().unwrap();
            let block = [packet[2], packet[3]];
            match packet[1] {
                6 => drop(socket.send_to(&[0, 4, 0, 0], peer).await.unwrap()),
                3 => {
                    file.extend_from_slice(&packet[4..len]);
                    socket.send_to(&[0, 4, block[0], block[1]], peer).await.unwrap();
                    if len < 1472 {
                        return Ok(file);
                    }
                }
                _ => return Err(u16::from_be_bytes(block)),
            }
        }
    }

    #[tokio::test]
    async fn a_file_arrives_whole_and_a_missing_one_is_refused_at_once() {
        let files = Arc::new(One::default());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Server::start(socket, files.clone()).unwrap();
        assert_eq!(fetch(server.local_addr(), "/ipxe/a").await, Ok(vec![7; 3000]));
        assert_eq!(fetch(server.local_addr(), "ipxe\\a").await, Ok(vec![7; 3000]));
        assert_eq!(fetch(server.local_addr(), "../../etc/passwd").await, Err(1));
        assert_eq!(files.sent.lock().unwrap()[0], ("ipxe/a".to_owned(), 3000));
        server.shutdown().await;
    }
}
