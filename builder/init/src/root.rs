//! The root file system and what is mounted in it.
//!
//! A container enters its root by `pivot_root`, which the kernel refuses on the initial memory file
//! system. Copying everything to another file system would cost time and twice the memory. So the
//! root directory is bound over itself and that mount is moved to `/`: the same files, but with a
//! mount that `pivot_root` takes.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::console::say;
use crate::error::BootError;

/// Where the new root is put together.
const STAGE: &str = "/mnt";

struct FileSystem {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
    need: Need,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The machine is of no use without it.
    Must,
    /// It is said where it is missing.
    Should,
    /// Where the kernel knows it and the machine has what it is for.
    May,
}

const fn file_system(
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
    need: Need,
) -> FileSystem {
    FileSystem { kind, target, flags, data, need }
}

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const STRICT: MsFlags = PLAIN.union(MsFlags::MS_NOEXEC);
const DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);
const PTYS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";

/// In the order in which they are mounted.
const FILE_SYSTEMS: &[FileSystem] = &[
    file_system("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755", Need::Must),
    file_system("devpts", "/dev/pts", DEVICES, PTYS, Need::Should),
    file_system("tmpfs", "/dev/shm", STRICT, "mode=1777,size=50%", Need::Should),
    file_system("mqueue", "/dev/mqueue", STRICT, "", Need::May),
    file_system("hugetlbfs", "/dev/hugepages", PLAIN, "", Need::May),
    file_system("proc", "/proc", STRICT, "", Need::Must),
    file_system("binfmt_misc", "/proc/sys/fs/binfmt_misc", STRICT, "", Need::May),
    file_system("sysfs", "/sys", STRICT, "", Need::Must),
    file_system("cgroup2", "/sys/fs/cgroup", STRICT, "nsdelegate", Need::Must),
    file_system("bpf", "/sys/fs/bpf", STRICT, "mode=0700", Need::May),
    file_system("pstore", "/sys/fs/pstore", STRICT, "", Need::May),
    file_system("securityfs", "/sys/kernel/security", STRICT, "", Need::May),
    file_system("debugfs", "/sys/kernel/debug", STRICT, "mode=0700", Need::May),
    file_system("configfs", "/sys/kernel/config", STRICT, "", Need::May),
    file_system("efivarfs", "/sys/firmware/efi/efivars", STRICT, "", Need::May),
    file_system("tmpfs", "/run", PLAIN, "mode=0755,size=20%", Need::Must),
    // Its own, so that a service that fills /run does not keep others from being started and asked for.
    file_system("tmpfs", "/run/kiln", PLAIN, "mode=0755,size=5%", Need::Should),
    file_system("tmpfs", "/tmp", PLAIN, "mode=1777,size=20%", Need::Must),
];

/// Puts the root together and enters it.
pub(crate) fn enter() -> Result<(), BootError> {
    make_directory(Path::new(STAGE))?;
    mount_at(Some("/"), STAGE, None, MsFlags::MS_BIND, "")?;
    for entry in FILE_SYSTEMS {
        let target = format!("{STAGE}{}", entry.target);
        let result = make_directory(Path::new(&target))
            .and_then(|()| mount_at(None, &target, Some(entry.kind), entry.flags, entry.data));
        match (result, entry.need) {
            (Err(error), Need::Must) => return Err(error),
            (Err(error), Need::Should) => say(&crate::error::chain(&error)),
            (Ok(()) | Err(_), _) => {}
        }
    }
    nix::unistd::chdir(STAGE).map_err(BootError::EnterRoot)?;
    mount_at(Some("."), "/", None, MsFlags::MS_MOVE, "")?;
    nix::unistd::chroot(".").map_err(BootError::EnterRoot)?;
    nix::unistd::chdir("/").map_err(BootError::EnterRoot)
}

/// Makes the root read-only, apart from `/var`, and tells the kernel that mounts made here are
/// also seen by containers that ask for it.
pub(crate) fn settle() {
    let writable = make_directory(Path::new("/var/log"))
        .and_then(|()| mount_at(Some("/var"), "/var", None, MsFlags::MS_BIND, ""));
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let result = writable
        .and_then(|()| mount_at(None, "/", None, read_only, ""))
        .and_then(|()| mount_at(None, "/", None, shared, ""));
    if let Err(error) = result {
        say(&format!("the root stays writable: {}", crate::error::chain(&error)));
    }
}

fn make_directory(path: &Path) -> Result<(), BootError> {
    fs::create_dir_all(path)
        .map_err(|source| BootError::MakeDirectory { path: path.into(), source })
}

fn mount_at(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    data: &str,
) -> Result<(), BootError> {
    let from = source.or(kind).unwrap_or("none");
    mount(Some(from), target, kind, flags, Some(data)).map_err(|source| BootError::Mount {
        kind: from.to_owned(),
        target: target.into(),
        source,
    })
}
