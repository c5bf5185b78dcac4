//! The store: every artifact and manifest under its digest, and one index that names the versions of each image.
//!
//! Many processes may use one store at a time. A file appears whole or not at all: it is written beside its place,
//! made durable and renamed; what a crash leaves is in `tmp` and is cleaned up later.

mod index;

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_types::{Arch, Digest, ImageRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

pub use self::index::{ImageEntry, Index, VersionEntry};
use crate::disk::is_full;
use crate::hash::{Hasher, HashingWriter, sha256};
use crate::manifest::{Manifest, ManifestError};

/// The largest manifest or index that is read.
const MAX_DOCUMENT: u64 = 16 << 20;
/// Temporary files older than this belong to nobody any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A content-addressed directory of artifacts.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// The store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory could not be made or used.
    #[error("cannot use `{path}` as a store")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written; nothing of it is left.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No space is left for a file; nothing of it is left.
    #[error("no space is left on the disk for {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The file or directory.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("`{path}` is damaged; remove it and build the image again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, where that is known.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A manifest cannot be read.
    #[error("cannot read the manifest `{path}`")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

impl StoreError {
    fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match is_full(&source) {
            true => Self::DiskFull { path: path.to_owned() },
            false => Self::Write { path: path.to_owned(), source },
        }
    }
}

impl Store {
    /// Opens a store, making the directory where there is none.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be made or written to.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { dir: dir.into() };
        let failed = |source| StoreError::Open { path: store.dir.clone(), source };
        for dir in [store.blob_dir(), store.tmp_dir(), store.cache_dir()] {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        store.clean_up();
        Ok(store)
    }

    /// Returns the directory of the store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns where the bytes with this digest are, if they are there.
    pub fn artifact(&self, digest: &Digest) -> PathBuf {
        self.blob_dir().join(digest.hex())
    }

    /// Returns the directory for what can be fetched or made again.
    pub fn cache_dir(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Returns the file that is replaced whenever a version is added.
    pub fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    /// Reads which images and versions there are. A new store has none.
    ///
    /// # Errors
    ///
    /// Fails when the index cannot be read or is damaged.
    pub fn index(&self) -> Result<Index, StoreError> {
        Ok(read_json(&self.index_path())?.unwrap_or_default())
    }

    /// Reads a manifest and checks it against its digest.
    ///
    /// # Errors
    ///
    /// Fails when it is missing, cannot be read or is not what the digest says.
    pub fn manifest(&self, version: &Digest) -> Result<Manifest, StoreError> {
        let path = self.artifact(version);
        let bytes = read_document(&path)
            .map_err(|source| StoreError::Read { path: path.clone(), source })?;
        if sha256(&bytes) != *version {
            return Err(StoreError::Damaged { path, source: None });
        }
        Manifest::from_json(&bytes).map_err(|source| StoreError::Manifest { path, source })
    }

    /// Begins a new artifact.
    ///
    /// # Errors
    ///
    /// Fails when no file can be made.
    pub fn writer(&self) -> Result<ArtifactWriter<'_>, StoreError> {
        let dir = self.tmp_dir();
        let file = NamedTempFile::new_in(&dir).map_err(StoreError::write(&dir))?;
        let out = HashingWriter {
            out: BufWriter::with_capacity(1 << 16, file),
            hasher: Hasher::default(),
            written: 0,
        };
        Ok(ArtifactWriter { store: self, out })
    }

