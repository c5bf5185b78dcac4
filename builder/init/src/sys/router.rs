//! A socket that hears what IPv6 routers announce.

use std::io::IoSliceMut;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6,
    recvmsg, sendto, setsockopt, socket, sockopt,
};

/// `ICMPV6_FILTER` of linux/icmpv6.h.
const FILTER: libc::c_int = 1;
const ADVERTISEMENT: usize = 134;
/// What no router has forwarded still has all its hops (RFC 4861 §6.1.2).
const ALL_HOPS: libc::c_int = 255;

/// Hears routers of one link.
#[derive(Debug)]
pub(crate) struct RouterSocket(OwnedFd);

impl RouterSocket {
    pub(crate) fn open(interface: &str) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        // A set bit keeps a kind of message out.
        let mut filter = [u32::MAX; 8];
        if let Some(word) = filter.get_mut(ADVERTISEMENT / 32) {
            *word &= !(1 << (ADVERTISEMENT % 32));
        }
        set(&socket, libc::IPPROTO_ICMPV6, FILTER, &filter)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &ALL_HOPS)?;
        Ok(Self(socket))
    }

    /// Sends a message to all routers of the link.
    pub(crate) fn send(&self, message: &[u8], index: u32) -> nix::Result<()> {
        let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let to = SockaddrIn6::from(SocketAddrV6::new(routers, 0, 0, index));
        sendto(self.0.as_raw_fd(), message, &to, MsgFlags::MSG_DONTWAIT).map(|_| ())
    }

    /// Returns the next message that a router of this very link has sent; an empty one when it was from elsewhere.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> nix::Result<&'a [u8]> {
        let mut space = nix::cmsg_space!(libc::c_int);
        let (length, is_near) = {
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrIn6>(
                self.0.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let from = message.address.is_some_and(|from| from.ip().is_unicast_link_local());
            let mut control = message.cmsgs()?;
            let near =
                control.any(|part| matches!(part, ControlMessageOwned::Ipv6HopLimit(ALL_HOPS)));
            (message.bytes, from && near)
        };
        Ok(buffer.get(..length).filter(|_| is_near).unwrap_or_default())
    }
}

impl AsFd for RouterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open; the value is plain data that lives through the call, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    Errno::result(result).map(|_| ())
}
