use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Asker, Firmware, Sighting};

/// The first program that a machine gets from the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// iPXE, which runs a script of ours: it shows what goes on, waits and tries again.
    #[default]
    Ipxe,
    /// systemd's stub with kernel, segments and arguments in one file made for this machine: no second program and
    /// no second DHCP exchange, but nothing that could wait.
    Uki,
    /// shim and GRUB as Debian signs them: for machines with Secure Boot and the keys that came with them.
    Grub,
    /// U-Boot, which is the firmware and the loader in one: it wants a menu.
    UBoot,
    /// The boot program of a Raspberry Pi, which fetches its files one by one.
    RaspberryPi,
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipxe => "iPXE",
            Self::Uki => "UKI",
            Self::Grub => "shim and GRUB",
            Self::UBoot => "U-Boot",
            Self::RaspberryPi => "Raspberry Pi",
        })
    }
}

/// Which loader an operator wants for a machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum LoaderChoice {
    /// What suits the firmware: iPXE, unless the firmware is a loader itself.
    #[default]
    Auto,
    /// iPXE.
    Ipxe,
    /// One UEFI program with everything in it.
    Uki,
    /// shim and GRUB.
    Grub,
}

impl fmt::Display for LoaderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Ipxe => "ipxe",
            Self::Uki => "uki",
            Self::Grub => "grub",
        })
    }
}

/// Where a machine boots from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum BootFrom {
    /// The network: its image.
    #[default]
    Net,
    /// Its own disk, although its firmware asks the network first.
    Disk,
}

impl fmt::Display for BootFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Net => "net",
            Self::Disk => "disk",
        })
    }
}

/// The text is none of the words that there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{said}` is not one of {words}")]
pub struct ParseWordError {
    said: String,
    words: &'static str,
}

impl FromStr for LoaderChoice {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s {
            "auto" => Self::Auto,
            "ipxe" => Self::Ipxe,
            "uki" => Self::Uki,
            "grub" => Self::Grub,
            _ => return Err(ParseWordError { said: s.into(), words: "auto, ipxe, uki, grub" }),
        })
    }
}

impl FromStr for BootFrom {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s {
            "net" => Self::Net,
            "disk" => Self::Disk,
            _ => return Err(ParseWordError { said: s.into(), words: "net, disk" }),
        })
    }
}

/// Settles which loader goes with what asks. The choice counts where the firmware can run it.
pub(crate) fn loader_for(choice: LoaderChoice, sighting: &Sighting) -> Loader {
    match sighting.firmware {
        // Both are loaders themselves, whatever is wished for.
        Some(Firmware::UbootArm64 | Firmware::UbootArm64Http) => Loader::UBoot,
        Some(Firmware::RaspberryPi) => Loader::RaspberryPi,
        Some(firmware) if firmware.is_uefi() && sighting.asker == Asker::Firmware => match choice {
            LoaderChoice::Auto | LoaderChoice::Ipxe => Loader::Ipxe,
            LoaderChoice::Uki => Loader::Uki,
            LoaderChoice::Grub => Loader::Grub,
        },
        _ => Loader::Ipxe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back_as_it_is_written() {
        for choice in
            [LoaderChoice::Auto, LoaderChoice::Ipxe, LoaderChoice::Uki, LoaderChoice::Grub]
        {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let json = format!("\"{choice}\"");
            assert_eq!(serde_json::from_str::<LoaderChoice>(&json).unwrap(), choice);
        }
        for from in [BootFrom::Net, BootFrom::Disk] {
            assert_eq!(from.to_string().parse(), Ok(from));
        }
        let error = "pxe".parse::<LoaderChoice>().unwrap_err().to_string();
        assert_eq!(error, "`pxe` is not one of auto, ipxe, uki, grub");
    }
}
