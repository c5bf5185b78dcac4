use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiln_types::Arch;

use super::pe::{Headers, PeError};
use crate::deb::{self, Archive, ArchiveConfig, DebError, PackageIndex, Pool};
use crate::fetch::Fetcher;
use crate::lock::PackagePin;
use crate::manifest::PackageEntry;
use crate::tree::{TreePath, TreePathError};

/// No stub is anywhere near this size.
const MAX_STUB: u64 = 4 << 20;

/// systemd's stub: the program that a unified kernel image begins with. It takes kernel, initrd and kernel arguments
/// out of its own sections and starts them.
#[derive(Clone, Debug)]
pub struct Stub {
    bytes: Bytes,
    arch: Arch,
    package: Option<PackageEntry>,
}

/// There is no stub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StubError {
    /// The package cannot be had.
    #[error("cannot get systemd's stub from Debian's package `systemd-boot-efi`")]
    Package(#[from] DebError),
    /// The suite has no such package.
    #[error("the suite has no package `systemd-boot-efi` for {0}; name a file with the stub")]
    NoPackage(Arch),
    /// The package that the lock pins is no longer on the mirror.
    #[error(
        "package systemd-boot-efi {version}, which the lock of this version names, is no longer on the mirror; name a \
         file with the stub, or build the version again"
    )]
    Gone {
        /// Its version.
        version: String,
        /// What the mirror said.
        #[source]
        source: DebError,
    },
    /// The package lacks the file.
    #[error("Debian's package `systemd-boot-efi` has no file `{0}`")]
    NoFile(&'static str),
    /// The path of the file is no path.
    #[error("cannot look into Debian's package `systemd-boot-efi`")]
    Path(#[from] TreePathError),
    /// A file cannot be read.
    #[error("cannot read the stub `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not a stub.
    #[error("`{path}` is not systemd's stub for {arch}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What it should run on.
        arch: Arch,
        /// Why.
        #[source]
        source: PeError,
    },
}

impl Stub {
    /// Debian's package of the stub.
    pub const PACKAGE: &str = "systemd-boot-efi";

    /// Reads a stub from a file.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or is not a UEFI program for the architecture.
    pub fn read(path: &Path, arch: Arch) -> Result<Self, StubError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(MAX_STUB + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > MAX_STUB {
                return Err(io::Error::other("it is larger than 4 MiB"));
            }
            Ok(bytes)
        };
        let bytes = read().map_err(|source| StubError::Read { path: path.to_owned(), source })?;
        Self::new(bytes, arch, path, None)
    }

    /// Takes the stub from a suite whose signature has been checked. The package stays in the cache.
    ///
    /// # Errors
    ///
    /// Fails when the suite has no such package, or it cannot be fetched or read.
    pub async fn fetch(
        archive: &Archive<'_>,
        index: &PackageIndex,
        arch: Arch,
    ) -> Result<Self, StubError> {
        let package = index.get(Self::PACKAGE).ok_or(StubError::NoPackage(arch))?;
        let file = archive.fetch(package).await?;
        let entry = PackageEntry {
            name: package.name.clone(),
            version: package.version.to_string(),
            arch: package.arch.clone(),
            sha256: package.sha256,
        };
        // About 100 KB: short enough not to need a thread of its own.
        Self::from_package(&file, entry, arch)
    }

    /// Takes the stub out of a package that has been fetched.
    ///
    /// # Errors
    ///
    /// Fails when the package cannot be read or has no stub for the architecture.
    pub fn from_package(file: &Path, entry: PackageEntry, arch: Arch) -> Result<Self, StubError> {
        let path = match arch {
            Arch::X86_64 => "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
            Arch::Arm64 => "usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
        };
        let tree = deb::unpack(file)?;
        let content = tree.content(&TreePath::new(path)?).ok_or(StubError::NoFile(path))?;
        let bytes = content
            .read_all(MAX_STUB)
            .map_err(|source| StubError::Read { path: path.into(), source })?;
        Self::new(bytes, arch, Path::new(path), Some(entry))
    }

    /// Takes the stub out of the package that a lock file pins: from the cache, or the pool of the mirror.
    ///
    /// # Errors
    ///
    /// Fails when the package cannot be fetched or read.
    pub async fn pinned(
        pin: &PackagePin,
        config: &ArchiveConfig,
        fetcher: &Fetcher<'_>,
        arch: Arch,
    ) -> Result<Self, StubError> {
        let pool = Pool::new(config, fetcher)?;
        let fetched = pool.fetch(&pin.name, &pin.file, pin.size, pin.sha256).await;
        let file = fetched.map_err(|source| match source.is_gone() {
            true => StubError::Gone { version: pin.version.clone(), source },
            false => source.into(),
        })?;
        let entry = PackageEntry {
            name: pin.name.clone(),
            version: pin.version.clone(),
            arch: pin.arch.clone(),
            sha256: pin.sha256,
        };
        Self::from_package(&file, entry, arch)
    }

    /// Takes the stub from a Debian suite.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch), and when the suite cannot be read.
    pub async fn obtain(
        config: ArchiveConfig,
        fetcher: &Fetcher<'_>,
        arch: Arch,
    ) -> Result<Self, StubError> {
        let archive = Archive::open(config, fetcher).await?;
        let index = archive.packages(arch).await?;
        Self::fetch(&archive, &index, arch).await
    }

    fn new(
        bytes: Vec<u8>,
        arch: Arch,
        path: &Path,
        package: Option<PackageEntry>,
    ) -> Result<Self, StubError> {
        Headers::parse(&bytes)
            .and_then(|headers| headers.check_arch(arch))
            .map_err(|source| StubError::Wrong { path: path.to_owned(), arch, source })?;
        Ok(Self { bytes: bytes.into(), arch, package })
    }

    /// Returns the program.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what it runs on.
    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// Returns the package that it is from. The bytes of a program are those of its version and its stub.
    pub const fn package(&self) -> Option<&PackageEntry> {
        self.package.as_ref()
    }
}
