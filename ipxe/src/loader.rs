use kiln_inventory::Firmware;

/// One loader program and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderFile {
    /// Name under which TFTP and HTTP serve it.
    pub name: &'static str,
    /// Path inside Debian's `ipxe` package. Empty where that has no such file.
    pub package_path: &'static str,
}

/// Every loader that a server keeps ready: the iPXE builds of Debian 13 (`ipxe` 1.21.1+git20250501, for any
/// architecture).
///
/// On BIOS, `undionly.kpxe` uses the network card through the firmware and unloads the rest of it. On UEFI, the full
/// builds bring their own drivers and fall back on the firmware's where they have none.
pub const LOADERS: &[LoaderFile] = &[BIOS, X64, ARM64];

/// Loaders that Debian has no package of. They are served where a folder has them; where not, the firmware is told at
/// once that there is no such file. No image runs on such machines, but the loader shows why.
pub const MORE_LOADERS: &[LoaderFile] = &[IA32, RISCV64];

const BIOS: LoaderFile =
    LoaderFile { name: "undionly.kpxe", package_path: "usr/lib/ipxe/undionly.kpxe" };
const X64: LoaderFile =
    LoaderFile { name: "ipxe-amd64.efi", package_path: "usr/lib/ipxe/ipxe-amd64.efi" };
const ARM64: LoaderFile =
    LoaderFile { name: "ipxe-arm64.efi", package_path: "usr/lib/ipxe/ipxe-arm64.efi" };

const IA32: LoaderFile = LoaderFile { name: "ipxe-i386.efi", package_path: "" };
const RISCV64: LoaderFile = LoaderFile { name: "ipxe-riscv64.efi", package_path: "" };

/// Returns the loader that runs on a firmware, if there is one.
pub const fn loader(firmware: Firmware) -> Option<&'static LoaderFile> {
    match firmware {
        Firmware::Bios => Some(&BIOS),
        Firmware::UefiX64 | Firmware::UefiX64Http => Some(&X64),
        Firmware::UefiArm64 | Firmware::UefiArm64Http => Some(&ARM64),
        Firmware::Other(6 | 15) => Some(&IA32),
        Firmware::Other(27 | 28) => Some(&RISCV64),
        Firmware::UbootArm64
        | Firmware::UbootArm64Http
        | Firmware::RaspberryPi
        | Firmware::Kexec
        | Firmware::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loader_is_listed_under_its_own_name() {
        for firmware in (0..64).map(Firmware::from_option_93) {
            let Some(file) = loader(firmware) else {
                assert!(!firmware.is_uefi(), "{firmware} has no loader");
                continue;
            };
            assert!(LOADERS.contains(file) || MORE_LOADERS.contains(file));
            assert_eq!(file.name.ends_with(".efi"), firmware != Firmware::Bios);
        }
        for file in LOADERS {
            assert!(file.package_path.ends_with(file.name) && !file.package_path.starts_with('/'));
        }
    }
}
