//! Files that a power cut leaves whole: after it there is the new one or what was there before, and never a half.
//!
//! The bytes go into a temporary file beside the place and onto the disk, then the file gets the name, then the folder
//! goes onto the disk: a rename is durable once the folder is.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts a file with these bytes and this mode, whatever the umask is, in the place of what is there. Who may not read
/// the file cannot read it meanwhile either.
///
/// # Errors
///
/// Fails when it cannot be written or named. What was there before is there then, unless only the folder did not reach
/// the disk.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(folder_of(path))?;
    file.write_all(bytes)?;
    persist(file, path, mode)
}

/// Makes a temporary file durable and gives it its name and mode, over what was there. The file has to be on the disk
/// where the name is.
///
/// # Errors
///
/// As for [`replace`].
pub fn persist(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    persist_bytes(file, path, mode)?;
    sync_folder(folder_of(path))
}

/// Does what [`persist`] does but for the folder. After a crash the name may be missing, but never names anything else.
pub(crate) fn persist_bytes(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// Makes the names in a folder durable.
///
/// # Errors
///
/// Fails when the folder cannot be opened or written to the disk.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns the folder that a file is in: for a mere name, the current one.
pub fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_has_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (bytes, mode) in [("first and longer", 0o600), ("second", 0o644), ("third", 0o600)] {
            replace(&path, bytes.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{bytes}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_was_there_stays_when_the_new_file_cannot_be_put_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "x").unwrap();
        replace(&folder, b"y", 0o600).unwrap_err();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "x");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        replace(&dir.path().join("none/x"), b"y", 0o600).unwrap_err();
    }

    #[test]
    fn a_mere_name_is_in_the_current_folder() {
        for (path, folder) in [("x", "."), ("./x", "."), ("a/x", "a"), ("/x", "/"), ("", ".")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
        sync_folder(folder_of(Path::new("x"))).unwrap();
    }
}
