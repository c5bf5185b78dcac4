use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// The port of DHCP could not be opened on an interface.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "UDP port {port} on {interface} is in use; is there another DHCP server on this host? \
         `ss -lunp sport = :{port}` shows it"
    )]
    InUse {
        /// The interface.
        interface: String,
        /// The port.
        port: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process may not do it.
    #[error("no permission for UDP port {port} on {interface}; run as root or with {capability}")]
    Permission {
        /// The interface.
        interface: String,
        /// The port.
        port: u16,
        /// What is missing.
        capability: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface `{interface}`; `ip -brief link` lists them")]
    NoInterface {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("could not open UDP port {port} on {interface}")]
    Open {
        /// The interface.
        interface: String,
        /// The port.
        port: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Opens UDP port 67 on one interface, for broadcasts too.
///
/// The port is not shared: `SO_REUSEADDR` would let a second DHCP server start on the interface without a word,
/// and half of the machines would get its answers.
///
/// # Errors
///
/// Returns an error that says what to do, for each of the usual reasons.
pub fn bind(interface: &str) -> Result<UdpSocket, BindError> {
    bind_port(interface, 67)
}

/// Opens UDP port 4011 on one interface, where clients ask that another server has given an address.
///
/// # Errors
///
/// As [`bind`].
pub fn bind_boot_server(interface: &str) -> Result<UdpSocket, BindError> {
    bind_port(interface, 4011)
}

fn bind_port(interface: &str, port: u16) -> Result<UdpSocket, BindError> {
    let failed = |capability| {
        move |source: io::Error| {
            let interface = interface.to_owned();
            match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse { interface, port, source },
                io::ErrorKind::PermissionDenied => {
                    BindError::Permission { interface, port, capability, source }
                }
                _ if source.raw_os_error() == Some(nix::libc::ENODEV) => {
                    BindError::NoInterface { interface, source }
                }
                _ => BindError::Open { interface, port, source },
            }
        }
    };
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        make_room(&socket, ROOM)?;
        Ok(socket)
    };
    let socket = open().map_err(failed("CAP_NET_BIND_SERVICE"))?;
    socket.bind_device(Some(interface.as_bytes())).map_err(failed("CAP_NET_RAW"))?;
    socket
        .bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
        .map_err(failed("CAP_NET_BIND_SERVICE"))?;
    Ok(socket.into())
}

/// Room for the packets of a rack that is switched on, which asks all at once: 4 MiB hold some 5000.
pub(super) const ROOM: usize = 4 << 20;

/// Lets so many bytes wait in a socket while we are busy. More than `net.core.rmem_max` only where we may do so
/// (`CAP_NET_ADMIN`).
pub(crate) fn make_room(socket: &Socket, bytes: usize) -> io::Result<()> {
    match setsockopt(socket, sockopt::RcvBufForce, &bytes) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_and_a_missing_interface_are_named() {
        let Ok(first) = bind_port("lo", 0) else {
            panic!("a socket on the loopback interface needs no rights since Linux 5.7");
        };
        let port = first.local_addr().unwrap().port();
        let error = bind_port("lo", port).unwrap_err().to_string();
        assert!(error.contains("is in use") && error.contains("ss -lunp"), "{error}");
        let error = bind_port("no-such-0", 0).unwrap_err().to_string();
        assert!(error.starts_with("there is no interface `no-such-0`"), "{error}");
    }
}
