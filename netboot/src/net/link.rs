//! Interfaces as the kernel describes them to this process. `/sys/class/net` would show those of another namespace.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Socket, Type};

nix::ioctl_read_bad!(
    /// Reads the MTU of the interface that the structure names.
    get_mtu,
    libc::SIOCGIFMTU,
    libc::ifreq
);

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether there is another end.
    pub carrier: bool,
    /// The longest packet that it sends.
    pub mtu: u32,
    /// Its IPv4 addresses, each with the length of its prefix.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Its IPv6 addresses, each with the length of its prefix.
    pub addresses6: Vec<(Ipv6Addr, u8)>,
}

/// Returns every interface, the loopback included.
///
/// # Errors
///
/// What the kernel says.
pub fn links() -> io::Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let name = entry.interface_name;
        let at = links.iter().position(|link| link.name == name).unwrap_or_else(|| {
            links.push(Link {
                up: entry.flags.contains(InterfaceFlags::IFF_UP),
                carrier: entry.flags.contains(InterfaceFlags::IFF_RUNNING),
                mtu: mtu(&name).unwrap_or(0),
                name,
                addresses: Vec::new(),
                addresses6: Vec::new(),
            });
            links.len() - 1
        });
        let ip = |address: &SockaddrStorage| Some(address.as_sockaddr_in()?.ip());
        let (address, mask) =
            (entry.address.as_ref().and_then(ip), entry.netmask.as_ref().and_then(ip));
        if let (Some(address), Some(mask), Some(link)) = (address, mask, links.get_mut(at)) {
            let prefix = u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32);
            link.addresses.push((address, prefix));
        }
        let ip = |address: &SockaddrStorage| Some(address.as_sockaddr_in6()?.ip());
        let (address, mask) =
            (entry.address.as_ref().and_then(ip), entry.netmask.as_ref().and_then(ip));
        if let (Some(address), Some(mask), Some(link)) = (address, mask, links.get_mut(at)) {
            let prefix = u8::try_from(mask.to_bits().leading_ones()).unwrap_or(128);
            link.addresses6.push((address, prefix));
        }
    }
    Ok(links)
}

/// Returns the longest packet that an interface sends, or nothing when there is no such interface.
pub fn mtu(interface: &str) -> Option<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays 0.
    for (to, from) in name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    if interface.len() >= libc::IFNAMSIZ {
        return None;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 };
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru };
    // SAFETY: the descriptor is open, and the structure is a whole `ifreq` with a name that ends with 0, which the kernel
    // reads and writes during the call only.
    unsafe { get_mtu(socket.as_raw_fd(), &raw mut request) }.ok()?;
    // SAFETY: the call has succeeded, so that the kernel has written this field, a plain number.
    u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_with_its_mtu() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.mtu > 1500, "{lo:?}");
        assert_eq!(mtu("no-such-0"), None);
        assert_eq!(mtu("a-name-that-is-far-too-long"), None);
    }
}
