//! Volumes of the image: made ready before anything that uses them starts.
//!
//! `/containers/volumes/NAME` holds `lower` with what the image brings, and `merged` where
//! containers find it. A volume that can be written to has `tmp` too: an overlay keeps there, in
//! memory, what changes. With a packed layout, `root.sqfs` is what `lower` holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use crate::console::say;
use crate::error::chain;
use crate::mounts::{self, MountError};

const VOLUMES: &str = "/containers/volumes";

/// Makes every volume ready. One that fails does not hold the boot up: who uses it will tell.
pub(crate) fn set_up() {
    for volume in volumes(Path::new(VOLUMES)) {
        if let Err(error) = set_up_one(&volume) {
            say(&format!("volume {}: {}", volume.display(), chain(&error)));
        }
    }
}

fn volumes(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut volumes: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    volumes.sort();
    volumes
}

fn set_up_one(volume: &Path) -> Result<(), MountError> {
    let [lower, tmp, merged] = ["lower", "tmp", "merged"].map(|name| volume.join(name));
    let packed = volume.join("root.sqfs");
    if packed.exists() {
        mounts::mount_file(&packed, "squashfs", &lower)?;
    }
    let none = MsFlags::empty();
    if tmp.exists() {
        mounts::mount_at("tmpfs", &tmp, Some("tmpfs"), none, "mode=0755")?;
        let [upper, work] = ["upper", "work"].map(|name| tmp.join(name));
        for directory in [&upper, &work] {
            fs::create_dir(directory)
                .map_err(|source| MountError::MakeDirectory { path: directory.clone(), source })?;
        }
        // The top directory of an overlay is that of the upper layer.
        like(&lower, &upper)
            .map_err(|source| MountError::MakeDirectory { path: upper.clone(), source })?;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        mounts::mount_at("overlay", &merged, Some("overlay"), none, &layers)
    } else {
        mounts::mount_at(&lower, &merged, None, MsFlags::MS_BIND, "")?;
        // The kernel ignores `ro` when it makes a bind mount.
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mounts::mount_at(&lower, &merged, None, read_only, "")
    }
}

/// Gives a directory the owner and the permissions of another.
fn like(model: &Path, path: &Path) -> std::io::Result<()> {
    let data = fs::metadata(model)?;
    std::os::unix::fs::chown(path, Some(data.uid()), Some(data.gid()))?;
    fs::set_permissions(path, data.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_come_in_the_order_of_their_names() {
        let directory = std::env::temp_dir().join(format!("kiln-volumes-{}", std::process::id()));
        for name in ["b", "a"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        assert_eq!(volumes(&directory), ["a", "b"].map(|name| directory.join(name)));
        fs::remove_dir_all(&directory).unwrap();
        assert!(volumes(&directory).is_empty());
    }
}
