//! The control plane on TCP: encrypted, bounded in connections and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use crate::http::Shares;
use crate::tls::Tls;

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// Of these, for one address.
const MAX_PER_CLIENT: usize = 128;
/// How long two sides may take to agree on how to encrypt, and a head to come; also how long a connection may be idle.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A connection whose peer takes nothing for this long is closed by the kernel.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest head of a request.
const MAX_HEAD: usize = 16 << 10;
/// How long answers may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until told to stop. Nobody is let in without a token.
pub async fn serve_encrypted(
    listener: TcpListener,
    tls: Arc<Tls>,
    router: Router,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let shares = Shares::of(MAX_PER_CLIENT);
    loop {
        let next = async { (places.clone().acquire_owned().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the control plane cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let peer = address.ip().to_canonical();
        let Some(share) = shares.take(peer) else {
            tracing::debug!(%peer, "too many connections from one address");
            continue;
        };
        let caller = Peer::Remote(peer);
        let router = router.clone().layer(Extension(ConnectInfo(caller)));
        let (tls, watcher) = (tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _held = (place, share);
            guard(&stream);
            let Some(stream) = encrypt(&tls, stream).await else { return };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .max_headers(64)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            if let Err(error) = watcher.watch(connection).await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%peer, error, "a connection of the control plane ends");
            }
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

async fn encrypt(
    tls: &Tls,
    stream: TcpStream,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(failure)) => {
            tracing::debug!(error = &failure as &dyn std::error::Error, "not encrypted");
            None
        }
        Err(_) => None,
    }
}

fn guard(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new().with_time(STALL_TIMEOUT);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(STALL_TIMEOUT));
    let _ = socket.set_tcp_nodelay(true);
}
