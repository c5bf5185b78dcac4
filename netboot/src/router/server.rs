use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::message::{Announcement, is_solicitation};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The first few advertisements come soon one after the other, later ones at times that vary (RFC 4861 §6.2.4).
const FIRST: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(16);
const LEAST_PAUSE: Duration = Duration::from_secs(200);
const MORE_PAUSE_SECS: u64 = 400;
/// How soon one to all may follow the other (RFC 4861 §10).
const BETWEEN: Duration = Duration::from_secs(3);
/// How long to wait when none can be sent: the interface is down, or has no address of its own yet.
const RETRY: Duration = Duration::from_secs(1);
/// Solicitations that are answered in a second.
const MAX_ANSWERS: u32 = 200;

/// Router advertisements cannot be sent on an interface.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot send router advertisements on {interface}; run as root or with CAP_NET_RAW, or remove `advertise`"
)]
pub struct RouterError {
    interface: String,
    #[source]
    source: io::Error,
}

/// The socket of one interface.
#[derive(Debug)]
pub struct Router {
    interface: String,
    index: u32,
    socket: StdUdpSocket,
}

/// Opens a socket for ICMPv6 on one interface.
///
/// # Errors
///
/// When the process may not, or the interface is missing or has no IPv6.
pub fn bind(interface: &str) -> Result<Router, RouterError> {
    let open = || -> io::Result<Router> {
        let index = if_nametoindex(interface)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_nonblocking(true)?;
        // Hosts believe only what no router has passed on.
        socket.set_multicast_hops_v6(255)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        // Not UDP, but a datagram with an address is sent and received by the same calls.
        let socket = StdUdpSocket::from(OwnedFd::from(socket));
        Ok(Router { interface: interface.to_owned(), index, socket })
    };
    open().map_err(|source| RouterError { interface: interface.to_owned(), source })
}

/// Announces until the token is cancelled: from time to time to all, and at once to who asks.
///
/// # Errors
///
/// When the socket cannot be used at all. A network that is down is no reason to end.
pub async fn serve(
    router: Router,
    announcement: Announcement,
    token: CancellationToken,
) -> Result<(), RouterError> {
    let Router { interface, index, socket } = router;
    let socket = UdpSocket::from_std(socket)
        .map_err(|source| RouterError { interface: interface.clone(), source })?;
    let all = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    let message = announcement.encode(false);
    let mut buffer = vec![0; 2048];
    let (mut sent, mut next) = (0_u32, Instant::now());
    let mut last: Option<Instant> = None;
    let mut answers = (Instant::now(), 0);
    loop {
        let received = tokio::select! {
            () = token.cancelled() => {
                if announcement.default_router {
                    drop(socket.send_to(&announcement.encode(true), all).await);
                }
                return Ok(());
            }
            () = sleep_until(next) => {
                let pause = match socket.send_to(&message, all).await {
                    Ok(_) => {
                        sent = sent.saturating_add(1);
                        last = Some(Instant::now());
                        if sent <= FIRST { FIRST_PAUSE } else { pause() }
                    }
                    Err(error) => {
                        tracing::debug!(iface = interface, %error, "no router advertisement yet");
                        RETRY
                    }
                };
                next = Instant::now() + pause;
                continue;
            }
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok((length, SocketAddr::V6(from))) => (length, from),
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(iface = interface, %error, "could not receive a solicitation");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let source = *from.ip();
        if !is_solicitation(buffer.get(..length).unwrap_or_default(), source) {
            continue;
        }
        let now = Instant::now();
        if now.duration_since(answers.0) >= Duration::from_secs(1) {
            answers = (now, 0);
        }
        answers.1 += 1;
        if answers.1 > MAX_ANSWERS {
            continue;
        }
        if source.is_unspecified() {
            // It has no address to answer to, and need not be the only one that waits.
            let soon = last.map_or(now, |last| last + BETWEEN).max(now);
            next = next.min(soon);
        } else {
            let to = SocketAddrV6::new(source, 0, 0, index);
            if let Err(error) = socket.send_to(&message, to).await {
                tracing::debug!(iface = interface, peer = %to, %error, "could not answer a solicitation");
            }
        }
    }
}

/// Returns a pause that is not the same in all routers of a link.
fn pause() -> Duration {
    let mut byte = [0; 2];
    // Without randomness the pause is the shortest, which does no harm.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    LEAST_PAUSE + Duration::from_secs(u64::from(u16::from_be_bytes(byte)) % MORE_PAUSE_SECS)
}
