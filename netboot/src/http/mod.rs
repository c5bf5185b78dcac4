//! The boot plane: everything that firmware, loaders and booting systems fetch over HTTP, and what they report.

mod body;
mod file;
mod machine;
mod orders;
mod routes;
mod told;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use kiln_ipxe::Endpoints;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bake::Baker;
use crate::boots::Boots;
use crate::loaders::Loaders;
use crate::orders::Orders;
use crate::view::View;

/// Connections served at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// A request's head must be here by then; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection whose peer takes nothing for this long is closed by the kernel.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long transfers may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What the boot plane serves from. One for each listener, because scripts name the address they came from.
#[derive(Debug)]
pub struct Plane {
    /// Machines and images.
    pub view: Arc<View>,
    /// Who is told of what was fetched.
    pub boots: Boots,
    /// Loaders.
    pub loaders: Loaders,
    /// Who builds images.
    pub baker: Baker,
    /// What running machines are told to do.
    pub orders: Orders,
}

/// The place of a connection among those that are served at a time.
#[derive(Debug)]
struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Place {
    /// Makes room for another connection: this one only waits from now on. How many do so is bounded by the number of
    /// machines.
    fn give_back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A running boot plane.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on a listener that is bound to one address.
    ///
    /// # Errors
    ///
    /// Fails when the listener has no address.
    pub fn start(listener: TcpListener, plane: Arc<Plane>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, plane, address, stop.clone()));
        Ok(Self { address, stop, task })
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
    address: SocketAddr,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let at = Endpoints::new(address.ip(), address.port());
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
        let peer = peer.ip();
        guard(&stream);
        let place = Arc::new(Place(Mutex::new(place.ok())));
        let connection = connection(stream, plane.clone(), peer, at, place.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                // Firmware resets its connections after each file.
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "http connection ends");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

fn connection(
    stream: TcpStream,
    plane: Arc<Plane>,
    peer: IpAddr,
    at: Endpoints,
    place: Arc<Place>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let service = service_fn(move |request| {
        let (plane, place) = (plane.clone(), place.clone());
        async move { Ok::<_, Infallible>(routes::answer(&plane, peer, &at, &place, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service)
}

/// Makes the kernel close the connection when the machine at the other end is gone.
fn guard(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new().with_time(STALL_TIMEOUT);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(STALL_TIMEOUT));
    let _ = socket.set_tcp_nodelay(true);
}

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod tests;
