//! Why the server does not start.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use kiln_builder::trust::TrustError;
use kiln_inventory::Database;

use crate::loaders::LoadersError;
use crate::secrets::RingError;
use crate::tls::TlsError;
use crate::view::ViewError;
use crate::{dhcp, router};

/// The server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The leases of the server before cannot be read, or new ones not be kept.
    #[error("the leases cannot be kept")]
    Journal(#[source] dhcp::journal::JournalError),
    /// A folder cannot be made.
    #[error("cannot make the folder {}", .0.display())]
    MakeDir(PathBuf, #[source] io::Error),
    /// Another server uses the same data.
    #[error("another `kiln serve` uses {}; stop it, or give this one its own data-dir", .0.display())]
    Locked(PathBuf),
    /// The lock of the data cannot be taken.
    #[error("cannot lock {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    /// The inventory cannot be opened.
    #[error("cannot open the inventory {0}")]
    OpenInventory(Database, #[source] kiln_inventory::StoreError),
    /// The inventory cannot be reached, and nothing is known of what is in it.
    #[error(
        "the inventory {database} is away, and {why}, so that there is nothing to start with; start the server of the \
         database first, or correct `[inventory] database`"
    )]
    NothingKnown {
        /// Which one.
        database: Database,
        /// Why nothing is known.
        why: String,
        /// Why it cannot be reached.
        source: Box<kiln_inventory::StoreError>,
    },
    /// The artifact store cannot be opened.
    #[error("cannot open the artifact store {}", .0.display())]
    OpenArtifacts(PathBuf, #[source] kiln_builder::store::StoreError),
    /// Machines and images cannot be read.
    #[error("cannot read what to serve")]
    LoadView(#[source] ViewError),
    /// The key that builds are signed with cannot be made or read.
    #[error("no key to sign builds with")]
    Key(#[source] TrustError),
    /// The keys of secrets cannot be read.
    #[error("the secrets of machines cannot be opened")]
    Secrets(#[source] RingError),
    /// The loaders cannot be had.
    #[error("no loaders to serve")]
    Loaders(#[source] LoadersError),
    /// HTTPS cannot be served.
    #[error("cannot serve HTTPS")]
    Tls(#[source] TlsError),
    /// A port is taken.
    #[error(
        "{what} port {address} is in use; find the other program with `ss -lpn`, or set another [{what}] port"
    )]
    InUse {
        /// `http` or `tftp`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// A port below 1024 is not allowed.
    #[error(
        "not allowed to open {what} port {address}; run as root or give the program CAP_NET_BIND_SERVICE"
    )]
    NotAllowed {
        /// `http` or `tftp`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error(
        "no interface has the address {address}; add it (`ip address add {address}/{prefix} dev {interface}`) or correct [[subnet]] address"
    )]
    NoAddress {
        /// The address.
        address: IpAddr,
        /// Length of the prefix of its subnet.
        prefix: u8,
        /// Interface of its subnet.
        interface: String,
    },
    /// A port cannot be opened for another reason.
    #[error("cannot open {what} port {address}")]
    Bind {
        /// `http` or `tftp`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The DHCP port cannot be opened.
    #[error("cannot serve DHCP")]
    Dhcp(#[source] dhcp::BindError),
    /// The port of DHCPv6 cannot be opened.
    #[error("cannot serve DHCPv6")]
    Dhcp6(#[source] dhcp::v6::Bind6Error),
    /// What we call ourselves by DHCPv6 cannot be read or kept.
    #[error("cannot keep the name of this server for DHCPv6 in {}", .0.display())]
    ServerId(PathBuf, #[source] io::Error),
    /// Router advertisements cannot be sent.
    #[error("cannot advertise IPv6")]
    Router(#[source] router::RouterError),
    /// A subnet cannot be served as the settings describe it.
    #[error("subnet {0} cannot be served")]
    Subnet(String, #[source] dhcp::SubnetError),
    /// Something listens on the control socket that does not have our data.
    #[error(
        "another program listens on the socket {}; stop it, or set another [server] socket", .0.display()
    )]
    SocketInUse(PathBuf),
    /// The control socket cannot be made.
    #[error("cannot make the socket {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
}
