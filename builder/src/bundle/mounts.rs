//! What is mounted in a container.

use std::collections::BTreeMap;

use super::{BundleError, Volumes};
use crate::spec::{Container, Mount};

/// Returns the mounts by destination: that is also the order in which they have to be made.
pub(super) fn of(container: &Container, volumes: &Volumes) -> Result<Vec<Mount>, BundleError> {
    let mut mounts: BTreeMap<String, Mount> = defaults(container.readonly)
        .into_iter()
        .map(|mount| (mount.destination.clone(), mount))
        .collect();
    for mount in &container.mounts {
        let mount = volumes.resolve(container.name.as_str(), mount)?;
        mounts.insert(mount.destination.clone(), mount);
    }
    Ok(mounts.into_values().collect())
}

/// What every container has unless it says otherwise.
fn defaults(readonly: bool) -> [Mount; 5] {
    let read_only: &[&str] = if readonly { &["ro"] } else { &[] };
    let mount = |destination: &str, kind: &str, options: &[&str], more: &[&str]| Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options: options.iter().chain(more).map(|&option| option.to_owned()).collect(),
    };
    [
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"], read_only),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            &[],
        ),
        mount("/proc", "proc", &["nosuid", "nodev", "noexec", "relatime"], &[]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev"], read_only),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"], &[]),
    ]
}
