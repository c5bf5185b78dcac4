use std::fs;
use std::io::{self, BufWriter, Read as _, Write};

use kiln_types::Digest;
use tempfile::NamedTempFile;

use super::{Store, StoreError};
use crate::durable::persist_bytes;
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
