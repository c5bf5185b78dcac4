//! What the DHCP clients of both versions of IP do with their sockets.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

/// So much at once, then others have their turn.
pub(super) const MOST_PACKETS: usize = 16;

/// Opens a socket of an interface that is not bound to a port yet. The interface comes before the address: the same
/// port on another interface is another one.
pub(super) fn open(family: AddressFamily, name: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    Ok(socket)
}

/// Sends a packet by a socket that is opened when it is not there, and is gone when it cannot send.
pub(super) fn send(
    slot: &mut Option<UdpSocket>,
    open: impl FnOnce() -> io::Result<UdpSocket>,
    packet: &[u8],
    to: SocketAddr,
) -> io::Result<()> {
    let socket = match slot.take() {
        Some(socket) => socket,
        None => open()?,
    };
    socket.send_to(packet, to)?;
    *slot = Some(socket);
    Ok(())
}

/// Returns the first packet that waits at the socket and is understood.
pub(super) fn receive<T>(
    socket: Option<&UdpSocket>,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut buffer = [0; 1500];
    for _ in 0..MOST_PACKETS {
        let length = socket?.recv(&mut buffer).ok()?;
        let answer = read(buffer.get(..length).unwrap_or_default());
        if answer.is_some() {
            return answer;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_opened_once_and_what_is_not_understood_is_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let to = server.local_addr().unwrap();
        let (mut slot, mut opened) = (None, 0);
        for packet in [b"noise", b"seven"] {
            let open = || {
                opened += 1;
                UdpSocket::bind("127.0.0.1:0")
            };
            send(&mut slot, open, packet, to).unwrap();
        }
        assert_eq!(opened, 1);
        let read = |packet: &[u8]| (packet == b"seven").then_some(7);
        assert_eq!(receive(Some(&server), read), Some(7));
        assert_eq!(receive(Some(&server), read), None);
        assert_eq!(receive(None, read), None);
    }
}
