use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiln_types::Digest;
use tempfile::NamedTempFile;

use super::format::Format;
use super::plan::Plan;
use super::qcow2::{self, Qcow2Error};
use super::raw::{self, Disk, DiskError, STATE_LABEL};
use super::sign::{self, SignError, Signer};
use super::stub::Stub;
use super::uki::{self, Parts, UkiError};
use super::{iso, pe};
use crate::disk::is_full;
use crate::durable::persist;
use crate::hash::sha256;
use crate::manifest::Manifest;
use crate::store::Store;

/// A version that machines can start.
#[derive(Clone, Copy, Debug)]
pub struct Bootable<'a> {
    /// What it consists of.
    pub manifest: &'a Manifest,
    /// Where its artifacts are.
    pub store: &'a Store,
    /// The kernel arguments: those of the manifest, or what a machine gets instead.
    pub cmdline: &'a str,
}

/// How to write it.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// What the UEFI program begins with.
    pub stub: &'a Stub,
    /// Who signs the UEFI program, if anyone.
    pub signer: Option<&'a dyn Signer>,
    /// A devicetree for boards whose firmware has none.
    pub devicetree: Option<&'a Bytes>,
    /// The size of a disk image in bytes; what the boot partition does not take is for state.
    pub disk_size: Option<u64>,
    /// The name of the partition for state.
    pub state_label: &'a str,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("signed", &self.signer.is_some())
            .field("disk_size", &self.disk_size)
            .finish_non_exhaustive()
    }
}

impl<'a> Options<'a> {
    /// Returns the usual options: not signed, a disk as small as it can be.
    pub const fn new(stub: &'a Stub) -> Self {
        Self { stub, signer: None, devicetree: None, disk_size: None, state_label: STATE_LABEL }
    }
}

/// A version cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The format has no UEFI program in it, so it is not planned here.
    #[error("`{0}` is no format that UEFI boots")]
    NotEfi(Format),
    /// The version has no name: its manifest cannot be written as JSON.
    #[error("cannot write the manifest")]
    Manifest(#[source] serde_json::Error),
    /// Something cannot be read from the store.
    #[error("cannot read the image")]
    Read(#[source] io::Error),
    /// The UEFI program cannot be put together.
    #[error(transparent)]
    Uki(#[from] UkiError),
    /// The UEFI program cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The disk image cannot be put together.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk image cannot be converted.
    #[error(transparent)]
    Qcow2(#[from] Qcow2Error),
    /// No space is left for a file; nothing of it is left.
    #[error("no space is left on the disk for {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written; nothing of it is left.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Bootable<'_> {
    /// Returns the digest of the manifest, which is the version.
    ///
    /// # Errors
    ///
    /// Fails when the manifest has no JSON form, which none lacks.
    pub fn version(&self) -> Result<Digest, OutputError> {
        let json = self.manifest.to_canonical_json().map_err(OutputError::Manifest)?;
        Ok(sha256(&json))
    }

    /// Returns what goes into a UEFI program. A server may add a segment of its own to the initrd.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read.
    pub fn parts(&self) -> Result<Parts, OutputError> {
        let mut kernel = Plan::default();
        kernel.push_artifact(self.manifest.kernel.digest, self.manifest.kernel.size);
        let mut kernel_head = Vec::new();
        kernel
            .slice(0..pe::MAX_HEADERS)
            .write(self.store, &mut kernel_head)
            .map_err(OutputError::Read)?;
        Ok(Parts {
            arch: self.manifest.arch,
            kernel,
            kernel_head: kernel_head.into(),
            initrd: initrd(self.manifest),
            cmdline: self.cmdline.to_owned(),
            release: self.manifest.kernel.release.clone(),
            os_release: self.os_release()?,
            devicetree: None,
        })
    }

    /// Returns what boot menus show: the os-release fields of the image (os-release(5)).
    fn os_release(&self) -> Result<String, OutputError> {
        let (image, version) = (&self.manifest.image, self.version()?.short());
        let mut text = String::from("ID=kiln\nNAME=Kiln\n");
        // Writing to text does not fail.
        let _ = writeln!(text, "PRETTY_NAME=\"{image} {version}\"");
        let _ = writeln!(text, "VERSION_ID={version}\nIMAGE_ID={image}\nIMAGE_VERSION={version}");
        Ok(text)
    }
}

/// Returns all segments in one: the kernel looks for an archive at every multiple of four and skips zeros.
pub fn initrd(manifest: &Manifest) -> Plan {
    let mut plan = Plan::default();
    for segment in &manifest.segments {
        plan.push_artifact(segment.digest, segment.size);
        plan.align(4);
    }
    plan
}

/// Plans a file in a format that UEFI boots: its bytes, and so its length and digest, without writing it.
///
/// # Errors
///
/// Fails when the image cannot be read, has no kernel that UEFI starts, is too large, or the key does not sign.
pub fn plan(
    format: Format,
    bootable: &Bootable<'_>,
    options: &Options<'_>,
) -> Result<Plan, OutputError> {
    if !format.is_efi() {
        return Err(OutputError::NotEfi(format));
    }
    let mut parts = bootable.parts()?;
    parts.devicetree = options.devicetree.cloned();
    let mut program = uki::plan(options.stub.bytes(), &parts)?;
    if let Some(signer) = options.signer {
        program = sign::sign(&program, bootable.store, signer)?;
    }
    let program = pe::with_checksum(&program, bootable.store).map_err(OutputError::Read)?;
    let (arch, version) = (bootable.manifest.arch, bootable.version()?);
    Ok(match format {
        Format::IsoEfi => iso::plan(&program, arch, &version, &bootable.manifest.image)?,
        Format::RawEfi | Format::Qcow2Efi => {
            let (size, state_label) = (options.disk_size, options.state_label);
            raw::plan(&program, &Disk { arch, version: &version, size, state_label })?
        }
        _ => program,
    })
}

/// Writes a file in a format that UEFI boots into a directory, which is made, and returns its path: the name of the
/// image with [`Format::suffix`]. It appears whole or not at all.
///
/// # Errors
///
/// As [`plan`], and when the file cannot be written.
pub fn write(
    format: Format,
    bootable: &Bootable<'_>,
    options: &Options<'_>,
    dir: &Path,
) -> Result<PathBuf, OutputError> {
    let plan = plan(format, bootable, options)?;
    let manifest = bootable.manifest;
    let path = dir.join(format!("{}{}", manifest.image, format.suffix(manifest.arch)));
    let failed = |source| match is_full(&source) {
        true => OutputError::DiskFull { path: path.clone() },
        false => OutputError::Write { path: path.clone(), source },
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut file = NamedTempFile::new_in(dir).map_err(failed)?;
    plan.write_sparse(bootable.store, file.as_file_mut()).map_err(failed)?;
    if format == Format::Qcow2Efi {
        let raw = file;
        file = NamedTempFile::new_in(dir).map_err(failed)?;
        qcow2::convert(raw.path(), file.path())?;
    }
    persist(file, &path, 0o644).map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
