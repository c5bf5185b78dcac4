//! A download on its way: a file that a later try, or a later run, can go on with.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_types::Digest;
use tempfile::NamedTempFile;

use super::{FetchError, publish};
use crate::durable::{folder_of, sync_folder};
use crate::hash::Hasher;

/// What is left of downloads that nobody went on with is removed after this long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The bytes that have come so far.
pub(super) struct Partial {
    place: Place,
    hash: Hasher,
    pub(super) got: u64,
}

enum Place {
    /// Beside the file that it becomes, locked; it outlives a failure.
    Kept { path: PathBuf, file: File },
    /// For this try only.
    Temporary(NamedTempFile),
}

impl Partial {
    /// Opens the file for a download to `path`. With `keep`, one that broke off before is gone on with, unless another
    /// process is at it.
    pub(super) fn open(path: &Path, keep: bool) -> io::Result<Self> {
        let dir = folder_of(path);
        fs::create_dir_all(dir)?;
        if keep && let Some(partial) = Self::kept(path)? {
            return Ok(partial);
        }
        let place = Place::Temporary(NamedTempFile::new_in(dir)?);
        Ok(Self { place, hash: Hasher::default(), got: 0 })
    }

    fn kept(path: &Path) -> io::Result<Option<Self>> {
        let path = part_path(path);
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // Whoever held the lock may have given the file its final name meanwhile.
        let (ours, there) = (file.metadata()?, fs::metadata(&path));
        if !there.is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
            return Ok(None);
        }
        let mut hash = Hasher::default();
        let mut got = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    got += n as u64;
                }
            }
        }
        Ok(Some(Self { place: Place::Kept { path, file }, hash, got }))
    }

    /// Returns another handle to write to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file().try_clone()
    }

    /// Notes bytes that were written.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.got += bytes.len() as u64;
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        let mut file = self.file();
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        self.hash = Hasher::default();
        self.got = 0;
        Ok(())
    }

    /// Returns the hash of all bytes so far.
    pub(super) fn digest(&self) -> Digest {
        self.hash.clone().finish()
    }

    /// Gives the file its name. All bytes have to be durable.
    pub(super) fn finish(self, path: &Path) -> Result<(), FetchError> {
        match self.place {
            Place::Temporary(temp) => publish(temp, path),
            Place::Kept { path: part, file: _file } => {
                let failed = FetchError::write(path);
                fs::rename(part, path).map_err(&failed)?;
                sync_folder(folder_of(path)).map_err(failed)
            }
        }
    }

    /// Removes what has come: it is of no use.
    pub(super) fn discard(self) {
        if let Place::Kept { path, .. } = self.place {
            let _ = fs::remove_file(path);
        }
    }

    fn file(&self) -> &File {
        match &self.place {
            Place::Kept { file, .. } => file,
            Place::Temporary(temp) => temp.as_file(),
        }
    }
}

fn part_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

/// Removes what killed runs have left in a directory. That it fails does no harm.
pub(super) fn clean_up(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(".tmp") || (name.starts_with('.') && name.ends_with(".part"));
        let age = entry.metadata().and_then(|meta| meta.modified()).ok();
        let age = age.and_then(|time| time.elapsed().ok());
        if ours && age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::SystemTime;

    use super::*;
    use crate::hash::sha256;

    #[test]
    fn a_later_run_goes_on_and_two_at_once_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut first = Partial::open(&path, true).unwrap();
        first.writer().unwrap().write_all(b"abc").unwrap();
        first.add(b"abc");
        // While it is at it, another one begins for itself.
        assert_eq!(Partial::open(&path, true).unwrap().got, 0);
        drop(first);
        let mut second = Partial::open(&path, true).unwrap();
        assert_eq!((second.got, second.digest()), (3, sha256(b"abc")));
        second.writer().unwrap().write_all(b"d").unwrap();
        second.add(b"d");
        assert_eq!(second.digest(), sha256(b"abcd"));
        second.restart().unwrap();
        second.writer().unwrap().write_all(b"x").unwrap();
        second.add(b"x");
        second.finish(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_nobody_went_on_with_is_removed_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - 2 * ABANDONED;
        for (name, age) in
            [(".a.part", old), (".tmpX", old), ("a", old), (".b.part", SystemTime::now())]
        {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(age).unwrap();
        }
        clean_up(dir.path());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".b.part", "a"]);
    }
}
