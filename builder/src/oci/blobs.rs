//! The cache of what was pulled: `oci/blobs/sha256/HEX`, and `oci/partial` for what is on its way.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_types::Digest;
use tempfile::NamedTempFile;

use crate::durable::{folder_of, persist, sync_folder};
use crate::hash::{Hasher, sha256};

/// A download that nobody goes on with is thrown away after this long.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Blobs by digest. Many processes may use one cache at a time.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
}

/// A download under way: the file that grows, and the lock that keeps other builds from writing it too.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) file: File,
    path: PathBuf,
    digest: Digest,
    _lock: File,
}

/// What came of taking up a download.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Another build has finished it meanwhile.
    There(PathBuf),
    /// It is ours now.
    Ours(Partial),
}

impl Blobs {
    pub(crate) fn new(cache: &Path) -> Self {
        Self { dir: cache.join("oci") }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest.hex())
    }

    /// Returns where a blob is, if it is there. It was checked when it came, and the file is whole or not there at all.
    pub(crate) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        path.is_file().then_some(path)
    }

    /// Reads a small blob and checks it, for it is the root of trust in all that it names.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(digest)).ok()?.take(limit + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= limit && sha256(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps a small blob.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = sha256(bytes);
        let mut file = self.temporary()?;
        io::Write::write_all(&mut file, bytes)?;
        self.keep(file, &digest)?;
        Ok(digest)
    }

    /// Begins a blob that is made here.
    pub(crate) fn temporary(&self) -> io::Result<NamedTempFile> {
        let partial = self.partial_dir();
        fs::create_dir_all(&partial)?;
        NamedTempFile::new_in(partial)
    }

    /// Keeps a blob that was made here.
    pub(crate) fn keep(&self, file: NamedTempFile, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
        persist(file, &path, 0o444)
    }

    /// Takes up the download of a blob, waiting while another build is at it. What an earlier one has left is kept.
    pub(crate) fn take(&self, digest: &Digest) -> io::Result<Taken> {
        let partial = self.partial_dir();
        fs::create_dir_all(&partial)?;
        fs::create_dir_all(self.path(digest).parent().unwrap_or(&self.dir))?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(partial.join(format!("{}.lock", digest.hex())))?;
        lock.lock()?;
        if let Some(path) = self.find(digest) {
            return Ok(Taken::There(path));
        }
        let path = partial.join(digest.hex());
        let file = File::options().create(true).read(true).append(true).open(&path)?;
        Ok(Taken::Ours(Partial { file, path, digest: *digest, _lock: lock }))
    }

    /// Removes downloads that nobody goes on with. That it fails does no harm.
    pub(crate) fn clean_up(&self) {
        for entry in fs::read_dir(self.partial_dir()).into_iter().flatten().flatten() {
            let changed = entry.metadata().and_then(|it| it.modified()).ok();
            let age = changed.and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn partial_dir(&self) -> PathBuf {
        self.dir.join("partial")
    }
}

impl Partial {
    /// Returns how much is there.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Throws away what is there.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Checks the whole and gives it its name. A blob that is not what it should be is thrown away; its digest is
    /// returned.
    pub(crate) fn finish(mut self, blobs: &Blobs) -> io::Result<Result<PathBuf, Digest>> {
        self.file.rewind()?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let got = hasher.finish();
        if got != self.digest {
            fs::remove_file(&self.path)?;
            return Ok(Err(got));
        }
        self.file.sync_all()?;
        let path = blobs.path(&self.digest);
        fs::rename(&self.path, &path)?;
        sync_folder(folder_of(&path))?;
        let _ = fs::remove_file(self.path.with_extension("lock"));
        Ok(Ok(path))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_download_goes_on_where_it_was_broken_off_and_counts_only_when_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let digest = sha256(b"hello");
        let Taken::Ours(mut first) = blobs.take(&digest).unwrap() else { panic!() };
        first.file.write_all(b"hel").unwrap();
        drop(first);
        assert_eq!(blobs.find(&digest), None);
        let Taken::Ours(mut second) = blobs.take(&digest).unwrap() else { panic!() };
        assert_eq!(second.len().unwrap(), 3);
        second.file.write_all(b"lo").unwrap();
        let path = second.finish(&blobs).unwrap().unwrap();
        assert_eq!(fs::read(path).unwrap(), b"hello");
        assert!(matches!(blobs.take(&digest).unwrap(), Taken::There(_)));

        let wrong = sha256(b"other");
        let Taken::Ours(mut third) = blobs.take(&wrong).unwrap() else { panic!() };
        third.file.write_all(b"hello").unwrap();
        assert_eq!(third.finish(&blobs).unwrap(), Err(digest));
        assert_eq!(blobs.find(&wrong), None);
        let Taken::Ours(empty) = blobs.take(&wrong).unwrap() else { panic!() };
        assert_eq!(empty.len().unwrap(), 0);
    }

    #[test]
    fn a_small_blob_is_checked_whenever_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let digest = blobs.write(b"{}").unwrap();
        assert_eq!(blobs.read(&digest, 10).unwrap(), b"{}");
        assert_eq!(blobs.read(&digest, 1), None);
        fs::remove_file(blobs.path(&digest)).unwrap();
        fs::write(blobs.path(&digest), b"[]").unwrap();
        assert_eq!(blobs.read(&digest, 10), None);
    }

    #[test]
    fn two_builds_share_one_download() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let digest = sha256(b"once");
        let Taken::Ours(mut first) = blobs.take(&digest).unwrap() else { panic!() };
        let other = {
            let blobs = blobs.clone();
            std::thread::spawn(move || matches!(blobs.take(&digest).unwrap(), Taken::There(_)))
        };
        first.file.write_all(b"once").unwrap();
        first.finish(&blobs).unwrap().unwrap();
        assert!(other.join().unwrap());
    }
}
