//! Addresses on an interface for as long as they are needed (rtnetlink).

use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

/// Gives an interface addresses. They are taken away again when this value is dropped.
#[derive(Debug)]
pub struct Addresses {
    index: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: Socket,
    given: Vec<Ipv4Addr>,
}

impl Addresses {
    /// Finds the interface.
    ///
    /// # Errors
    ///
    /// When there is none of this name, or the kernel cannot be asked.
    pub fn on(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let socket =
            Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(0)))?;
        Ok(Self { index, inner: Mutex::new(Inner { socket, given: Vec::new() }) })
    }

    /// Adds one, of which nobody else is said to be near. One that is there already stays.
    ///
    /// # Errors
    ///
    /// What the kernel says, such as a missing `CAP_NET_ADMIN`.
    pub fn add(&self, address: Ipv4Addr) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match ask(&inner.socket, self.index, libc::RTM_NEWADDR, address) {
            Ok(()) => {
                inner.given.push(address);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for address in inner.given.drain(..) {
            // It may be gone with its interface.
            let _ = ask(&inner.socket, self.index, libc::RTM_DELADDR, address);
        }
    }
}

/// Sends one message and reads what the kernel says to it.
fn ask(mut socket: &Socket, index: u32, kind: u16, address: Ipv4Addr) -> io::Result<()> {
    socket.send(&message(index, kind, address))?;
    let mut answer = [0; 256];
    let length = socket.read(&mut answer)?;
    // A header of 16 bytes, and in an acknowledgement the number of the error, negative, or 0.
    let code = answer.get(..length).and_then(|said| said.get(16..)?.first_chunk());
    match code.copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Returns a request to add or remove an address (rtnetlink(7)).
fn message(index: u32, kind: u16, address: Ipv4Addr) -> Vec<u8> {
    const LENGTH: u32 = 40;
    // A request with an acknowledgement, and to make only what is not there: NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE,
    // NLM_F_EXCL. With a removal the last two mean other things.
    let flags: u16 = if kind == libc::RTM_NEWADDR { 0x0605 } else { 0x0005 };
    let mut bytes = Vec::with_capacity(40);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    // IPv4, a prefix of 32 bits, no flags, seen from everywhere.
    bytes.extend([2, 32, 0, 0]);
    bytes.extend(index.to_ne_bytes());
    for attribute in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        bytes.extend(8_u16.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(address.octets());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_says_and_a_missing_interface_is_told() {
        let bytes = message(3, libc::RTM_NEWADDR, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(bytes[..4], 40_u32.to_ne_bytes());
        assert_eq!((bytes.len(), &bytes[36..]), (40, &[10, 0, 0, 9][..]));
        assert_eq!(bytes[6..8], 0x0605_u16.to_ne_bytes());
        let bytes = message(3, libc::RTM_DELADDR, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(bytes[6..8], 0x0005_u16.to_ne_bytes());
        assert!(Addresses::on("no-such-0").is_err());
    }
}
