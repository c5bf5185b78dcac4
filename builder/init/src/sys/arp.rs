//! ARP packets as they are on the wire (`packet(7)`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};

/// A socket for ARP on one interface.
#[derive(Debug)]
pub(crate) struct ArpSocket {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl ArpSocket {
    pub(crate) fn open(index: u32) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol it hears nothing until it is bound to the interface.
        let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, None)?;
        // SAFETY: `sockaddr_ll` is a plain C structure for which all zeroes are valid values.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_protocol = u16::try_from(libc::ETH_P_ARP).unwrap_or_default().to_be();
        address.sll_ifindex = i32::try_from(index).map_err(|_| Errno::EINVAL)?;
        address.sll_halen = 6;
        address.sll_addr = [0xff; 8];
        // SAFETY: the pointer is to a whole `sockaddr_ll`, of which the length is given.
        let result = unsafe {
            libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length())
        };
        Errno::result(result)?;
        Ok(Self { socket, address })
    }

    /// Sends a packet to everyone.
    pub(crate) fn broadcast(&self, packet: &[u8]) -> nix::Result<()> {
        // SAFETY: packet and address live through the call, and their lengths are given.
        let result = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                std::ptr::from_ref(&self.address).cast(),
                length(),
            )
        };
        Errno::result(result).map(|_| ())
    }

    /// Returns the length of the next packet that came in.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
    }
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn length() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_refused() {
        // Without the right to it the first step fails already.
        let error = ArpSocket::open(u32::MAX >> 1).unwrap_err();
        assert!(matches!(error, Errno::EPERM | Errno::ENODEV | Errno::EAFNOSUPPORT), "{error}");
        assert!(ArpSocket::open(u32::MAX).is_err());
    }
}
