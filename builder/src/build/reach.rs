//! Whether containers can reach disks: where none can, a machine need not wait for the drivers of disks.

use std::path::Path;

use crate::spec::{Container, DeviceKind};

/// What is mounted without any disk.
const WITHOUT: &[&str] = &[
    "bind",
    "bpf",
    "cgroup",
    "cgroup2",
    "debugfs",
    "devpts",
    "mqueue",
    "overlay",
    "proc",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Returns whether a container could use a disk of the machine, by its mounts or devices.
pub(super) fn reaches_disks(container: &Container) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut own = container.mounts.iter();
    let mut outside = container.runtime.mounts.iter();
    let harmless = [Some(DeviceKind::C), Some(DeviceKind::P)];
    let mut rules = container.resources.devices.iter().flatten();
    own.any(|it| is_of_disks(&it.kind, &it.source))
        || outside.any(|it| is_of_disks(&text(&it.kind), &text(&it.source)))
        || container.devices.iter().any(|device| !harmless.contains(&device.kind))
        || rules.any(|rule| rule.allow && rule.kind.as_deref() != Some("c"))
}

fn is_of_disks(kind: &str, source: &str) -> bool {
    let source = Path::new(source);
    // Without a type it is a bind, as the options say.
    let is_other = !kind.is_empty() && !WITHOUT.contains(&kind);
    is_other
        || ["/dev", "/sys"].iter().any(|folder| source.starts_with(folder))
        || source == Path::new("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(rest: &str) -> bool {
        let yaml = format!("services:\n- {{name: a, deb: [x], command: [y], {rest}}}\n");
        let spec = crate::spec::parse("a.yml", &yaml).unwrap();
        reaches_disks(&spec.services[0].settle(None, None))
    }

    #[test]
    fn what_shows_no_disk_is_known() {
        for rest in [
            "uid: 1",
            "binds: ['/var/lib/x:/x', '/etc/resolv.conf:/etc/resolv.conf', '/run:/run', '/development:/d']",
            "tmpfs: ['/tmp']",
            "capabilities: [all], pid: host",
            "devices: [{path: /dev/kmsg, type: c, major: 1, minor: 11, mode: 0600}]",
            "mounts: [{type: cgroup, source: cgroup, destination: /sys/fs/cgroup, options: [ro]}]",
            "resources: {devices: [{allow: false}]}",
        ] {
            assert!(!reaches(rest), "{rest}");
        }
    }

    #[test]
    fn whatever_could_show_a_disk_counts() {
        for rest in [
            "binds: ['/dev:/dev']",
            "binds: ['/dev/sda:/disk']",
            "binds: ['/:/host:ro']",
            "binds: ['/sys:/sys']",
            "binds: ['//dev/disk:/disk']",
            "devices: [{path: /dev/sda, type: b, major: 8, minor: 0, mode: 0600}]",
            "devices: [{path: all, type: b}]",
            "devices: [{path: all, type: a}]",
            "mounts: [{type: ext4, source: LABEL=x, destination: /x}]",
            "runtime: {mounts: [{type: ext4, source: LABEL=x, destination: /x}]}",
            "resources: {devices: [{allow: true}]}",
        ] {
            assert!(reaches(rest), "{rest}");
        }
    }
}
