//! Hears what machines say while they boot and run: syslog, and what their kernels send by netconsole.
//!
//! Both are plain datagrams that anybody on the network can send, so that a line counts for the machine that has the
//! address it comes from and for nothing else: it is shown beside the timeline, and decides nothing.

mod book;
mod limit;
mod line;
mod merge;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kiln_inventory::BootId;
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::book::{Book, HeardLine};
use self::limit::Limits;
pub use self::line::Source;
pub use self::merge::merge;
use crate::boots::{Boots, now_ms};
use crate::trouble::Trouble;

/// The longest datagram that is read; what is longer is cut.
const LONGEST: usize = 8 << 10;
/// How long it is remembered whose address one is: a machine that boots anew has another boot.
const KNOWN: Duration = Duration::from_secs(1);
/// Addresses that are remembered.
const MOST_KNOWN: usize = 4096;
/// How often what is new is written to disk.
const SAVE: Duration = Duration::from_secs(3);
/// How long to wait when the socket fails.
const RETRY: Duration = Duration::from_millis(500);

/// Opens a port on one of our addresses, for what comes in by its interface.
///
/// # Errors
///
/// What the kernel says.
pub fn bind(address: SocketAddr, interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Takes datagrams until told to stop.
pub async fn listen(
    socket: UdpSocket,
    source: Source,
    book: Book,
    boots: Boots,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; LONGEST];
    let mut limits = Limits::default();
    let mut known: HashMap<IpAddr, (Option<BootId>, Instant)> = HashMap::new();
    loop {
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = socket.recv_from(&mut buffer) => read,
        };
        let (length, peer) = match read {
            Ok((length, peer)) => (length, peer.ip()),
            Err(error) => {
                tracing::debug!(%error, source = source.as_str(), "cannot hear");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let now = Instant::now();
        if !limits.admits(peer, length, now) {
            continue;
        }
        let fresh = known.get(&peer).filter(|(_, since)| now - *since < KNOWN);
        let boot = match fresh {
            Some((boot, _)) => *boot,
            None => {
                let boot = boots.boot_at(peer).await;
                if known.len() >= MOST_KNOWN {
                    known.clear();
                }
                known.insert(peer, (boot, now));
                boot
            }
        };
        let Some(boot) = boot else { continue };
        let lines = line::read(buffer.get(..length).unwrap_or_default(), source);
        let at = now_ms();
        book.push(boot, lines.into_iter().map(|text| HeardLine { at, source, text }));
    }
}

/// Writes what is new to disk now and then, and at the end.
pub async fn keep(book: Book, stop: CancellationToken) {
    let mut trouble =
        Trouble::new("what machines say is not kept", "what machines say is kept again");
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(SAVE) => false,
        };
        let book = book.clone();
        if let Ok(saved) = tokio::task::spawn_blocking(move || book.save()).await {
            trouble.note(saved);
        }
        if stopped {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
