//! Files as disks, for tests.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

fn fresh(name: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("kiln-state-{name}-{}-{number}", std::process::id()))
}

/// Returns a file of zeros that has no name and takes no space.
pub(super) fn disk(size: u64) -> File {
    let path = fresh("disk");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.set_len(size).unwrap();
    file
}

/// A folder that is taken away at the end.
pub(super) struct Folder(pub(super) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns an empty folder.
pub(super) fn folder(name: &str) -> Folder {
    let path = fresh(name);
    fs::create_dir(&path).unwrap();
    Folder(path)
}
