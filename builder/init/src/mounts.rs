//! Mounts, with options as they are written in a bundle turned into what the kernel wants.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::sys::LoopDevice;

/// Something could not be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("make the directory {}", path.display())]
    MakeDirectory { path: PathBuf, source: std::io::Error },
    #[error("use {} as a disk", path.display())]
    Loop { path: PathBuf, source: std::io::Error },
    #[error("mount {kind} on {}", target.display())]
    Mount { kind: String, target: PathBuf, source: nix::Error },
}

/// Mounts one thing.
pub(crate) fn mount_at(
    source: impl AsRef<Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: &str,
) -> Result<(), MountError> {
    let source = source.as_ref();
    mount(Some(source), target, kind, flags, Some(data)).map_err(|error| MountError::Mount {
        kind: kind.map_or_else(|| source.display().to_string(), str::to_owned),
        target: target.into(),
        source: error,
    })
}

/// Mounts the file system that a file holds, read-only. The kernel lets go of the file when the
/// file system is unmounted.
pub(crate) fn mount_file(file: &Path, kind: &str, target: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Loop { path: file.into(), source };
    // Held until the mount holds it.
    let device = LoopDevice::attach(file).map_err(failed)?;
    mount_at(device.path(), target, Some(kind), MsFlags::MS_RDONLY, "")
}

/// A mount's options, sorted by how they reach the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) flags: MsFlags,
    /// Set by a call of its own, after the mount.
    pub(crate) propagation: Option<MsFlags>,
    /// The source is a file that holds a file system.
    pub(crate) from_file: bool,
    /// Everything else goes to the file system, separated by commas.
    pub(crate) data: String,
}

/// Sorts the options of a mount.
pub(crate) fn parse(options: &[String]) -> Options {
    let mut flags = MsFlags::empty();
    let mut propagation = None;
    let mut from_file = false;
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        if let Some(kind) = propagation_of(option) {
            propagation = Some(kind);
        } else if let Some((set, clear)) = flags_of(option) {
            flags.insert(set);
            flags.remove(clear);
        } else if option == "loop" {
            from_file = true;
        } else {
            data.push(option);
        }
    }
    Options { flags, propagation, from_file, data: data.join(",") }
}

fn propagation_of(option: &str) -> Option<MsFlags> {
    let recursive = MsFlags::MS_REC;
    Some(match option {
        "private" => MsFlags::MS_PRIVATE,
        "rprivate" => MsFlags::MS_PRIVATE | recursive,
        "shared" => MsFlags::MS_SHARED,
        "rshared" => MsFlags::MS_SHARED | recursive,
        "slave" => MsFlags::MS_SLAVE,
        "rslave" => MsFlags::MS_SLAVE | recursive,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        "runbindable" => MsFlags::MS_UNBINDABLE | recursive,
        _ => return None,
    })
}

/// Returns the flags that an option sets and those that it clears.
fn flags_of(option: &str) -> Option<(MsFlags, MsFlags)> {
    let none = MsFlags::empty();
    Some(match option {
        "defaults" => (none, none),
        "bind" => (MsFlags::MS_BIND, none),
        "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, none),
        "remount" => (MsFlags::MS_REMOUNT, none),
        "ro" => (MsFlags::MS_RDONLY, none),
        "rw" => (none, MsFlags::MS_RDONLY),
        "nosuid" => (MsFlags::MS_NOSUID, none),
        "suid" => (none, MsFlags::MS_NOSUID),
        "nodev" => (MsFlags::MS_NODEV, none),
        "dev" => (none, MsFlags::MS_NODEV),
        "noexec" => (MsFlags::MS_NOEXEC, none),
        "exec" => (none, MsFlags::MS_NOEXEC),
        "sync" => (MsFlags::MS_SYNCHRONOUS, none),
        "async" => (none, MsFlags::MS_SYNCHRONOUS),
        "dirsync" => (MsFlags::MS_DIRSYNC, none),
        "noatime" => (MsFlags::MS_NOATIME, none),
        "atime" => (none, MsFlags::MS_NOATIME),
        "nodiratime" => (MsFlags::MS_NODIRATIME, none),
        "relatime" => (MsFlags::MS_RELATIME, none),
        "norelatime" => (none, MsFlags::MS_RELATIME),
        "strictatime" => (MsFlags::MS_STRICTATIME, none),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Options {
        parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_propagation_and_data_are_told_apart() {
        let options = parsed(&["nosuid", "noexec", "exec", "rshared", "size=10m", "mode=755"]);
        assert_eq!(options.flags, MsFlags::MS_NOSUID);
        assert_eq!(options.propagation, Some(MsFlags::MS_SHARED | MsFlags::MS_REC));
        assert_eq!(options.data, "size=10m,mode=755");
    }

    #[test]
    fn a_file_that_holds_a_file_system_is_told_by_the_option_loop() {
        let options = parsed(&["ro", "loop"]);
        assert!(options.from_file);
        assert_eq!((options.flags, options.data.as_str()), (MsFlags::MS_RDONLY, ""));
        assert!(!parsed(&["ro"]).from_file);
    }

    #[test]
    fn the_layers_of_an_overlay_are_data() {
        let options = parsed(&["lowerdir=/l", "upperdir=/u", "workdir=/w"]);
        assert_eq!(options.flags, MsFlags::empty());
        assert_eq!(options.data, "lowerdir=/l,upperdir=/u,workdir=/w");
    }
}
