use std::fmt;
use std::str::FromStr;

use kiln_types::Arch;
use serde::{Deserialize, Serialize};

/// A form that a built version can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Format {
    /// The kernel, one initrd and the kernel arguments, each in a file: what other boot servers take.
    KernelInitrd,
    /// The files of the image in LinuxKit's layout.
    Tar,
    /// One UEFI program with kernel, initrd and kernel arguments in it.
    Uki,
    /// A CD image that UEFI boots, from a drive or written to a stick.
    IsoEfi,
    /// A disk image that UEFI boots.
    RawEfi,
    /// The same disk image in qemu's own format.
    Qcow2Efi,
    /// An artifact that a registry of OCI images takes.
    Oci,
}

impl Format {
    /// Every format, in the order that listings use.
    pub const ALL: [Self; 7] = [
        Self::KernelInitrd,
        Self::Tar,
        Self::Uki,
        Self::IsoEfi,
        Self::RawEfi,
        Self::Qcow2Efi,
        Self::Oci,
    ];

    /// Returns the name that users write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KernelInitrd => "kernel+initrd",
            Self::Tar => "tar",
            Self::Uki => "uki",
            Self::IsoEfi => "iso-efi",
            Self::RawEfi => "raw-efi",
            Self::Qcow2Efi => "qcow2-efi",
            Self::Oci => "oci",
        }
    }

    /// Returns whether an image without a kernel cannot be written this way.
    pub const fn needs_kernel(self) -> bool {
        !matches!(self, Self::Tar)
    }

    /// Returns whether a UEFI program is part of it: then the kernel must have an EFI stub, and systemd's stub is
    /// fetched.
    pub const fn is_efi(self) -> bool {
        matches!(self, Self::Uki | Self::IsoEfi | Self::RawEfi | Self::Qcow2Efi)
    }

    /// Returns whether the same version, stub, key and options give the same bytes on any host. A disk in qemu's
    /// format is written by the host's `qemu-img`, whose versions differ.
    pub const fn reproducible(self) -> bool {
        !matches!(self, Self::Qcow2Efi)
    }

    /// Returns what follows the name of the image in the name of a file: `demo` becomes `demo-x86_64.efi`. What is
    /// several files has a folder.
    pub fn suffix(self, arch: Arch) -> String {
        let ending = match self {
            Self::KernelInitrd => "",
            Self::Tar => ".tar",
            Self::Uki => ".efi",
            Self::IsoEfi => "-efi.iso",
            Self::RawEfi => "-efi.img",
            Self::Qcow2Efi => "-efi.qcow2",
            Self::Oci => ".oci.tar",
        };
        format!("-{arch}{ending}")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Format> for String {
    fn from(format: Format) -> Self {
        format.as_str().to_owned()
    }
}

/// The text is not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format `{given}`; use {}", names())]
pub struct ParseFormatError {
    given: String,
}

fn names() -> String {
    Format::ALL.map(Format::as_str).join(", ")
}

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| ParseFormatError { given: text.chars().take(40).collect() })
    }
}

impl TryFrom<String> for Format {
    type Error = ParseFormatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_one_name_and_a_file_name_of_its_own() {
        let mut files = std::collections::BTreeSet::new();
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(serde_json::from_str::<Format>(&json).unwrap(), format);
            assert!(files.insert(format.suffix(Arch::Arm64)), "{format}");
        }
        assert_eq!(Format::Uki.suffix(Arch::X86_64), "-x86_64.efi");
    }

    #[test]
    fn an_unknown_format_is_told_with_those_that_are_known() {
        let error = "iso-bios".parse::<Format>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown format `iso-bios`; use kernel+initrd, tar, uki, iso-efi, raw-efi, qcow2-efi, oci"
        );
    }
}
