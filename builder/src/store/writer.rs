use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_types::Digest;
use tempfile::NamedTempFile;

use super::{Store, StoreError};
use crate::hash::HashingWriter;

/// An artifact that is being written. It is gone again when it is dropped before [`commit`](Self::commit).
pub struct ArtifactWriter<'a> {
    pub(super) store: &'a Store,
    pub(super) out: HashingWriter<BufWriter<NamedTempFile>>,
}

impl std::fmt::Debug for ArtifactWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactWriter").field("written", &self.out.written).finish()
    }
}

impl ArtifactWriter<'_> {
    /// Fills up with zeros to a multiple of so many bytes.
    pub(crate) fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let gap = self.out.written.next_multiple_of(alignment) - self.out.written;
        io::copy(&mut io::repeat(0).take(gap), self).map(drop)
    }

    /// Returns the digest of what was written until now.
    pub(crate) fn digest(&self) -> Digest {
        self.out.hasher.clone().finish()
    }

    /// Gives the artifact its name, its digest, and returns that and its length. Its bytes are durable before; its
    /// name is once a version with it is published.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written or moved to its place.
    pub fn commit(self) -> Result<(Digest, u64), StoreError> {
        let (digest, size) = (self.out.hasher.finish(), self.out.written);
        let path = self.store.artifact(&digest);
        let failed = StoreError::write(&path);
        let file = self.out.out.into_inner().map_err(|e| failed(e.into_error()))?;
        // The same bytes are there already: nothing can be better about ours. A file of another length is damage.
        if fs::metadata(&path).is_ok_and(|known| known.len() == size) {
            return Ok((digest, size));
        }
        persist_bytes(file, &path, 0o444).map_err(failed)?;
        Ok((digest, size))
    }
}

impl Write for ArtifactWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.out.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Makes a temporary file durable and gives it its name and mode, over what was there.
///
/// # Errors
///
/// Fails when it cannot be written or named; what was there before is there then.
pub fn persist(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    persist_bytes(file, path, mode)?;
    // The rename is durable once the directory is.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    sync_dir(dir.unwrap_or_else(|| Path::new(".")))
}

/// Makes the bytes of a temporary file durable and gives it its name and mode. After a crash the name may be missing,
/// but never names anything else.
fn persist_bytes(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
