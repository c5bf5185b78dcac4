//! Frames of switches, by a packet socket (`packet(7)`), and the address a card was made with, by `ethtool`.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;

/// Where switches send what they say of themselves, and the type of those frames.
const NEAREST_BRIDGE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
const ETHERTYPE: u16 = 0x88cc;
/// `ETHTOOL_GPERMADDR` of linux/ethtool.h.
const PERMANENT_ADDRESS: u32 = 0x20;

/// A socket that gets the frames of LLDP and no others.
pub(crate) struct LldpSocket(OwnedFd);

impl LldpSocket {
    /// Listens on the interfaces of these numbers.
    pub(crate) fn open(interfaces: impl Iterator<Item = i32>) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: the call takes no pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(ETHERTYPE.to_be())) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened a moment ago, and nobody else has it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(socket) });
        for interface in interfaces {
            // SAFETY: `packet_mreq` is a plain C structure for which all zeroes are valid values.
            let mut group: libc::packet_mreq = unsafe { zeroed() };
            group.mr_ifindex = interface;
            group.mr_type = u16::try_from(libc::PACKET_MR_MULTICAST).unwrap_or_default();
            group.mr_alen = 6;
            for (place, byte) in group.mr_address.iter_mut().zip(NEAREST_BRIDGE) {
                *place = byte;
            }
            socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &group)?;
        }
        Ok(socket)
    }

    /// Waits so long for a frame. Returns the number of the interface it came in by, and its length.
    pub(crate) fn receive(&self, frame: &mut [u8], patience: Duration) -> io::Result<(i32, usize)> {
        let time = libc::timeval {
            tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(1),
            // Zero would be for ever.
            tv_usec: libc::suseconds_t::from(patience.subsec_micros().max(1)),
        };
        self.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)?;
        // SAFETY: `sockaddr_ll` is a plain C structure for which all zeroes are valid values.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: the kernel writes at most `frame.len()` bytes to the frame and at most `length` to the address; both
        // live through the call.
        let count = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_mut(&mut from).cast(),
                &raw mut length,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok((from.sll_ifindex, count)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the kernel reads `length` bytes of a value of this size, which lives through the call.
        let result = unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, value, length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// `struct ethtool_perm_addr` of linux/ethtool.h, with room for an address.
#[repr(C)]
struct PermanentAddress {
    command: u32,
    size: u32,
    data: [u8; 32],
}

/// Asks the driver of an interface for the hardware address that the card was made with. Many virtual cards have none.
pub(crate) fn permanent_address(interface: &str) -> Option<String> {
    // SAFETY: the call takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return None;
    }
    // SAFETY: the descriptor was opened a moment ago, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `ifreq` is a plain C structure for which all zeroes are valid values.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // The last byte stays zero: the kernel wants a terminated name.
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    let mut answer = PermanentAddress { command: PERMANENT_ADDRESS, size: 32, data: [0; 32] };
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut answer).cast();
    // SAFETY: the kernel reads the request, and writes at most the 32 bytes of data that `size` tells it of; both live
    // through the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    let data = answer.data.get(..usize::try_from(answer.size).ok()?)?;
    if result != 0 || data.len() != 6 || data.iter().all(|byte| *byte == 0) {
        return None;
    }
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let parts: Vec<String> =
        data.iter().map(|byte| [digit(byte >> 4), digit(byte & 15)].iter().collect()).collect();
    Some(parts.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_was_not_made_with_an_address() {
        assert_eq!(permanent_address("lo"), None);
        assert_eq!(permanent_address("a-name-that-is-too-long"), None);
    }
}
