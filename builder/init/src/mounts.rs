//! Mount options as they are written in a bundle, turned into what the kernel wants.

use nix::mount::MsFlags;

/// A mount's options, sorted by how they reach the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) flags: MsFlags,
    /// Set by a call of its own, after the mount.
    pub(crate) propagation: Option<MsFlags>,
    /// Everything else goes to the file system, separated by commas.
    pub(crate) data: String,
}

/// Sorts the options of a mount.
pub(crate) fn parse(options: &[String]) -> Options {
    let mut flags = MsFlags::empty();
    let mut propagation = None;
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        if let Some(kind) = propagation_of(option) {
            propagation = Some(kind);
        } else if let Some((set, clear)) = flags_of(option) {
            flags.insert(set);
            flags.remove(clear);
        } else {
            data.push(option);
        }
    }
    Options { flags, propagation, data: data.join(",") }
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
    fn the_layers_of_an_overlay_are_data() {
        let options = parsed(&["lowerdir=/l", "upperdir=/u", "workdir=/w"]);
        assert_eq!(options.flags, MsFlags::empty());
        assert_eq!(options.data, "lowerdir=/l,upperdir=/u,workdir=/w");
    }
}
