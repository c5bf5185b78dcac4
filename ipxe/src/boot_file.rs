use std::net::Ipv4Addr;

use kiln_inventory::{Asker, Decision, Plan, Sighting};

use crate::{Endpoints, loader};

/// What a DHCP reply names as the file to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootFile {
    /// Nothing.
    None,
    /// A file on a TFTP server.
    Tftp {
        /// The server, for `siaddr` and option 66.
        server: Ipv4Addr,
        /// The path, without a leading slash.
        path: String,
    },
    /// A URL: for iPXE, and for firmware that asked by HTTP Boot.
    Url(String),
}

/// Returns the boot file that goes with a decision.
///
/// A machine that is refused gets its loader too: the loader can show the reason, the firmware cannot. Firmware
/// that no loader runs on is sent to a file that does not exist, because it then tries its next boot entry at
/// once, while a reply without a file makes UEFI ask for a minute.
pub fn boot_file(decision: &Decision, sighting: &Sighting, at: &Endpoints) -> BootFile {
    if matches!(decision.plan, Plan::Address | Plan::Ignore) {
        return BootFile::None;
    }
    match (sighting.asker, sighting.firmware) {
        (Asker::System, _) => BootFile::None,
        (Asker::Ipxe, _) => BootFile::Url(script_url(sighting, at)),
        (Asker::Firmware, firmware) => match firmware.and_then(loader) {
            Some(file) if firmware.is_some_and(kiln_inventory::Firmware::is_http) => {
                BootFile::Url(format!("http://{}/loader/{}", at.http, file.name))
            }
            Some(file) => {
                BootFile::Tftp { server: at.address, path: format!("ipxe/{}", file.name) }
            }
            None => BootFile::Tftp { server: at.address, path: "refused".to_owned() },
        },
    }
}

/// Returns the address of the script for a machine, with the firmware that its DHCP packet told.
pub(crate) fn script_url(sighting: &Sighting, at: &Endpoints) -> String {
    let url = format!("http://{}/script/{}.ipxe", at.http, sighting.mac.dashed());
    match sighting.firmware {
        Some(firmware) => format!("{url}?firmware={firmware}"),
        None => url,
    }
}
