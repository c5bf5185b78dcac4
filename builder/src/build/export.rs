use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::BuildError;
use crate::disk::is_full;
use crate::manifest::Manifest;
use crate::store::{Store, persist};

/// Writes `kernel`, `initrd.img` and `cmdline` into a directory, for other ways to boot.
pub(super) fn export(store: &Store, manifest: &Manifest, dir: &Path) -> Result<(), BuildError> {
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
    write("cmdline", &|file| writeln!(file, "{}", manifest.cmdline))
}
