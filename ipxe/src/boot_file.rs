use std::net::IpAddr;

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
        server: IpAddr,
        /// The path, without a leading slash.
        path: String,
    },
    /// A URL: for iPXE, and for firmware that asked by HTTP Boot.
    Url(String),
}

impl BootFile {
    /// Returns it as a URL, as DHCPv6 names every boot file (RFC 5970 §3.1).
    pub fn url(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Tftp { server: IpAddr::V4(server), path } => {
                Some(format!("tftp://{server}/{path}"))
            }
            Self::Tftp { server: IpAddr::V6(server), path } => {
                Some(format!("tftp://[{server}]/{path}"))
            }
            Self::Url(url) => Some(url.clone()),
        }
    }
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
                BootFile::Url(format!("{}/loader/{}", at.for_firmware(), file.name))
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
    let url = format!("{}/script/{}.ipxe", at.for_loader(), sighting.mac.dashed());
    match sighting.firmware {
        Some(firmware) => format!("{url}?firmware={firmware}"),
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use kiln_inventory::Firmware::{self, Bios, Other, UefiArm64, UefiArm64Http, UefiX64Http};
    use kiln_types::Mac;

    use super::*;

    fn at() -> Endpoints {
        Endpoints::new(Ipv4Addr::new(10, 0, 0, 1), 8080)
    }

    fn file(plan: Plan, asker: Asker, firmware: Option<Firmware>) -> String {
        let mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
        let sighting = Sighting { mac, asker, firmware, uuid: None };
        let decision = Decision { machine: None, plan, reasons: Vec::new() };
        match boot_file(&decision, &sighting, &at()) {
            BootFile::None => "none".to_owned(),
            BootFile::Tftp { server, path } => format!("{server} {path}"),
            BootFile::Url(url) => url,
        }
    }

    #[test]
    fn firmware_gets_its_loader_and_the_loader_its_script() {
        let script = "http://10.0.0.1:8080/script/52-54-00-00-00-01.ipxe";
        for (asker, firmware, expected) in [
            (Asker::Firmware, Some(Bios), "10.0.0.1 ipxe/undionly.kpxe".to_owned()),
            (Asker::Firmware, Some(UefiArm64), "10.0.0.1 ipxe/ipxe-arm64.efi".to_owned()),
            (
                Asker::Firmware,
                Some(UefiX64Http),
                "http://10.0.0.1:8080/loader/ipxe-amd64.efi".to_owned(),
            ),
            (
                Asker::Firmware,
                Some(UefiArm64Http),
                "http://10.0.0.1:8080/loader/ipxe-arm64.efi".to_owned(),
            ),
            (Asker::Firmware, Some(Other(6)), "10.0.0.1 refused".to_owned()),
            (Asker::Firmware, None, "10.0.0.1 refused".to_owned()),
            (Asker::Ipxe, Some(Bios), format!("{script}?firmware=bios")),
            (Asker::Ipxe, Some(Other(27)), format!("{script}?firmware=other-27")),
            (Asker::Ipxe, None, script.to_owned()),
            (Asker::System, Some(Bios), "none".to_owned()),
        ] {
            for plan in [Plan::Hold, Plan::Refuse] {
                assert_eq!(file(plan, asker, firmware), expected, "{asker:?} {firmware:?}");
            }
            for plan in [Plan::Address, Plan::Ignore] {
                assert_eq!(file(plan, asker, firmware), "none", "{asker:?} {firmware:?}");
            }
        }
    }

    #[test]
    fn an_address_of_ipv6_is_in_brackets_wherever_it_is_part_of_a_url() {
        let at = Endpoints::new("fd77::1".parse::<Ipv6Addr>().unwrap(), 8080);
        let mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
        let decision = Decision { machine: None, plan: Plan::Hold, reasons: Vec::new() };
        for (asker, firmware, expected) in [
            (Asker::Firmware, Firmware::UefiX64, "tftp://[fd77::1]/ipxe/ipxe-amd64.efi"),
            (Asker::Firmware, UefiArm64Http, "http://[fd77::1]:8080/loader/ipxe-arm64.efi"),
            (
                Asker::Ipxe,
                Bios,
                "http://[fd77::1]:8080/script/52-54-00-00-00-01.ipxe?firmware=bios",
            ),
        ] {
            let sighting = Sighting { mac, asker, firmware: Some(firmware), uuid: None };
            assert_eq!(boot_file(&decision, &sighting, &at).url().as_deref(), Some(expected));
        }
    }

    #[test]
    fn every_boot_file_fits_the_field_of_a_dhcp_packet() {
        for firmware in (0..64).map(Firmware::from_option_93) {
            for asker in [Asker::Firmware, Asker::Ipxe] {
                let file = file(Plan::Hold, asker, Some(firmware));
                assert!(file.len() < 128, "{file}");
            }
        }
    }
}
