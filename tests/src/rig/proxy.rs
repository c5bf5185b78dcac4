//! A wire that can be cut, and that tells what was asked over it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Passes connections on to a server without encryption. It takes no more of them when this value is dropped.
#[derive(Debug)]
pub(crate) struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    target: SocketAddr,
    /// Bytes that a connection may still carry to the client before it is cut.
    limit: AtomicU64,
    /// Whether nothing is passed on any more once a connection was cut.
    dies: AtomicBool,
    dead: AtomicBool,
    cuts: AtomicU64,
    asked: Mutex<Vec<u8>>,
    closed: AtomicBool,
}

impl Proxy {
    /// Starts one that passes on everything.
    pub(crate) fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let inner = Arc::new(Inner {
            address: listener.local_addr()?,
            target,
            limit: AtomicU64::new(u64::MAX),
            dies: AtomicBool::default(),
            dead: AtomicBool::default(),
            cuts: AtomicU64::default(),
            asked: Mutex::default(),
            closed: AtomicBool::default(),
        });
        let kept = inner.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if kept.closed.load(Ordering::SeqCst) {
                    return;
                }
                if !kept.dead.load(Ordering::SeqCst) {
                    let _ = carry(&kept, client);
                }
            }
        });
        Ok(Self(inner))
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Cuts the next connection that has carried this many bytes to the client, and no other.
    pub(crate) fn cut_once(&self, bytes: u64) {
        self.0.dies.store(false, Ordering::SeqCst);
        self.0.limit.store(bytes, Ordering::SeqCst);
    }

    /// Cuts the next connection that has carried this many bytes, and refuses all others until [`Self::heal`].
    pub(crate) fn die_after(&self, bytes: u64) {
        self.0.dies.store(true, Ordering::SeqCst);
        self.0.limit.store(bytes, Ordering::SeqCst);
    }

    /// Passes on everything again.
    pub(crate) fn heal(&self) {
        self.0.limit.store(u64::MAX, Ordering::SeqCst);
        self.0.dead.store(false, Ordering::SeqCst);
    }

    /// Returns how often a connection was cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.0.cuts.load(Ordering::SeqCst)
    }

    /// Returns the lines that clients have sent, in lower case.
    pub(crate) fn lines(&self) -> Vec<String> {
        let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&asked).to_ascii_lowercase().lines().map(str::to_owned).collect()
    }

    /// Forgets what clients have sent.
    pub(crate) fn forget(&self) {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        // So that the thread looks.
        drop(TcpStream::connect(self.0.address));
    }
}

fn carry(inner: &Arc<Inner>, client: TcpStream) -> std::io::Result<()> {
    let server = TcpStream::connect(inner.target)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let kept = inner.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            let mut asked = kept.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.extend_from_slice(&buffer[..count]);
            drop(asked);
            if to_server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let kept = inner.clone();
    thread::spawn(move || {
        let _ = answer(&kept, server, client);
    });
    Ok(())
}

fn answer(inner: &Inner, mut server: TcpStream, mut client: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut carried = 0;
    loop {
        let count = server.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        carried += count as u64;
        if carried > inner.limit.load(Ordering::SeqCst) {
            inner.limit.store(u64::MAX, Ordering::SeqCst);
            inner.cuts.fetch_add(1, Ordering::SeqCst);
            inner.dead.store(inner.dies.load(Ordering::SeqCst), Ordering::SeqCst);
            break;
        }
        if inner.dead.load(Ordering::SeqCst) {
            break;
        }
        client.write_all(&buffer[..count])?;
    }
    let _ = server.shutdown(Shutdown::Both);
    client.shutdown(Shutdown::Both)
}
