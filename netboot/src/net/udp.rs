use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

/// Sends a datagram with one of our addresses as its source, on an interface that may have several. Does not wait.
///
/// # Errors
///
/// Returns what the kernel says, such as an interface that is down.
pub fn try_send_from(
    socket: &impl std::os::fd::AsFd,
    bytes: &[u8],
    to: SocketAddrV4,
    from: Ipv4Addr,
) -> io::Result<()> {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let sent = sendmsg(
        socket.as_fd().as_raw_fd(),
        &[io::IoSlice::new(bytes)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::MSG_DONTWAIT,
        Some(&SockaddrIn::from(to)),
    );
    sent.map(drop).map_err(io::Error::from)
}
