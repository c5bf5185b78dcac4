use std::net::IpAddr;

use kiln_inventory::{Asker, Decision, Firmware, Loader, Plan, Sighting};
use kiln_types::Mac;

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
/// that no loader runs on, and a machine that is to boot from its disk, are sent to a file that does not exist,
/// because firmware then tries its next boot entry at once, while a reply without a file makes UEFI ask for a minute.
pub fn boot_file(decision: &Decision, sighting: &Sighting, at: &Endpoints) -> BootFile {
    if matches!(decision.plan, Plan::Address | Plan::Ignore) {
        return BootFile::None;
    }
    let http = sighting.firmware.is_some_and(Firmware::is_http);
    match (sighting.asker, sighting.firmware) {
        (Asker::System, _) => BootFile::None,
        (Asker::Ipxe, _) => BootFile::Url(script_url(sighting, at)),
        (Asker::Firmware, firmware) => {
            let path = match (&decision.plan, decision.loader) {
                (Plan::LocalDisk, _) => NOWHERE.to_owned(),
                (_, Loader::Uki) => firmware.map_or_else(nowhere, |it| uki_path(sighting.mac, it)),
                (_, Loader::Grub) => firmware.and_then(shim).map_or_else(nowhere, grub_path),
                // It has no folder: U-Boot looks for its menu in the folder of what DHCP named.
                (_, Loader::UBoot) => UBOOT_SCRIPT.to_owned(),
                // It asks for the files that it knows; what is named does not matter.
                (_, Loader::RaspberryPi) => "bootcode.bin".to_owned(),
                (_, Loader::Ipxe) => match firmware.and_then(loader) {
                    Some(file) if http => format!("loader/{}", file.name),
                    Some(file) => format!("ipxe/{}", file.name),
                    None => REFUSED.to_owned(),
                },
            };
            match http {
                true => BootFile::Url(format!("{}/{path}", at.for_firmware())),
                false => BootFile::Tftp { server: at.address, path },
            }
        }
    }
}

/// What firmware is sent to that gets nothing: there is no such file.
const REFUSED: &str = "refused";
/// What firmware is sent to that is to go on to its disk: there is no such file.
const NOWHERE: &str = "local-disk";
/// The first thing that U-Boot runs: a script of ours.
pub const UBOOT_SCRIPT: &str = "boot.scr.uimg";

fn nowhere() -> String {
    REFUSED.to_owned()
}

fn grub_path(file: &str) -> String {
    format!("grub/{file}")
}

/// Returns the path of the program that has everything in it that a machine boots.
pub fn uki_path(mac: Mac, firmware: Firmware) -> String {
    format!("uki/{}/{firmware}.efi", mac.dashed())
}

