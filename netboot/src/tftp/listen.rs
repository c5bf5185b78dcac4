//! The port where requests go: checks them, looks files up, and hands what is found to the engine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::content::{Body, Content, File};
use super::engine::{Begin, Engine};
use super::options::{Limits, settle};
use super::stats::{Stats, add};
use super::wire::{self, Code, Incoming, MAX_REQUEST, Mode, Request};
use super::{Files, name};

/// Files that are looked up at the same time.
const LOOKUPS: usize = 64;
/// The largest file that is made over into lines of netascii.
const MAX_TEXT: usize = 1 << 20;
/// How long transfers under way get when the server stops.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct Listener<F: Files> {
    pub(super) socket: UdpSocket,
    pub(super) files: Arc<F>,
    pub(super) engine: Engine,
    pub(super) stats: Arc<Stats>,
}

impl<F: Files> Listener<F> {
    pub(super) async fn run(self, limits: Limits, stop: CancellationToken) {
        let Self { socket, files, engine, stats } = self;
        let socket = Arc::new(socket);
        let places = Arc::new(Semaphore::new(LOOKUPS));
        let lookups = TaskTracker::new();
        let mut packet = [0; MAX_REQUEST];
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = socket.recv_from(&mut packet) => received,
            };
            let (length, peer) = match received {
                Ok(received) => received,
                // An error that a packet of ours came back with, or one that passes.
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "tftp receive");
                    pause(&error).await;
                    continue;
                }
            };
            let bytes = packet.get(..length).unwrap_or_default();
            if !is_answerable(peer) {
                continue;
            }
            let request = match wire::parse_request(bytes) {
                Incoming::Read(request) => request,
                Incoming::Refuse(code, text) => {
                    add(&stats.malformed, 1);
                    tracing::debug!(%peer, reason = text, "tftp: refused");
                    refuse(&socket, peer, code, text);
                    continue;
                }
                Incoming::Ignore => {
                    add(&stats.malformed, 1);
                    continue;
                }
            };
            add(&stats.requests, 1);
            // The client asks again; by then there may be a place.
            let Ok(place) = places.clone().try_acquire_owned() else {
                add(&stats.refused, 1);
                continue;
            };
            let (socket, files) = (socket.clone(), files.clone());
            let (engine, stats) = (engine.queue(), stats.clone());
            lookups.spawn(async move {
                let _place = place;
                match find(files.as_ref(), peer.ip(), &request).await {
                    Ok((name, file)) => {
                        let size = file.len;
                        let (terms, answer) = settle(&request.options, request.mode, size, &limits);
                        let more = engine.clone();
                        let content = Content::of(file, move || more.more(peer));
                        engine.begin(Begin { peer, name, content, size, terms, answer });
                    }
                    Err((code, text)) => {
                        add(&stats.not_found, 1);
                        let name = wire::printable(&request.name);
                        tracing::debug!(%peer, path = name, reason = text, "tftp: no file");
                        refuse(&socket, peer, code, text);
                    }
                }
            });
        }
        lookups.close();
        lookups.wait().await;
        engine.stop(GRACE).await;
    }
}

/// Returns the file that a request means, and what it is called.
async fn find<F: Files>(
    files: &F,
    peer: IpAddr,
    request: &Request,
) -> Result<(String, File), (Code, &'static str)> {
    let missing = (Code::NOT_FOUND, "no such file");
    let name = name::clean(&request.name).ok_or(missing)?;
    let mut found = files.open(peer, &name).await;
    if found.is_none() {
        // FAT has no cases, and firmware that was tried with a stick may rely on that.
        let lower = name.to_lowercase();
        if lower != name {
            found = files.open(peer, &lower).await;
        }
    }
    let file = found.ok_or(missing)?;
    match (request.mode, file) {
        (Mode::Octet, file) => Ok((name, file)),
        (Mode::Netascii, File { body: Body::Memory(text), .. }) if text.len() <= MAX_TEXT => {
            Ok((name, netascii(&text).into()))
        }
        (Mode::Netascii, _) => {
            Err((Code::ILLEGAL, "this is no text of netascii; ask in the mode octet"))
        }
    }
}

/// Returns a text with the ends of lines as they are on the wire (RFC 764).
fn netascii(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + text.len() / 16);
    for byte in text {
        match byte {
            b'\n' => out.extend(b"\r\n"),
            b'\r' => out.extend(b"\r\0"),
            other => out.push(*other),
        }
    }
    out.into()
}

/// Returns whether an answer to this address can only reach the one that asked.
fn is_answerable(peer: SocketAddr) -> bool {
    let broadcast = matches!(peer.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    peer.port() != 0 && !broadcast && !peer.ip().is_multicast() && !peer.ip().is_unspecified()
}

/// Sends an error once. Where it is lost, the client asks again.
fn refuse(socket: &UdpSocket, peer: SocketAddr, code: Code, text: &str) {
    let _ = socket.try_send_to(&wire::error(code, text), peer);
}

/// Waits where an error may come at once again.
async fn pause(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionRefused {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_on_the_wire_as_netascii_says() {
        assert_eq!(netascii(b"a\nb\rc\r\n")[..], *b"a\r\nb\r\0c\r\0\r\n");
    }

    #[test]
    fn nobody_is_answered_at_an_address_of_many_or_of_none() {
        for (peer, is) in [
            ("10.0.0.9:2070", true),
            ("[fe80::1]:2070", true),
            ("10.0.0.9:0", false),
            ("255.255.255.255:2070", false),
            ("224.0.0.1:2070", false),
            ("0.0.0.0:2070", false),
            ("[ff02::1]:2070", false),
        ] {
            assert_eq!(is_answerable(peer.parse().unwrap()), is, "{peer}");
        }
    }
}
