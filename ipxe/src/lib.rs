//! iPXE: which loader a firmware gets, which boot file it is told, and the script that the loader runs.
//!
//! ```text
//!  Decision + Sighting ─┬─▶ boot_file ─▶ DHCP options: the loader, or the script once iPXE runs
//!                       └─▶ script    ─▶ text: fetch kernel and segments, wait, or say why not
//! ```
//!
//! Everything here is pure: no I/O, no clock.

mod boot_file;
mod loader;
mod script;
mod text;

use std::net::{IpAddr, SocketAddr};

pub use boot_file::{BootFile, boot_file};
pub use loader::{LOADERS, LoaderFile, loader};
pub use script::{BootTicket, script};

/// Where a machine reaches this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Our address on the subnet of the machine; TFTP is there.
    pub address: IpAddr,
    /// Address and port of HTTP.
    pub http: SocketAddr,
}

impl Endpoints {
    /// Names both by one address and the port of HTTP.
    pub fn new(address: impl Into<IpAddr>, http: u16) -> Self {
        let address = address.into();
        Self { address, http: SocketAddr::new(address, http) }
    }
}
