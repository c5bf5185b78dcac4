//! The control groups of containers.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::clock::uptime;

const GROUPS: &str = "/sys/fs/cgroup";
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Returns the directory of a group by its path in a container's configuration; nothing for that of the machine, and for what
/// leads out of it.
pub(super) fn directory(path: &Path) -> Option<PathBuf> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && path.components().next().is_some()).then(|| Path::new(GROUPS).join(path))
}

/// Returns the directory of the control group of a process; nothing for one that is in that of the machine.
pub(crate) fn group_of(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!group.is_empty()).then(|| Path::new(GROUPS).join(group))
}

/// Ends everything in a control group and in those below it, and removes them.
pub(crate) fn remove_group(group: &Path, patience: Duration) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
    let start = uptime();
    while remove_directories(group).is_err_and(|error| error.kind() != ErrorKind::NotFound)
        && uptime().saturating_sub(start) < patience
    {
        sleep(LOOK_AGAIN);
    }
}

fn remove_directories(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directories(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_machine_is_never_that_of_a_container() {
        let of = |path: &str| directory(Path::new(path));
        assert_eq!(of("/services-a").unwrap(), Path::new("/sys/fs/cgroup/services-a"));
        assert_eq!(of("a/b").unwrap(), Path::new("/sys/fs/cgroup/a/b"));
        for path in ["", "/", "..", "/a/../..", "./a"] {
            assert_eq!(of(path), None, "{path:?}");
        }
    }
}
