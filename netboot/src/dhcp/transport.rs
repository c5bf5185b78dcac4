use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::time::Duration;

use tokio::net::UdpSocket;
use tracing::{debug, warn};

use super::{Reply, ReplyKind};
use crate::net::{FrameSocket, try_send_from};
use crate::observe::COUNTS;

/// The way back to the clients of one interface.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) socket: UdpSocket,
    /// For clients that have no address yet. Without it they hear a broadcast.
    frames: Option<FrameSocket>,
    port: u16,
}

impl Transport {
    /// Takes a bound socket over.
    pub(super) fn new(socket: StdUdpSocket, interface: &str) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let frames = FrameSocket::open(interface)
            .inspect_err(
                |error| debug!(iface = interface, %error, "no raw frames, broadcasts instead"),
            )
            .ok();
        let port = socket.local_addr()?.port();
        Ok(Self { socket, frames, port })
    }

    /// Sends a reply. What cannot be sent is told in the log; its client asks again. Waits for a moment at most, when a
    /// network is slower than we are.
    pub(super) fn send(&self, reply: &Reply) {
        COUNTS.reply(reply.kind, self.try_send(reply));
    }

    /// Returns whether it is sent.
    fn try_send(&self, reply: &Reply) -> bool {
        let bytes = match reply.encode() {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(mac = %reply.mac, %error, "no DHCP reply");
                return false;
            }
        };
        if let (Some(frames), Some(to)) = (&self.frames, alone(reply)) {
            let from = SocketAddrV4::new(reply.from, self.port);
            match frames.send(reply.mac, from, to, &bytes) {
                Ok(()) => return true,
                Err(error) => debug!(mac = %reply.mac, %error, "no raw frame, a broadcast instead"),
            }
        }
        let sent = self.send_from(&bytes, reply);
        if let Err(error) = &sent {
            warn!(mac = %reply.mac, peer = %reply.to, %error, "could not send a DHCP reply");
        }
        sent.is_ok()
    }
}

/// How often and after what time a full send queue is tried again.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(1);

impl Transport {
    fn send_from(&self, bytes: &[u8], reply: &Reply) -> io::Result<()> {
        for _ in 0..TRIES {
            match try_send_from(&self.socket, bytes, reply.to, reply.from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(WAIT),
                sent => return sent,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Returns where a reply goes whose client wants no broadcast, and answers no ARP yet: to the address that it is
/// given, in a frame to its hardware address (RFC 2131 §4.1).
fn alone(reply: &Reply) -> Option<SocketAddrV4> {
    let everyone = *reply.to.ip() == Ipv4Addr::BROADCAST;
    let wants_broadcast = reply.flags & 0x8000 != 0;
    let has_address = !reply.yiaddr.is_unspecified();
    (everyone && !wants_broadcast && has_address && reply.kind != ReplyKind::Nak)
        .then(|| SocketAddrV4::new(reply.yiaddr, reply.to.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_can_hear_it_is_answered_alone() {
        let offer = Reply {
            yiaddr: [10, 0, 0, 9].into(),
            to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
            ..Reply::empty(ReplyKind::Offer)
        };
        assert_eq!(alone(&offer), "10.0.0.9:68".parse().ok());
        assert_eq!(alone(&Reply { flags: 0x8000, ..offer.clone() }), None);
        assert_eq!(alone(&Reply { yiaddr: Ipv4Addr::UNSPECIFIED, ..offer.clone() }), None);
        assert_eq!(alone(&Reply { kind: ReplyKind::Nak, ..offer.clone() }), None);
        assert_eq!(alone(&Reply { to: "10.0.0.8:67".parse().unwrap(), ..offer }), None);
    }
}