/// Returns the name of the shim that runs on a firmware.
pub const fn shim(firmware: Firmware) -> Option<&'static str> {
    match firmware {
        Firmware::UefiX64 | Firmware::UefiX64Http => Some("shimx64.efi"),
        Firmware::UefiArm64 | Firmware::UefiArm64Http => Some("shimaa64.efi"),
        _ => None,
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

    use kiln_inventory::BootPlan;
    use kiln_inventory::Firmware::{
        Bios, Other, RaspberryPi, UbootArm64, UbootArm64Http, UefiArm64, UefiArm64Http, UefiX64,
        UefiX64Http,
    };
    use kiln_types::{Arch, Digest};

    use super::*;

    fn at() -> Endpoints {
        Endpoints::new(Ipv4Addr::new(10, 0, 0, 1), 8080)
    }

    fn file(plan: Plan, asker: Asker, firmware: Option<Firmware>) -> String {
        // As `decide` settles it without a wish of the machine.
        let loader = match firmware {
            Some(UbootArm64 | UbootArm64Http) => Loader::UBoot,
            Some(RaspberryPi) => Loader::RaspberryPi,
            _ => Loader::Ipxe,
        };
        loaded(plan, loader, asker, firmware)
    }

    fn loaded(plan: Plan, loader: Loader, asker: Asker, firmware: Option<Firmware>) -> String {
        let mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
        let sighting = Sighting { mac, asker, firmware, uuid: None };
        let decision =
            Decision { machine: None, settings: None, plan, loader, reasons: Vec::new() };
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
            (Asker::Firmware, Some(UbootArm64), "10.0.0.1 boot.scr.uimg".to_owned()),
            (
                Asker::Firmware,
                Some(UbootArm64Http),
                "http://10.0.0.1:8080/boot.scr.uimg".to_owned(),
            ),
            (Asker::Firmware, Some(RaspberryPi), "10.0.0.1 bootcode.bin".to_owned()),
            // Served where a folder has it; else there is no such file, and the next boot entry follows at once.
            (Asker::Firmware, Some(Other(6)), "10.0.0.1 ipxe/ipxe-i386.efi".to_owned()),
            (
                Asker::Firmware,
                Some(Other(28)),
                "http://10.0.0.1:8080/loader/ipxe-riscv64.efi".to_owned(),
            ),
            (Asker::Firmware, Some(Other(2)), "10.0.0.1 refused".to_owned()),
            (Asker::Firmware, Some(Other(18)), "http://10.0.0.1:8080/refused".to_owned()),
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
    fn a_machine_that_is_to_boot_from_its_disk_is_sent_where_its_firmware_fails_at_once() {
        let script = "http://10.0.0.1:8080/script/52-54-00-00-00-01.ipxe?firmware=bios";
        for loader in [Loader::Ipxe, Loader::Grub, Loader::UBoot, Loader::RaspberryPi] {
            for (asker, firmware, expected) in [
                (Asker::Firmware, Bios, "10.0.0.1 local-disk"),
                (Asker::Firmware, UefiX64, "10.0.0.1 local-disk"),
                (Asker::Firmware, UefiArm64Http, "http://10.0.0.1:8080/local-disk"),
                (Asker::Firmware, UbootArm64, "10.0.0.1 local-disk"),
                (Asker::Firmware, RaspberryPi, "10.0.0.1 local-disk"),
                (Asker::Firmware, Other(6), "10.0.0.1 local-disk"),
                (Asker::Ipxe, Bios, script),
                (Asker::System, Bios, "none"),
            ] {
                let file = loaded(Plan::LocalDisk, loader, asker, Some(firmware));
                assert_eq!(file, expected, "{loader} {asker:?} {firmware}");
            }
        }
    }

    #[test]
    fn uefi_gets_the_loader_that_was_settled() {
        let boot = || {
            let kernel = kiln_inventory::Artifact {
                name: "kernel".to_owned(),
                digest: Digest::from_bytes([1; 32]),
                size: 1,
            };
            Plan::Boot(BootPlan {
                image: "web".parse().unwrap(),
                version: Digest::from_bytes([2; 32]),
                arch: Arch::X86_64,
                kernel,
                segments: Vec::new(),
                cmdline: String::new(),
            })
        };
        let http = "http://10.0.0.1:8080";
        for (loader, firmware, expected) in [
            (Loader::Uki, UefiX64, "10.0.0.1 uki/52-54-00-00-00-01/uefi-x64.efi".to_owned()),
            (
                Loader::Uki,
                UefiArm64Http,
                format!("{http}/uki/52-54-00-00-00-01/uefi-arm64-http.efi"),
            ),
            (Loader::Grub, UefiX64, "10.0.0.1 grub/shimx64.efi".to_owned()),
            (Loader::Grub, UefiArm64Http, format!("{http}/grub/shimaa64.efi")),
        ] {
            assert_eq!(loaded(boot(), loader, Asker::Firmware, Some(firmware)), expected);
            let running = loaded(boot(), loader, Asker::Ipxe, Some(firmware));
            assert!(running.contains("/script/"), "a loader that runs gets its script: {running}");
        }
    }

    #[test]
    fn an_address_of_ipv6_is_in_brackets_wherever_it_is_part_of_a_url() {
        let at = Endpoints::new("fd77::1".parse::<Ipv6Addr>().unwrap(), 8080);
        let mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
        let (plan, loader) = (Plan::Hold, Loader::Ipxe);
        let decision =
            Decision { machine: None, settings: None, plan, loader, reasons: Vec::new() };
        for (asker, firmware, expected) in [
            (Asker::Firmware, UefiX64, "tftp://[fd77::1]/ipxe/ipxe-amd64.efi"),
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
