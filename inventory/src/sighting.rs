use std::fmt;
use std::str::FromStr;

use kiln_types::{Arch, Mac};
use serde::{Deserialize, Serialize};

/// One thing seen on the wire, reduced to what a decision may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Hardware address of the interface that asks.
    pub mac: Mac,
    /// Which program of the machine asks.
    pub asker: Asker,
    /// Kind of firmware, where the packet or the URL says it.
    pub firmware: Option<Firmware>,
    /// SMBIOS UUID in the order that people read it, unless the packet carries none or a void one.
    pub uuid: Option<String>,
}

impl Sighting {
    /// Returns the architecture, where the firmware tells it.
    pub fn arch(&self) -> Option<Arch> {
        self.firmware.and_then(Firmware::arch)
    }
}

/// Which program of a machine asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asker {
    /// The firmware's own network stack: it wants a loader.
    Firmware,
    /// iPXE: it wants a script.
    Ipxe,
    /// An operating system or anything else that does not boot from the network: it wants an address.
    System,
}

/// Kind of firmware: processor architecture and way of loading, as DHCP option 93 tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// PC BIOS, by TFTP.
    Bios,
    /// UEFI on x86_64, by PXE (TFTP).
    UefiX64,
    /// UEFI on x86_64, by HTTP Boot.
    UefiX64Http,
    /// UEFI on arm64, by PXE (TFTP).
    UefiArm64,
    /// UEFI on arm64, by HTTP Boot.
    UefiArm64Http,
    /// U-Boot on arm64, by TFTP. It is its own loader.
    UbootArm64,
    /// U-Boot on arm64, by HTTP.
    UbootArm64Http,
    /// The boot program of a Raspberry Pi, by TFTP.
    RaspberryPi,
    /// None: the system before started the kernel.
    Kexec,
    /// Any other, with its number in the registry of RFC 4578 §2.1.
    Other(u16),
}

impl Firmware {
    /// Reads one number of option 93 (RFC 4578 §2.1 and the IANA registry "Processor Architecture Types").
    ///
    /// 9 is EBC in the registry, but much firmware says 9 where it means 64-bit x86 (RFC 4578 errata).
    pub const fn from_option_93(number: u16) -> Self {
        match number {
            0 => Self::Bios,
            7 | 9 => Self::UefiX64,
            11 => Self::UefiArm64,
            16 => Self::UefiX64Http,
            19 => Self::UefiArm64Http,
            22 => Self::UbootArm64,
            24 => Self::UbootArm64Http,
            41 => Self::RaspberryPi,
            other => Self::Other(other),
        }
    }

    /// Returns the architecture of images that run on it. A BIOS is taken to be a 64-bit PC.
    pub const fn arch(self) -> Option<Arch> {
        match self {
            Self::Bios | Self::UefiX64 | Self::UefiX64Http => Some(Arch::X86_64),
            Self::UefiArm64
            | Self::UefiArm64Http
            | Self::UbootArm64
            | Self::UbootArm64Http
            | Self::RaspberryPi => Some(Arch::Arm64),
            Self::Kexec | Self::Other(_) => None,
        }
    }

    /// Returns whether the firmware starts kernels as UEFI programs.
    pub const fn is_uefi(self) -> bool {
        matches!(self, Self::UefiX64 | Self::UefiX64Http | Self::UefiArm64 | Self::UefiArm64Http)
    }

    /// Returns whether the firmware loads by HTTP Boot, so that its boot file is a URL.
    pub const fn is_http(self) -> bool {
        match self {
            Self::UefiX64Http | Self::UefiArm64Http | Self::UbootArm64Http => true,
            // 32-bit and EBC UEFI, BIOS, U-Boot, RISC-V and LoongArch, each by HTTP.
            Self::Other(n) => matches!(n, 15 | 17 | 18 | 20 | 23 | 26 | 28 | 30 | 38 | 40),
            _ => false,
        }
    }

    /// Returns what the same machine says of itself by PXE: an iPXE that was loaded by HTTP says that.
    #[must_use]
    pub const fn by_tftp(self) -> Self {
        match self {
            Self::UefiX64Http => Self::UefiX64,
            Self::UefiArm64Http => Self::UefiArm64,
            Self::UbootArm64Http => Self::UbootArm64,
            other => other,
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.pad("bios"),
            Self::UefiX64 => f.pad("uefi-x64"),
            Self::UefiX64Http => f.pad("uefi-x64-http"),
            Self::UefiArm64 => f.pad("uefi-arm64"),
            Self::UefiArm64Http => f.pad("uefi-arm64-http"),
            Self::UbootArm64 => f.pad("u-boot-arm64"),
            Self::UbootArm64Http => f.pad("u-boot-arm64-http"),
            Self::RaspberryPi => f.pad("raspberry-pi"),
            Self::Kexec => f.pad("kexec"),
            Self::Other(number) => f.pad(&format!("other-{number}")),
        }
    }
}

/// The text is not the name of a kind of firmware.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown firmware `{0}`; use bios, uefi-x64, uefi-x64-http, uefi-arm64, uefi-arm64-http, u-boot-arm64, \
     u-boot-arm64-http, raspberry-pi or other-NUMBER"
)]
pub struct ParseFirmwareError(String);

impl FromStr for Firmware {
    type Err = ParseFirmwareError;

    /// Reads what [`Display`](fmt::Display) writes; boot scripts carry it in their address.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s {
            "bios" => Self::Bios,
            "uefi-x64" => Self::UefiX64,
            "uefi-x64-http" => Self::UefiX64Http,
            "uefi-arm64" => Self::UefiArm64,
            "uefi-arm64-http" => Self::UefiArm64Http,
            "u-boot-arm64" => Self::UbootArm64,
            "u-boot-arm64-http" => Self::UbootArm64Http,
            "raspberry-pi" => Self::RaspberryPi,
            "kexec" => Self::Kexec,
            _ => s
                .strip_prefix("other-")
                .and_then(|number| number.parse().ok())
                .map(Self::from_option_93)
                .ok_or_else(|| ParseFirmwareError(s.chars().take(40).collect()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_firmware_is_read_back_as_it_is_written() {
        for number in 0..64 {
            let firmware = Firmware::from_option_93(number);
            assert_eq!(firmware.to_string().parse(), Ok(firmware));
        }
        assert_eq!("kexec".parse(), Ok(Firmware::Kexec));
        assert_eq!("other-0".parse(), Ok(Firmware::Bios), "one kind has one value");
        for bad in ["", "BIOS", "other-", "other-65536", "uefi"] {
            assert!(bad.parse::<Firmware>().is_err(), "{bad}");
        }
    }
}
