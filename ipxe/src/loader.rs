use kiln_inventory::Firmware;

/// One loader program and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderFile {
    /// Name under which TFTP and HTTP serve it.
    pub name: &'static str,
    /// Path inside Debian's `ipxe` package.
    pub package_path: &'static str,
}

/// Every loader that a server keeps ready.
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
        Firmware::Other(_) => None,
    }
}
