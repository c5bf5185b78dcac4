//! Who uses an address? Asked by ARP (RFC 826), as a host does before it takes one (RFC 5227).

use std::io::{self, Read as _};
use std::net::Ipv4Addr;

use kiln_types::Mac;
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frame::{PACKET, link_address};

/// `ETH_P_ARP`.
const ARP: u16 = 0x0806;
/// Length of a message for IPv4 over Ethernet.
const LENGTH: usize = 28;

/// Sends and hears ARP on one interface, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct ArpSocket {
    socket: AsyncFd<Socket>,
    index: i32,
    mac: Mac,
}

/// A host that told which address it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it.
    pub mac: Mac,
}

impl ArpSocket {
    /// Opens one. Needs a runtime.
    ///
    /// # Errors
    ///
    /// Without the capability `CAP_NET_RAW`, or when there is no such interface or it has no hardware address.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let index = i32::try_from(index).map_err(io::Error::other)?;
        // Bound before it hears anything, so that nothing of other interfaces is in its queue.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(index, Mac::new([0; 6]), ARP))?;
        let mac = own(&socket.local_addr()?).ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a `Socket` has one descriptor, which stays the same and open until it is dropped, here by the `AsyncFd`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, index, mac })
    }

    /// Asks who has an address, without an address of our own, so that nobody learns anything wrong from it.
    ///
    /// # Errors
    ///
    /// Returns what the kernel says, such as an interface that is down.
    pub fn ask(&self, address: Ipv4Addr) -> io::Result<()> {
        let to = link_address(self.index, Mac::new([0xff; 6]), ARP);
        self.socket.get_ref().send_to(&question(self.mac, address), &to).map(drop)
    }

    /// Waits for a host that tells which address it has, in an answer or on its own.
    ///
    /// # Errors
    ///
    /// Returns what the kernel says, such as an interface that went down.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken from the queue only when it is returned or means nothing.
    pub async fn heard(&self) -> io::Result<Heard> {
        let mut buffer = [0; 64];
        loop {
            let length = self
                .socket
                .async_io(Interest::READABLE, |mut socket| socket.read(&mut buffer))
                .await?;
            let told = buffer.get(..length).and_then(read);
            if let Some(told) = told.filter(|told| told.mac != self.mac) {
                return Ok(told);
            }
        }
    }
}

/// Returns the hardware address of the interface that a socket is bound to.
fn own(address: &SockAddr) -> Option<Mac> {
    if usize::try_from(address.len()).ok()? < size_of::<libc::sockaddr_ll>() - 2
        || address.family() != PACKET
    {
        return None;
    }
    // SAFETY: the storage behind a `SockAddr` has room for every kind of address, is set to zero where nothing was
    // written, and the family says that this one is a `sockaddr_ll`, which is plain numbers throughout.
    let link = unsafe { &*address.as_ptr().cast::<libc::sockaddr_ll>() };
    if link.sll_halen != 6 {
        return None;
    }
    link.sll_addr.first_chunk().copied().map(Mac::new)
}

/// Returns a question for an address by a host that has none.
fn question(mac: Mac, address: Ipv4Addr) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    message[8..14].copy_from_slice(&mac.octets());
    message[24..28].copy_from_slice(&address.octets());
    message
}

/// Reads who has which address from a message, if it tells.
fn read(message: &[u8]) -> Option<Heard> {
    let message: &[u8; LENGTH] = message.first_chunk()?;
    let [0, 1, 8, 0, 6, 4, 0, 1 | 2, a, b, c, d, e, f, w, x, y, z, ..] = *message else {
        return None;
    };
    let address = Ipv4Addr::new(w, x, y, z);
    let mac = Mac::new([a, b, c, d, e, f]);
    (!address.is_unspecified()).then_some(Heard { address, mac })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_claims_nothing_and_an_answer_tells_who_has_what() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let mut message = question(mac, [10, 0, 0, 9].into());
        assert_eq!(read(&message), None);
        message[7] = 2;
        message[14..18].copy_from_slice(&[10, 0, 0, 9]);
        assert_eq!(read(&message), Some(Heard { address: [10, 0, 0, 9].into(), mac }));
        assert_eq!(read(&message[..27]), None);
        for (at, byte) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3)] {
            let mut bad = message;
            bad[at] = byte;
            assert_eq!(read(&bad), None, "{at}");
        }
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_told() {
        assert!(ArpSocket::open("no-such-0").is_err());
    }
}
