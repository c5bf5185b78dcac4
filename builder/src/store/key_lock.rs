use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use kiln_types::Digest;

use super::{Store, StoreError};

/// The right to make what belongs to a key. It ends when this is dropped, and when the process dies.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is still held: whoever waits for it finds that the name is gone, and takes a new file.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Waits until nobody else, in this process or another one, makes what belongs to a key. Blocks the thread.
    ///
    /// # Errors
    ///
    /// Fails when the lock's file cannot be made.
    pub fn lock_key(&self, key: &Digest) -> Result<KeyLock, StoreError> {
        let path = self.tmp_dir().join(format!("{}.lock", key.hex()));
        let at = path.clone();
        let failed = StoreError::write(&at);
        loop {
            let file = File::options().create(true).append(true).open(&path).map_err(&failed)?;
            file.lock().map_err(&failed)?;
            let ours = file.metadata().map_err(&failed)?;
            // The one before may have removed it meanwhile.
            let same = fs::metadata(&path)
                .is_ok_and(|there| (ours.dev(), ours.ino()) == (there.dev(), there.ino()));
            if same {
                return Ok(KeyLock { path, _file: file });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::hash::sha256;

    #[test]
    fn one_at_a_time_holds_a_key_and_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (inside, most, turns) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = store.lock_key(&sha256(b"key")).unwrap();
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        turns.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), turns.into_inner()), (1, 400));
        assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
    }
}
