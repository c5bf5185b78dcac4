use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::packages::Packages;
use super::{BuildError, BuildRequest, contents};
use crate::disk::is_full;
use crate::hash::sha256;
use crate::lock::PackagePin;
use crate::manifest::Manifest;
use crate::oci;
use crate::output::{self, Bootable, Format, Options, Stub, StubError};
use crate::store::{Store, VersionEntry, persist};

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
