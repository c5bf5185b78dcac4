//! Network interfaces, by `ioctl`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A socket over which IPv4 interfaces are set.
pub(crate) struct InterfaceControl(OwnedFd);

impl InterfaceControl {
    pub(crate) fn open() -> nix::Result<Self> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map(Self)
    }

    /// Switches an interface on.
    pub(crate) fn set_up(&self, interface: &str) -> nix::Result<()> {
        let mut request = request_for(interface)?;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call above succeeded, and it fills the `ifru_flags` member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = i16::try_from(libc::IFF_UP).unwrap_or_default();
        request.ifr_ifru.ifru_flags = flags | up;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Gives an interface its address and network mask.
    pub(crate) fn set_address(
        &self,
        interface: &str,
        address: Ipv4Addr,
        mask: Ipv4Addr,
    ) -> nix::Result<()> {
        let mut request = request_for(interface)?;
        request.ifr_ifru.ifru_addr = generic_address(address);
        self.call(libc::SIOCSIFADDR, &mut request)?;
        request.ifr_ifru.ifru_netmask = generic_address(mask);
        self.call(libc::SIOCSIFNETMASK, &mut request)
    }

    /// Sends everything that has no nearer way through `router`. That the route is there already is
    /// no fault.
    pub(crate) fn set_default_route(&self, router: Ipv4Addr) -> nix::Result<()> {
        // SAFETY: `rtentry` is a plain C structure of integers, addresses and a pointer, for which
        // all zeroes are valid values.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = generic_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = generic_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = generic_address(router);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: the descriptor is open as long as `self`, and the kernel reads one `rtentry`.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCADDRT as _, &route) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn call(&self, operation: impl TryInto<u64>, request: &mut libc::ifreq) -> nix::Result<()> {
        let operation = operation.try_into().map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open as long as `self`; every operation of this module takes a
        // pointer to one `ifreq`, which lives through the call.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), operation as _, std::ptr::from_mut(request)) };
        Errno::result(result).map(|_| ())
    }
}

fn request_for(interface: &str) -> nix::Result<libc::ifreq> {
    // SAFETY: `ifreq` is a plain C structure for which all zeroes are valid values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: the kernel wants a terminated name.
    if interface.is_empty() || interface.len() >= request.ifr_name.len() {
        return Err(Errno::EINVAL);
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

fn generic_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: `sockaddr` is a plain C structure for which all zeroes are valid values.
    let mut generic: libc::sockaddr = unsafe { std::mem::zeroed() };
    generic.sa_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    // In a `sockaddr_in` the port takes the first two bytes of the data, the address the next four.
    for (place, byte) in generic.sa_data.iter_mut().skip(2).zip(address.octets()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    generic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_that_is_too_long_is_refused() {
        assert!(request_for("a-name-with-16-b").is_err());
        assert!(request_for("").is_err());
        assert!(request_for("a-name-with-15b").is_ok());
    }

    #[test]
    fn loopback_can_be_asked_for_its_flags() {
        let control = InterfaceControl::open().unwrap();
        let mut request = request_for("lo").unwrap();
        control.call(libc::SIOCGIFFLAGS, &mut request).unwrap();
    }
}
