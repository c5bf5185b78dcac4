//! Datagrams in link-layer frames of our own making, for clients that have no address yet.

use std::io;
use std::net::SocketAddrV4;

use kiln_types::Mac;
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// `AF_PACKET` and `ETH_P_IP`, in the width that an address has them.
pub(super) const PACKET: u16 = 17;
const IPV4: u16 = 0x0800;
/// Length of the IPv4 and UDP headers.
const HEADERS: usize = 28;

/// Sends UDP over IPv4 to a hardware address, without asking who has the address.
#[derive(Debug)]
pub struct FrameSocket {
    socket: Socket,
    index: i32,
}

impl FrameSocket {
    /// Opens one that sends on an interface and receives nothing.
    ///
    /// # Errors
    ///
    /// Without the capability `CAP_NET_RAW`, or when there is no such interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let index = i32::try_from(index).map_err(io::Error::other)?;
        // Protocol 0: the kernel hands it no packets.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, index })
    }

    /// Sends one datagram.
    ///
    /// # Errors
    ///
    /// When it is longer than IP can carry, or what the kernel says.
    pub fn send(
        &self,
        mac: Mac,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> io::Result<()> {
        let packet = packet(from, to, payload).ok_or(io::ErrorKind::InvalidInput)?;
        self.send_frame(mac, IPV4, &packet)
    }

    /// Sends what another protocol has made of it, by its EtherType.
    ///
    /// # Errors
    ///
    /// When it is longer than the link can carry, or what the kernel says.
    pub fn send_frame(&self, mac: Mac, protocol: u16, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, &link_address(self.index, mac, protocol)).map(drop)
    }
}

/// Returns the address of a host on the link: interface, protocol and hardware address.
pub(super) fn link_address(index: i32, mac: Mac, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the forms that a `sockaddr_storage` can have, and plain numbers throughout.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = PACKET;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index;
    address.sll_halen = 6;
    if let Some(field) = address.sll_addr.first_chunk_mut() {
        *field = mac.octets();
    }
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: the first `length` bytes of the storage are a whole `sockaddr_ll`, set above.
    unsafe { SockAddr::new(storage, length) }
}

/// Returns a datagram with its IPv4 (RFC 791) and UDP (RFC 768) headers, or nothing when it is too long.
fn packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(payload.len().checked_add(HEADERS)?).ok()?;
    let datagram = total - 20;
    let mut packet = Vec::with_capacity(total.into());
    // Version 4, five words; not to be fragmented, since firmware puts nothing together again; 64 hops; UDP.
    packet.extend([0x45, 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let header = checksum(&[&packet]);
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&header.to_be_bytes());
    }
    let mut udp = Vec::with_capacity(8);
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(datagram.to_be_bytes());
    let pseudo = [from.ip().octets(), to.ip().octets()].concat();
    let [high, low] = datagram.to_be_bytes();
    let sum = match checksum(&[&pseudo, &[0, 17, high, low], &udp, &[0, 0], payload]) {
        // Zero would say that there is none.
        0 => 0xffff,
        sum => sum,
    };
    udp.extend(sum.to_be_bytes());
    packet.extend(udp);
    packet.extend(payload);
    Some(packet)
}

/// Returns the Internet checksum (RFC 1071). Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let (high, low) = (pair.first().copied(), pair.get(1).copied());
            sum += u32::from(u16::from_be_bytes([high.unwrap_or(0), low.unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_check_out_and_say_how_long_the_datagram_is() {
        let from = "10.0.0.1:67".parse().unwrap();
        let to = "10.0.0.9:68".parse().unwrap();
        let packet = packet(from, to, b"odd").unwrap();
        assert_eq!(packet.len(), 31);
        assert_eq!(checksum(&[&packet[..20]]), 0, "the header and its sum make nothing");
        assert_eq!(packet[2..4], [0, 31]);
        assert_eq!(packet[20..26], [0, 67, 0, 68, 0, 11]);
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 9, 0, 17, 0, 11];
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
    }

    #[test]
    fn what_ip_cannot_carry_is_not_made() {
        let at = "10.0.0.1:67".parse().unwrap();
        assert!(packet(at, at, &vec![0; 65507]).is_some());
        assert!(packet(at, at, &vec![0; 65508]).is_none());
    }

    #[test]
    fn an_interface_that_is_not_there_is_told() {
        assert!(FrameSocket::open("no-such-0").is_err());
    }
}
