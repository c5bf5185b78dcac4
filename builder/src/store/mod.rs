//! The store: every artifact and manifest under its digest, and one index that names the versions of each image.
//!
//! Many processes may use one store at a time. A file appears whole or not at all: it is written beside its place,
//! made durable and renamed; what a crash leaves is in `tmp` and is cleaned up later.

mod error;
mod gc;
mod index;
mod key_lock;
mod verify;
mod versions;
mod writer;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_types::{Arch, Digest, ImageRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

pub use self::error::StoreError;
pub use self::gc::{GcOptions, GcReport, RemovedVersion};
pub use self::index::{ImageEntry, Index, VersionEntry};
pub use self::key_lock::KeyLock;
pub use self::verify::Fault;
pub use self::writer::ArtifactWriter;
use crate::durable::{persist, sync_folder};
use crate::hash::{Hasher, HashingWriter, sha256};
use crate::manifest::Manifest;

/// The largest manifest or index that is read.
const MAX_DOCUMENT: u64 = 16 << 20;
/// Temporary files older than this belong to nobody any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What was used so lately need not be marked as used again.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// A content-addressed directory of artifacts.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
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

    /// Returns whether an artifact of this length is there, and marks it as used: it is not collected for a while.
    pub(crate) fn holds(&self, digest: &Digest, size: u64) -> bool {
        let path = self.artifact(digest);
        let there = fs::metadata(&path).is_ok_and(|file| file.len() == size);
        if there {
            touch(&path);
        }
        there
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
        self.change(|index| {
            // Whoever removes artifacts holds the same lock: what is there now stays.
            let manifest = self.manifest(&version.digest)?;
            for artifact in manifest.artifacts().chain(version.attachments.values().copied()) {
                if !self.artifact(&artifact).exists() {
                    return Err(StoreError::Incomplete { version: version.digest, artifact });
                }
            }
            index.add(image, arch, version);
            Ok(())
        })
    }

    /// Changes the index while nobody else can.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = self.dir.join("lock");
        let failed = StoreError::write(&path);
        let lock = File::options().create(true).append(true).open(&path).map_err(&failed)?;
        // Held until the file is closed at the end of this function.
        lock.lock().map_err(&failed)?;
        let before = self.index()?;
        let mut index = before.clone();
        let result = change(&mut index)?;
        if index != before {
            // What it names must be there after a crash: every artifact is durable but for its name.
            let blobs = self.blob_dir();
            sync_folder(&blobs).map_err(StoreError::write(&blobs))?;
            let path = self.index_path();
            persist(self.json(&index, &path)?, &path, 0o644).map_err(StoreError::write(&path))?;
        }
        Ok(result)
    }

    /// Returns what was remembered under a key. A damaged entry counts as none.
    pub fn remembered<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        let path = self.memory_path(key);
        let found = read_json(&path).ok().flatten();
        if found.is_some() {
            touch(&path);
        }
        found
    }

    /// Remembers something under a key, so that it need not be made again. A crash of the machine may lose it, or
    /// leave it damaged, which counts as lost: waiting for the disk is not worth it.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn remember(&self, key: &Digest, value: &impl Serialize) -> Result<(), StoreError> {
        let path = self.memory_path(key);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(StoreError::write(dir))?;
        }
        let file = self.json(value, &path)?;
        let named = file.as_file().set_permissions(fs::Permissions::from_mode(0o644));
        named
            .and_then(|()| file.persist(&path).map(drop).map_err(|error| error.error))
            .map_err(StoreError::write(&path))
    }

    /// Writes a document into a temporary file, which is to get a name.
    fn json(&self, value: &impl Serialize, path: &Path) -> Result<NamedTempFile, StoreError> {
        let failed = StoreError::write(path);
        let mut file = NamedTempFile::new_in(self.tmp_dir()).map_err(&failed)?;
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| failed(e.into()))?;
        bytes.push(b'\n');
        file.write_all(&bytes).map_err(failed)?;
        Ok(file)
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
        let caches = ["deb", "deb/pool", "deb/index", "oci", "oci/blobs", "oci/blobs/sha256"];
        let caches = caches.map(|name| (self.cache_dir().join(name), true));
        for (dir, named) in [(self.tmp_dir(), false)].into_iter().chain(caches) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                // Among files that stay, temporary ones are told by the names that they are given.
                if named && !entry.file_name().to_string_lossy().starts_with(".tmp") {
                    continue;
                }
                let meta = entry.metadata();
                let age = meta.as_ref().ok().and_then(|m| m.modified().ok()?.elapsed().ok());
                if age.is_some_and(|age| age > ABANDONED) {
                    let _ = match meta.is_ok_and(|meta| meta.is_dir()) {
                        true => fs::remove_dir_all(entry.path()),
                        false => fs::remove_file(entry.path()),
                    };
                }
            }
        }
    }
}

/// Tells garbage collection that a file is in use. A store that cannot be written to has none.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let used = fs::metadata(path).and_then(|meta| meta.modified());
    let fresh = used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age < FRESH));
    if !fresh && let Ok(file) = File::open(path) {
        let _ = file.set_modified(now);
    }
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
mod tests;
