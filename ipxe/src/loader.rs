use kiln_inventory::Firmware;

/// One loader program and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderFile {
    /// Name under which TFTP and HTTP serve it.
    pub name: &'static str,
    /// Path inside Debian's `ipxe` package.
    pub package_path: &'static str,
}

/// Every loader that a server keeps ready: the iPXE builds of Debian 13 (`ipxe` 1.21.1+git20250501, for any
/// architecture).
///
/// On BIOS, `undionly.kpxe` uses the network card through the firmware and unloads the rest of it. On UEFI, the full
/// builds bring their own drivers and fall back on the firmware's where they have none.
pub const LOADERS: &[LoaderFile] = &[BIOS, X64, ARM64];

const BIOS: LoaderFile =
    LoaderFile { name: "undionly.kpxe", package_path: "usr/lib/ipxe/undionly.kpxe" };
const X64: LoaderFile =
    LoaderFile { name: "ipxe-amd64.efi", package_path: "usr/lib/ipxe/ipxe-amd64.efi" };
const ARM64: LoaderFile =
    LoaderFile { name: "ipxe-arm64.efi", package_path: "usr/lib/ipxe/ipxe-arm64.efi" };

/// Returns the loader that runs on a firmware, if there is one.
pub const fn loader(firmware: Firmware) -> Option<&'static LoaderFile> {
    match firmware {
        Firmware::Bios => Some(&BIOS),
        Firmware::UefiX64 | Firmware::UefiX64Http => Some(&X64),
        Firmware::UefiArm64 | Firmware::UefiArm64Http => Some(&ARM64),
        Firmware::Kexec | Firmware::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loader_is_listed_under_its_own_name() {
        for firmware in (0..64).map(Firmware::from_option_93) {
            let Some(file) = loader(firmware) else {
                assert_eq!(firmware.arch(), None, "{firmware} has no loader");
                continue;
            };
            assert!(LOADERS.contains(file));
            assert_eq!(file.name.ends_with(".efi"), firmware.is_uefi());
        }
        for file in LOADERS {
            assert!(file.package_path.ends_with(file.name) && !file.package_path.starts_with('/'));
        }
    }
}