    /// Stores some bytes and returns their digest.
    ///
    /// # Errors
    ///
    /// Fails when they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(StoreError::write(&self.tmp_dir()))?;
        Ok(writer.commit()?.0)
    }

    /// Adds a version to the index, newest first, and lets the channel of the reference name it.
    ///
    /// # Errors
    ///
    /// Fails when the index cannot be read or replaced.
    pub fn publish(
        &self,
        image: &ImageRef,
        arch: Arch,
        version: VersionEntry,
    ) -> Result<(), StoreError> {
        let path = self.index_path();
        let lock = self.dir.join("lock");
        let failed = StoreError::write(&lock);
        let lock_file = File::options().create(true).append(true).open(&lock).map_err(&failed)?;
        // Held until the file is closed at the end of this function.
        lock_file.lock().map_err(&failed)?;
        let mut index = self.index()?;
        index.add(image, arch, version);
        self.replace(&path, &index)
    }

    /// Returns what was remembered under a key. A damaged entry counts as none.
    pub fn remembered<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        read_json(&self.memory_path(key)).ok().flatten()
    }

    /// Remembers something under a key, so that it need not be made again.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn remember(&self, key: &Digest, value: &impl Serialize) -> Result<(), StoreError> {
        let path = self.memory_path(key);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(StoreError::write(dir))?;
        }
        self.replace(&path, value)
    }

    /// Replaces a JSON file at once.
    fn replace(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let failed = StoreError::write(path);
        let mut file = NamedTempFile::new_in(self.tmp_dir()).map_err(&failed)?;
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| failed(e.into()))?;
        bytes.push(b'\n');
        file.write_all(&bytes).map_err(&failed)?;
        persist(file, path, 0o644).map_err(failed)
    }

    fn blob_dir(&self) -> PathBuf {
        self.dir.join("blobs").join("sha256")
    }

    /// Returns the directory for files that nothing refers to yet, or that have no name.
    pub(crate) fn tmp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn memory_path(&self, key: &Digest) -> PathBuf {
        self.cache_dir().join("built").join(format!("{}.json", key.hex()))
    }

    /// Removes what crashed builds have left. That it fails does no harm.
    fn clean_up(&self) {
        for entry in fs::read_dir(self.tmp_dir()).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok();
            if age.and_then(|t| t.elapsed().ok()).is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// An artifact that is being written. It is gone again when it is dropped before [`commit`](Self::commit).
pub struct ArtifactWriter<'a> {
    store: &'a Store,
    out: HashingWriter<BufWriter<NamedTempFile>>,
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

    /// Makes the artifact durable under its digest and returns that and its length.
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
        persist(file, &path, 0o444).map_err(failed)?;
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

/// Makes a temporary file durable and gives it its name and mode.
pub(crate) fn persist(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The rename is durable once the directory is.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read_document(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(bytes)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match read_document(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Damaged { path: path.to_owned(), source: Some(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_appears_whole_read_only_and_under_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"abc").unwrap();
        assert!(!store.artifact(&sha256(b"abc")).exists());
        let (digest, size) = writer.commit().unwrap();
        assert_eq!((digest, size), (sha256(b"abc"), 3));
        let path = store.artifact(&digest);
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o444);
        assert_eq!(store.put(b"abc").unwrap(), digest);
        assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_manifest_that_is_not_what_its_digest_says_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = sha256(b"{}");
        assert!(matches!(store.manifest(&digest), Err(StoreError::Read { .. })));
        fs::write(store.artifact(&digest), b"[]").unwrap();
        assert!(matches!(store.manifest(&digest), Err(StoreError::Damaged { source: None, .. })));
    }

    #[test]
    fn publishing_moves_the_channel_and_keeps_older_versions() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let image: ImageRef = "web:edge".parse().unwrap();
        for (n, text) in [(1, "a"), (2, "b"), (3, "a")] {
            let version = VersionEntry::new(sha256(text.as_bytes()), n, n);
            store.publish(&image, Arch::Arm64, version).unwrap();
        }
        let index = store.index().unwrap();
        let entry = &index.images["web"][&Arch::Arm64];
        assert_eq!(entry.channels["edge"], sha256(b"a"));
        let order: Vec<_> = entry.versions.iter().map(|v| v.digest).collect();
        assert_eq!(order, [sha256(b"a"), sha256(b"b")]);
    }
}
