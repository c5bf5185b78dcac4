//! A full disk, which is told apart from what else can go wrong: a user can do something about it.

use std::io;

/// Returns whether something could not be written for want of space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives a test an empty disk of so many bytes; skips it for users who may not mount one.
#[cfg(test)]
pub(crate) fn with_small_disk(bytes: usize, test: impl FnOnce(&std::path::Path) + Send) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let dir = tempfile::tempdir().unwrap();
    // Mounts are those of a thread, and end with it.
    let run = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("skipped: cannot mount a small disk: {error}");
            return;
        }
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).unwrap();
        let size = format!("size={bytes}");
        let flags = MsFlags::empty();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some(size.as_str())).unwrap();
        test(dir.path());
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}
