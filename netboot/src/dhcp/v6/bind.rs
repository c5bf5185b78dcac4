use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::bind::{ROOM, make_room};

/// All servers and relays of a link, and all servers of a site (RFC 8415 §7.1).
const SERVERS_AND_RELAYS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

/// The port of DHCPv6 could not be opened on an interface.
#[derive(Debug, thiserror::Error)]
pub enum Bind6Error {
    /// Another program has the port.
    #[error(
        "UDP port 547 on {interface} is in use; is there another DHCPv6 server on this host? \
         `ss -lunp sport = :547` shows it"
    )]
    InUse {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process may not do it.
    #[error(
        "no permission for UDP port 547 on {interface}; run as root or with CAP_NET_BIND_SERVICE and CAP_NET_RAW"
    )]
    Permission {
        /// The interface.
        interface: String,
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
    /// The kernel does no IPv6, or not on this interface.
    #[error(
        "{interface} has no IPv6; see /proc/sys/net/ipv6/conf/{interface}/disable_ipv6, or remove its [[subnet6]]"
    )]
    NoIpv6 {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("could not open UDP port 547 on {interface}")]
    Open {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Opens UDP port 547 on one interface, for what is sent to all servers too. As for IPv4, the port is not shared.
///
/// # Errors
///
/// Returns an error that says what to do, for each of the usual reasons.
pub fn bind(interface: &str) -> Result<UdpSocket, Bind6Error> {
    bind_port(interface, 547)
}

fn bind_port(interface: &str, port: u16) -> Result<UdpSocket, Bind6Error> {
    let failed = |source: io::Error| {
        let interface = interface.to_owned();
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::AddrInUse, _) => Bind6Error::InUse { interface, source },
            (io::ErrorKind::PermissionDenied, _) => Bind6Error::Permission { interface, source },
            (_, Some(nix::libc::ENODEV | nix::libc::ENXIO)) => {
                Bind6Error::NoInterface { interface, source }
            }
            (_, Some(nix::libc::EAFNOSUPPORT)) => Bind6Error::NoIpv6 { interface, source },
            _ => Bind6Error::Open { interface, source },
        }
    };
    let open = || {
        let index = if_nametoindex(interface)?;
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_nonblocking(true)?;
        make_room(&socket, ROOM)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into())?;
        Ok((socket, index))
    };
    let (socket, index) = open().map_err(failed)?;
    for group in [SERVERS_AND_RELAYS, SERVERS] {
        socket.join_multicast_v6(&group, index).map_err(|source| match source.raw_os_error() {
            Some(nix::libc::ENODEV | nix::libc::EINVAL) => {
                Bind6Error::NoIpv6 { interface: interface.to_owned(), source }
            }
            _ => failed(source),
        })?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_and_a_missing_interface_are_named() {
        let first = bind_port("lo", 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind_port("lo", port).unwrap_err().to_string();
        assert!(error.contains("is in use") && error.contains("ss -lunp"), "{error}");
        let error = bind_port("no-such-0", 0).unwrap_err().to_string();
        assert!(error.starts_with("there is no interface `no-such-0`"), "{error}");
    }
}
