//! The loaders that firmware fetches: iPXE, from Debian's package or a folder, held in memory (about 2 MB).

mod fetch;
mod origins;
mod over_tftp;
mod signing;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_builder::hash::sha256;
use kiln_builder::output::EfiSettings;
use kiln_builder::output::sign::KeyError;
use kiln_inventory::Loader;
use kiln_ipxe::{INITRD_BY_KERNEL, LOADERS, MORE_LOADERS};
use kiln_types::{Arch, Digest};

pub use self::over_tftp::OverTftp;
pub use self::signing::UkiSigner;
use crate::settings::Settings;

/// No loader is anywhere near this size.
const MAX_SIZE: u64 = 16 << 20;

/// Every loader that was found.
#[derive(Clone, Debug, Default)]
pub struct Loaders {
    files: HashMap<&'static str, (Bytes, Digest)>,
    /// Those that hand an initrd to a kernel on UEFI as it asks for it.
    take_initrd: HashSet<&'static str>,
    /// The folder with the firmware of Raspberry Pis, where there is one.
    pi: Option<PathBuf>,
    signer: Option<Arc<UkiSigner>>,
}

/// The folder with the firmware of Raspberry Pis, beside the loaders.
const PI: &str = "raspberry-pi";
/// What a Raspberry Pi 4 or 5 needs of it, besides the devicetrees of both.
const PI_FILES: [&str; 3] = ["start4.elf", "fixup4.dat", "overlays/overlay_map.dtb"];

/// A file of a package that there is one of for each architecture.
struct EfiFile {
    arch: Arch,
    package: &'static str,
    path: &'static str,
    name: &'static str,
}

impl EfiFile {
    const fn new(
        arch: Arch,
        package: &'static str,
        path: &'static str,
        name: &'static str,
    ) -> Self {
        Self { arch, package, path, name }
    }
}

const STUB_X64: EfiFile = EfiFile::new(
    Arch::X86_64,
    "systemd-boot-efi",
    "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    "linuxx64.efi.stub",
);
const STUB_ARM64: EfiFile = EfiFile::new(
    Arch::Arm64,
    "systemd-boot-efi",
    "usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
    "linuxaa64.efi.stub",
);
/// What programs with everything in them begin with.
const STUBS: &[EfiFile] = &[STUB_X64, STUB_ARM64];
/// shim asks for GRUB by a name of its own, in the folder that it came from.
const SECURE_BOOT: &[EfiFile] = &[
    EfiFile::new(Arch::X86_64, "shim-signed", "usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
    EfiFile::new(
        Arch::X86_64,
        "grub-efi-amd64-signed",
        "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        "grubx64.efi",
    ),
    EfiFile::new(Arch::Arm64, "shim-signed", "usr/lib/shim/shimaa64.efi.signed", "shimaa64.efi"),
    EfiFile::new(
        Arch::Arm64,
        "grub-efi-arm64-signed",
        "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
        "grubaa64.efi",
    ),
];
/// U-Boot for all 64-bit Raspberry Pis.
const U_BOOT_RPI: EfiFile = EfiFile::new(
    Arch::Arm64,
    "u-boot-rpi",
    "usr/lib/u-boot/rpi_arm64/u-boot.bin",
    "u-boot-rpi.bin",
);
/// How long the start of the server waits for what not every machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// An error of any kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The loaders cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadersError {
    /// A folder has none.
    #[error("{} has none of {}; put at least one there, or leave [loaders] dir out to fetch them", .0.display(), names())]
    Empty(PathBuf),
    /// A file cannot be read.
    #[error("cannot read the loader {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write the loader {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A file is too large to be a loader.
    #[error("{} is too large to be a loader ({} MB at most)", .0.display(), MAX_SIZE >> 20)]
    TooLarge(PathBuf),
    /// The firmware of Raspberry Pis cannot be fetched.
    #[error(
        "cannot get the firmware of Raspberry Pis from Debian's package `raspi-firmware`; put it into the folder \
         `raspberry-pi` of [loaders] dir, or leave [loaders] raspberry-pi out"
    )]
    Pi(#[source] BoxError),
    /// The key for Secure Boot is of no use.
    #[error("cannot sign UEFI programs by what [loaders] says")]
    Key(#[source] KeyError),
    /// Debian's package cannot be fetched or read.
    #[error(
        "cannot get iPXE from Debian's package `ipxe`; install that package, or name a folder with the files by [loaders] dir"
    )]
    Package(#[source] BoxError),
}

fn names() -> String {
    LOADERS.iter().map(|loader| loader.name).collect::<Vec<_>>().join(", ")
}

