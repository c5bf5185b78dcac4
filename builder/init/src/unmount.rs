//! Leaves the disks of the machine as they should be found: nothing mounted, or at least nothing to be written.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::console::say;

/// More mounts than any machine has that runs our images.
const MOST: usize = 4096;

/// Unmounts what is on a disk, the last mounted first. What is still in use becomes read-only.
pub(crate) fn disks() {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for target in on_disks(&text).iter().rev() {
        if umount2(target, MntFlags::UMOUNT_NOFOLLOW).is_ok() {
            continue;
        }
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(error) = mount(None::<&str>, target, None::<&str>, read_only, None::<&str>) {
            say(&format!("{} stays mounted: {error}", target.display()));
        }
    }
}

/// Finds mounts whose source is a device that can be written to (proc(5), /proc/pid/mountinfo).
fn on_disks(text: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (first, last) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(4);
        let (target, _) = (first.next()?, first.next()?);
        let mut last = last.split(' ').skip(1);
        let (source, options) = (last.next()?, last.next()?);
        let writable = options.split(',').any(|option| option == "rw");
        let path = unescape(target);
        (source.starts_with("/dev/") && writable && path != Path::new("/")).then_some(path)
    };
    text.lines().take(MOST).filter_map(mount).collect()
}

/// The kernel writes space, tab, line end and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (code, letter) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, letter);
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written_to_a_disk_is_found_in_the_order_of_mounting() {
        let text = "21 1 0:20 / / ro,relatime shared:1 - rootfs rootfs rw\n\
            22 21 0:21 / /proc rw - proc proc rw\n\
            30 21 254:1 / /var/lib/state rw,nodev shared:9 - ext4 /dev/vda1 rw,errors=remount-ro\n\
            31 21 7:0 / /containers/services/a/lower ro - squashfs /dev/loop0 ro\n\
            32 30 254:2 /x /a\\040b ro master:3 - xfs /dev/vdb rw\n\
            nonsense\n";
        let found = on_disks(text);
        assert_eq!(found, [Path::new("/var/lib/state"), Path::new("/a b")]);
    }
}
