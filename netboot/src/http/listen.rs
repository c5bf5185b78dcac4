//! Takes connections: bounded in number, closed when nothing comes, ended in good order.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use kiln_ipxe::{Endpoints, Https, HttpsFor};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::shares::{Share, Shares};
use super::wire::{Pieces, Wire};
use super::{Plane, routes};
use crate::tls::{self, Tls};

/// Connections served at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Of these, for one address: somebody who opens all he can does not keep the others out.
const MAX_PER_CLIENT: usize = 1024;
/// A request's head must be here by then; also how long a connection may be idle. Tests have less time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 20 });
/// How long two sides may take to agree on how to encrypt.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection whose peer takes nothing for this long is closed by the kernel.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest head of a request that is read.
const MAX_HEAD: usize = 16 << 10;
/// How long transfers may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What all requests of a connection share.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: IpAddr,
    pub(super) at: Endpoints,
    /// Where the connection takes files themselves.
    pub(super) pieces: Option<Pieces>,
    place: Arc<Place>,
}

impl Caller {
    /// Makes room for another connection: this one only waits from now on. How many do so is bounded by the number of
    /// machines.
    pub(super) fn give_back(&self) {
        drop(self.place.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The place of a connection among those that are served at a time.
#[derive(Debug)]
struct Place(Mutex<Option<(OwnedSemaphorePermit, Share)>>);

/// A running boot plane.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on a listener that is bound to one address. `agent` is where the systems that boot talk encrypted, if they do.
    ///
    /// # Errors
    ///
    /// Fails when the listener has no address.
    pub fn start(
        listener: TcpListener,
        plane: Arc<Plane>,
        agent: Option<SocketAddr>,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let at = Endpoints::new(address.ip(), address.port()).with_agents_at(agent);
        Ok(Self::run(listener, address, plane, at, None))
    }

    /// Serves encrypted on a listener that is bound to one address. `http` is the port without encryption, for the
    /// systems that boot.
    ///
    /// # Errors
    ///
    /// Fails when the listener has no address.
    pub fn start_encrypted(
        listener: TcpListener,
        plane: Arc<Plane>,
        tls: Arc<Tls>,
        http: u16,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        // Scripts go on as they came.
        let https = Some(Https { at: address, of: HttpsFor::All });
        let at = Endpoints::new(address.ip(), http).with_agents_at(Some(address));
        let at = Endpoints { https, ..at };
        Ok(Self::run(listener, address, plane, at, Some(tls)))
    }

    fn run(
        listener: TcpListener,
        address: SocketAddr,
        plane: Arc<Plane>,
        at: Endpoints,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, plane, at, tls, stop.clone()));
        Self { address, stop, task }
    }

    /// Returns where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and lets those that are open end.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn accept(
    listener: TcpListener,
    plane: Arc<Plane>,
    at: Endpoints,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let shares = Shares::of(MAX_PER_CLIENT);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others end soon.
                tracing::warn!(error = &error as &dyn std::error::Error, "http cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let peer = peer.ip().to_canonical();
        let (Ok(place), Some(share)) = (place, shares.take(peer)) else {
            tracing::debug!(%peer, "too many connections from one address");
            continue;
        };
        guard(&stream);
        let place = Arc::new(Place(Mutex::new(Some((place, share)))));
        let caller = Caller { peer, at, pieces: None, place };
        let (plane, watcher) = (plane.clone(), graceful.watcher());
        match tls.clone() {
            None => tokio::spawn(plain(stream, plane, caller, watcher)),
            Some(tls) => tokio::spawn(encrypted(stream, tls, plane, caller, watcher)),
        };
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

async fn plain(stream: TcpStream, plane: Arc<Plane>, caller: Caller, watcher: Watcher) {
    let pieces = Pieces::default();
    let caller = Caller { pieces: Some(pieces.clone()), ..caller };
    serve(Wire::new(stream, pieces), plane, caller, watcher).await;
}

async fn encrypted(
    mut stream: TcpStream,
    tls: Arc<Tls>,
    plane: Arc<Plane>,
    caller: Caller,
    watcher: Watcher,
) {
    let peer = caller.peer;
    let handshake = async {
        // A method in plain text: say what is wrong in words.
        if stream.peek(&mut [0]).await.is_ok_and(|read| read == 0) {
            return None;
        }
        let mut first = [0];
        if stream.peek(&mut first).await.is_ok() && first[0].is_ascii_uppercase() {
            let _ = stream.write_all(tls::NOT_ENCRYPTED).await;
            let _ = stream.shutdown().await;
            return None;
        }
        Some(tls.accept(stream).await)
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Some(Ok(stream))) => serve(TokioIo::new(stream), plane, caller, watcher).await,
        Ok(Some(Err(failure))) => {
            if failure.is_refusal() {
                tracing::warn!(%peer, "{failure}");
                plane.boots.untrusted(peer, failure.to_string());
            } else {
                tracing::debug!(%peer, "{failure}");
            }
        }
        Ok(None) | Err(_) => tracing::debug!(%peer, "no encryption was agreed on"),
    }
}

async fn serve<I>(io: I, plane: Arc<Plane>, caller: Caller, watcher: Watcher)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let peer = caller.peer;
    let service = service_fn(move |request| {
        let (plane, caller) = (plane.clone(), caller.clone());
        async move { Ok::<_, Infallible>(routes::answer(&plane, &caller, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(64)
        .serve_connection(io, service);
    if let Err(error) = watcher.watch(connection).await {
        // Firmware resets its connections after each file.
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "http connection ends");
    }
}

/// Makes the kernel close the connection when the machine at the other end is gone.
fn guard(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new().with_time(STALL_TIMEOUT);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(STALL_TIMEOUT));
    let _ = socket.set_tcp_nodelay(true);
}
