use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kiln_types::Arch;
use tempfile::NamedTempFile;

use super::packages::{Packages, in_lock};
use super::resolve::STUB;
use super::{BuildError, BuildRequest, LOCK, contents};
use crate::disk::is_full;
use crate::durable::persist;
use crate::hash::sha256;
use crate::lock::{Lock, LockError, PackagePin};
use crate::manifest::Manifest;
use crate::oci;
use crate::output::{self, Bootable, Format, Options, Stub, StubError};
use crate::store::{Store, VersionEntry};

/// Writes a version into a directory in every format that is asked for, and returns the files.
pub(super) async fn export(
    request: &BuildRequest<'_>,
    manifest: &Manifest,
    packages: &Packages<'_>,
    pin: Option<&PackagePin>,
    dir: &Path,
) -> Result<Vec<PathBuf>, BuildError> {
    let mut written = Vec::new();
    let mut formats = request.formats.clone();
    if formats.is_empty() {
        formats.push(Format::KernelInitrd);
    }
    let store = request.store;
    let mut stub = None;
    for format in formats {
        match format {
            // Written by who knows the components.
            Format::Tar => {}
            Format::KernelInitrd => written.extend(kernel_and_initrd(store, manifest, dir)?),
            efi if efi.is_efi() => {
                let stub = match &stub {
                    Some(stub) => stub,
                    None => stub.insert(self::stub(manifest, packages, pin).await?),
                };
                let bootable = Bootable { manifest, store, cmdline: &manifest.cmdline };
                written.push(output::write(efi, &bootable, &Options::new(stub), dir)?);
            }
            Format::Oci => written.push(archive(store, manifest, dir)?),
            other => return Err(BuildError::Format { format: other }),
        }
    }
    Ok(written)
}

/// Returns whether something that is asked for begins with systemd's stub.
pub(super) fn needs_stub(request: &BuildRequest<'_>) -> bool {
    request.out.is_some() && request.formats.iter().any(|format| format.is_efi())
}

/// Returns the package of systemd's stub that the lock of a version pins, if it does: it was built in a format for UEFI,
/// or its lock file names the package since then.
///
/// # Errors
///
/// Fails when the lock cannot be read.
pub fn stub_pin(
    store: &Store,
    version: &VersionEntry,
    arch: Arch,
) -> Result<Option<PackagePin>, LockError> {
    let Some(digest) = version.attachments.get(LOCK) else { return Ok(None) };
    let lock = Lock::load(&store.artifact(digest))?.unwrap_or_default();
    let name = in_lock(Stub::PACKAGE, STUB);
    let mut closures = lock.closures();
    let found = closures.find(|(key, _)| key.arch == arch && key.wanted == [name.as_str()]);
    Ok(found.and_then(|(_, packages)| packages.first().cloned()))
}

/// Writes a version with what belongs to it as an archive of an OCI layout.
fn archive(store: &Store, manifest: &Manifest, dir: &Path) -> Result<PathBuf, BuildError> {
    let version = sha256(&manifest.to_canonical_json().map_err(BuildError::Manifest)?);
    let index = store.index()?;
    let entry = index.images.get(&manifest.image).and_then(|arches| arches.get(&manifest.arch));
    let known = entry.and_then(|entry| entry.versions.iter().find(|it| it.digest == version));
    let bare = VersionEntry::new(version, 0, manifest.download_size());
    let name = format!("{}{}", manifest.image, Format::Oci.suffix(manifest.arch));
    let path = dir.join(name);
    fs::create_dir_all(dir)
        .map_err(|source| BuildError::Export { path: dir.to_owned(), source })?;
    oci::write_archive(store, manifest.arch, known.unwrap_or(&bare), &path)
        .map_err(|source| BuildError::Sources(Box::new(source)))
}

/// Fetches systemd's stub.
async fn stub(
    manifest: &Manifest,
    packages: &Packages<'_>,
    pin: Option<&PackagePin>,
) -> Result<Stub, BuildError> {
    let pin = pin.ok_or(StubError::NoPackage(manifest.arch))?;
    let file = packages.fetch(pin).await?;
    Ok(Stub::from_package(&file, contents::entry(pin), manifest.arch)?)
}

/// Writes `kernel`, `initrd.img` and `cmdline` into a directory, for other ways to boot.
fn kernel_and_initrd(
    store: &Store,
    manifest: &Manifest,
    dir: &Path,
) -> Result<[PathBuf; 3], BuildError> {
    let write = |name: &str, fill: &dyn Fn(&mut NamedTempFile) -> io::Result<()>| {
        let path = dir.join(name);
        NamedTempFile::new_in(dir)
            .and_then(|mut file| {
                fill(&mut file)?;
                persist(file, &path, 0o644)
            })
            .map_err(|source| match is_full(&source) {
                true => BuildError::ExportFull { path },
                false => BuildError::Export { path, source },
            })
    };
    fs::create_dir_all(dir)
        .map_err(|source| BuildError::Export { path: dir.to_owned(), source })?;
    let copy = |digest, file: &mut NamedTempFile| {
        io::copy(&mut File::open(store.artifact(digest))?, file.as_file_mut())
    };
    write("kernel", &|file| copy(&manifest.kernel.digest, file).map(drop))?;
    write("initrd.img", &|file| {
        for segment in &manifest.segments {
            let len = copy(&segment.digest, file)?;
            // The kernel looks for an archive at every multiple of four and skips zeros.
            let gap = usize::try_from(len.wrapping_neg() % 4).unwrap_or(0);
            file.write_all(&[0; 3][..gap])?;
        }
        Ok(())
    })?;
    write("cmdline", &|file| writeln!(file, "{}", manifest.cmdline))?;
    Ok(["kernel", "initrd.img", "cmdline"].map(|name| dir.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::ClosureKey;

    #[test]
    fn the_stub_that_a_version_was_built_with_is_known_from_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pin = PackagePin {
            name: Stub::PACKAGE.to_owned(),
            version: "257.9-1".to_owned(),
            arch: "amd64".to_owned(),
            file: "pool/main/s/systemd/x.deb".to_owned(),
            size: 1,
            sha256: sha256(b"x"),
        };
        let mut lock = Lock::default();
        let bare = VersionEntry::new(sha256(b"version"), 0, 1);
        let with = |lock: &Lock| {
            bare.clone().with(LOCK, store.put(lock.to_text().unwrap().as_bytes()).unwrap())
        };
        let known = |entry: &VersionEntry| stub_pin(&store, entry, Arch::X86_64).unwrap();
        assert_eq!((known(&bare), known(&with(&lock))), (None, None));
        let wanted = [in_lock(Stub::PACKAGE, STUB)];
        lock.pin_closure(ClosureKey::new(Arch::Arm64, "trixie", &wanted), vec![pin.clone()]);
        assert_eq!(known(&with(&lock)), None);
        lock.pin_closure(ClosureKey::new(Arch::X86_64, "trixie", &wanted), vec![pin.clone()]);
        assert_eq!(known(&with(&lock)), Some(pin));
    }
}