impl Loaders {
    /// Reads the loaders that a folder has.
    ///
    /// # Errors
    ///
    /// Fails when it has none, or one that cannot be read.
    pub fn read(dir: &Path) -> Result<Self, LoadersError> {
        let (mut files, mut take_initrd) = (HashMap::new(), HashSet::new());
        let efi = STUBS.iter().chain(SECURE_BOOT).chain([&U_BOOT_RPI]).map(|file| file.name);
        let names = LOADERS.iter().chain(MORE_LOADERS).map(|loader| loader.name);
        for name in names.chain(efi) {
            let path = dir.join(name);
            match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(meta) if meta.len() > MAX_SIZE => return Err(LoadersError::TooLarge(path)),
                Ok(_) => {}
                Err(error) => return Err(LoadersError::Read(path, error)),
            }
            let bytes = std::fs::read(&path).map_err(|e| LoadersError::Read(path, e))?;
            let digest = sha256(&bytes);
            if bytes.windows(INITRD_BY_KERNEL.len()).any(|part| part == INITRD_BY_KERNEL) {
                take_initrd.insert(name);
            }
            files.insert(name, (Bytes::from(bytes), digest));
        }
        if !LOADERS.iter().any(|loader| files.contains_key(loader.name)) {
            Err(LoadersError::Empty(dir.to_owned()))
        } else {
            let pi = Some(dir.join(PI)).filter(|dir| dir.is_dir());
            Ok(Self { files, take_initrd, pi, signer: None })
        }
    }

    /// Returns a loader by its name, and its digest.
    pub fn get(&self, name: &str) -> Option<(Bytes, Digest)> {
        self.files.get(name).cloned()
    }

    /// Returns whether a loader hands an initrd to a kernel on UEFI as it asks for it.
    pub fn takes_initrd(&self, name: &str) -> bool {
        self.take_initrd.contains(name)
    }

    /// Returns U-Boot for Raspberry Pis, where they are to start that.
    pub(crate) fn pi_u_boot(&self) -> Option<Bytes> {
        self.files.get(U_BOOT_RPI.name).map(|(bytes, _)| bytes.clone())
    }

    /// Returns where a file of the firmware of Raspberry Pis is. The name has no part that leads out of the folder.
    pub(crate) fn pi_file(&self, name: &str) -> Option<PathBuf> {
        Some(self.pi.as_ref()?.join(name)).filter(|path| path.is_file())
    }

    /// Returns what a Raspberry Pi 4 or 5 needs beside the kernel, by path. Reads the folder.
    pub(crate) fn pi_firmware(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        let dir = self.pi.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut files = Vec::new();
        for folder in ["", "overlays/"] {
            let entries = match std::fs::read_dir(dir.join(folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let Ok(name) = entry?.file_name().into_string() else { continue };
                let path = format!("{folder}{name}");
                let board = name.starts_with("bcm2711") || name.starts_with("bcm2712");
                let wanted = (board && (name.ends_with(".dtb") || name.ends_with(".dtbo")))
                    || PI_FILES.contains(&path.as_str());
                if wanted {
                    let bytes = read(&dir.join(&path))?;
                    files.push((path, bytes));
                }
            }
        }
        Ok(files)
    }

    /// Returns the stub that programs for an architecture begin with.
    pub fn stub(&self, arch: Arch) -> Option<Bytes> {
        let file = match arch {
            Arch::X86_64 => &STUB_X64,
            Arch::Arm64 => &STUB_ARM64,
        };
        self.files.get(file.name).map(|(bytes, _)| bytes.clone())
    }

    /// Returns who signs the programs that are made for a machine, where someone does.
    pub fn signer(&self) -> Option<Arc<UkiSigner>> {
        self.signer.clone()
    }

    /// Returns the loaders that a machine can be set to and that there are no files of.
    pub fn absent(&self) -> Vec<(Loader, Arch)> {
        let mut absent = Vec::new();
        for arch in [Arch::X86_64, Arch::Arm64] {
            for (loader, files) in [(Loader::Uki, STUBS), (Loader::Grub, SECURE_BOOT)] {
                let mut files = files.iter().filter(|file| file.arch == arch);
                if !files.all(|file| self.files.contains_key(file.name)) {
                    absent.push((loader, arch));
                }
            }
        }
        absent
    }

    /// Returns whether every loader that any firmware wants is there.
    fn is_complete(&self) -> bool {
        LOADERS.iter().all(|loader| self.files.contains_key(loader.name))
    }
}

/// Returns the loaders that the settings name, or Debian's.
///
/// # Errors
///
/// Fails when there are none to be had.
pub async fn obtain(settings: &Settings) -> Result<Loaders, LoadersError> {
    let signing = EfiSettings { signing: settings.uki_signing.clone(), ..EfiSettings::default() };
    let signer = signing.signer().map_err(LoadersError::Key)?.map(UkiSigner::new);
    Ok(Loaders { signer: signer.map(Arc::new), ..files(settings).await? })
}

async fn files(settings: &Settings) -> Result<Loaders, LoadersError> {
    if let Some(dir) = &settings.loaders_dir {
        return Loaders::read(dir);
    }
    let dir = settings.data_dir.join("loaders");
    origins::compare(&dir);
    let found = match Loaders::read(&dir) {
        Ok(loaders) if loaders.is_complete() => loaders,
        Ok(_) | Err(LoadersError::Empty(_)) => fetch::ipxe(settings, dir.clone()).await?,
        Err(error) => return Err(error),
    };
    if settings.raspberry_pi && found.pi.is_none() {
        fetch::pi_firmware(settings, &dir).await.map_err(LoadersError::Pi)?;
    }
    let mut wanted: Vec<&EfiFile> = STUBS.iter().collect();
    if settings.secure_boot {
        wanted.extend(SECURE_BOOT);
    }
    if settings.u_boot_rpi {
        wanted.push(&U_BOOT_RPI);
    }
    wanted.retain(|file| !found.files.contains_key(file.name));
    if wanted.is_empty() {
        return Loaders::read(&dir);
    }
    // Only machines that are set to need them do: the others boot without.
    let fetched = tokio::time::timeout(PATIENCE, fetch::efi_files(settings, &wanted, &dir)).await;
    let error: BoxError = match fetched {
        Ok(Ok(())) => return Loaders::read(&dir),
        Ok(Err(error)) => error,
        Err(late) => late.into(),
    };
    let names: Vec<_> = wanted.iter().map(|file| file.name).collect();
    let names = names.join(", ");
    tracing::warn!(
        error = &*error as &dyn std::error::Error,
        names,
        "not fetched from Debian; machines that are to boot by these cannot"
    );
    Loaders::read(&dir)
}

/// Reads a file that is no larger than any loader.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
