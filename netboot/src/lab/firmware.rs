use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use kiln_types::Arch;

use super::LabError;

/// How the firmware of a virtual machine boots from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum FirmwareKind {
    /// SeaBIOS with iPXE as the option ROM of the network card (x86_64 only)
    Bios,
    /// UEFI by PXE: DHCP, then TFTP
    Uefi,
    /// UEFI by HTTP Boot
    Http,
}

impl FirmwareKind {
    /// Returns its name in options and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for FirmwareKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A kind of virtual machine that exists: an architecture with a firmware for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineKind {
    arch: Arch,
    firmware: FirmwareKind,
}

impl MachineKind {
    /// Returns the kind, unless it is an arm64 machine with a BIOS.
    ///
    /// # Errors
    ///
    /// [`LabError::NoSuchMachine`].
    pub const fn new(arch: Arch, firmware: FirmwareKind) -> Result<Self, LabError> {
        match (arch, firmware) {
            (Arch::Arm64, FirmwareKind::Bios) => Err(LabError::NoSuchMachine { arch, firmware }),
            _ => Ok(Self { arch, firmware }),
        }
    }

    /// Returns the architecture.
    pub const fn arch(self) -> Arch {
        self.arch
    }

    /// Returns the firmware.
    pub const fn firmware(self) -> FirmwareKind {
        self.firmware
    }

    /// Checks that qemu and the firmware are installed.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`], which names the Debian package.
    pub fn check(self) -> Result<(), LabError> {
        program("ip", "iproute2")?;
        program("setpriv", "util-linux")?;
        self.qemu()?;
        self.images().map(drop)
    }

    pub(super) fn qemu(self) -> Result<PathBuf, LabError> {
        match self.arch {
            Arch::X86_64 => program("qemu-system-x86_64", "qemu-system-x86"),
            Arch::Arm64 => program("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// Returns the firmware's code and the template of its variables; none for a BIOS, which qemu brings along.
    pub(super) fn images(self) -> Result<Option<FirmwareImages>, LabError> {
        let (what, package, pairs): (_, _, &[(&str, &str)]) = match (self.arch, self.firmware) {
            (_, FirmwareKind::Bios) => {
                let rom = ["/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/share/qemu/efi-virtio.rom"];
                return if rom.iter().any(|path| Path::new(path).exists()) {
                    Ok(None)
                } else {
                    Err(LabError::Missing {
                        what: "iPXE's option ROM for qemu (efi-virtio.rom)".to_owned(),
                        package: "ipxe-qemu",
                    })
                };
            }
            (Arch::X86_64, _) => (
                "UEFI firmware for x86_64 machines (OVMF)",
                "ovmf",
                &[
                    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
                    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
                ],
            ),
            // From Debian 13 on, AAVMF_CODE.fd is the one with Secure Boot's code and the other is the plain one.
            (Arch::Arm64, _) => (
                "UEFI firmware for arm64 machines (AAVMF)",
                "qemu-efi-aarch64",
                &[
                    ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
                    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
                ],
            ),
        };
        pairs
            .iter()
            .map(|(code, variables)| (Path::new(code), Path::new(variables)))
            .find(|(code, variables)| code.exists() && variables.exists())
            .map(|(code, variables)| {
                Some(FirmwareImages { code: code.to_owned(), variables: variables.to_owned() })
            })
            .ok_or_else(|| LabError::Missing { what: what.to_owned(), package })
    }

    /// Returns the firmware's code that checks signatures, with variables that hold keys.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`], which names the Debian package, and [`LabError::NoSuchMachine`] for firmware that has no
    /// Secure Boot.
    pub(super) fn secure_images(self, variables: &Path) -> Result<FirmwareImages, LabError> {
        let (what, package, code) = match (self.arch, self.firmware) {
            (arch, firmware @ FirmwareKind::Bios) => {
                return Err(LabError::NoSuchMachine { arch, firmware });
            }
            (Arch::X86_64, _) => (
                "UEFI firmware with Secure Boot (OVMF)",
                "ovmf",
                "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
            ),
            (Arch::Arm64, _) => (
                "UEFI firmware with Secure Boot (AAVMF)",
                "qemu-efi-aarch64",
                "/usr/share/AAVMF/AAVMF_CODE.ms.fd",
            ),
        };
        let code = Path::new(code).to_owned();
        if !code.exists() {
            return Err(LabError::Missing { what: what.to_owned(), package });
        }
        Ok(FirmwareImages { code, variables: variables.to_owned() })
    }
}

impl fmt::Display for MachineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.arch, self.firmware))
    }
}

/// UEFI firmware as qemu wants it.
#[derive(Clone, Debug)]
pub struct FirmwareImages {
    /// Read-only code.
    pub code: PathBuf,
    /// Variables as they leave the factory; each machine writes to a copy.
    pub variables: PathBuf,
}

/// Finds a program on the PATH, or where Debian keeps those for root.
pub(super) fn program(name: &str, package: &'static str) -> Result<PathBuf, LabError> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| LabError::Missing { what: format!("`{name}`"), package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm64_machine_has_no_bios() {
        let error = MachineKind::new(Arch::Arm64, FirmwareKind::Bios).unwrap_err();
        assert_eq!(error.to_string(), "there is no arm64 machine with bios firmware");
        assert!(MachineKind::new(Arch::X86_64, FirmwareKind::Bios).is_ok());
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = program("no-such-program", "no-such-package").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`no-such-program` is not installed; install the Debian package no-such-package"
        );
    }
}
