//! What a bundle wants prepared outside its container: `runtime.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::Deserialize;

use crate::mounts::{self, MountError};
use crate::network::link;

/// The wishes of one bundle.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Runtime {
    cgroups: Vec<String>,
    mounts: Vec<Mount>,
    mkdir: Vec<String>,
    interfaces: Vec<Interface>,
    #[serde(rename = "bindNS")]
    bind_namespaces: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    /// Kind of one that is to be made; without it, one of the machine is moved.
    add: String,
    /// The other end of a pair.
    peer: String,
    #[serde(rename = "createInRoot")]
    create_in_root: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    destination: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    options: Vec<String>,
}

/// A wish that could not be fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("understand {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("make the directory {}", path.display())]
    MakeDirectory { path: PathBuf, source: std::io::Error },
    #[error("give the network interface {name} to the container")]
    Interface { name: String, source: std::io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl Runtime {
    /// Reads `runtime.json` of a bundle; without one there is nothing to prepare.
    pub(crate) fn read(bundle: &Path) -> Result<Self, RuntimeError> {
        let path = bundle.join("runtime.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(RuntimeError::Read { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| RuntimeError::Parse { path, source })
    }

    /// Makes control groups, mounts and directories, in this order. `mounted` counts the mounts that were made, for
    /// [`Self::clean`]: what was there before is not undone.
    pub(crate) fn prepare(&self, bundle: &Path, mounted: &mut usize) -> Result<(), RuntimeError> {
        for group in &self.cgroups {
            make_directory(&Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')))?;
        }
        for entry in &self.mounts {
            entry.perform(bundle)?;
            *mounted += 1;
        }
        for directory in &self.mkdir {
            make_directory(&inside(bundle, Path::new(directory)))?;
        }
        Ok(())
    }

    /// Undoes the mounts, the last first, so that a second start finds what the first has found.
    pub(crate) fn clean(&self, bundle: &Path, mounted: usize) {
        for target in self.targets(bundle, mounted) {
            let _ = umount2(&target, MntFlags::MNT_DETACH);
        }
        if mounted < self.mounts.len() {
            // The one that failed may have got half way.
            self.sweep(bundle);
        }
    }

    /// Undoes what is mounted inside the bundle, when nobody knows any more how much that was.
    pub(crate) fn sweep(&self, bundle: &Path) {
        let inside = |target: &PathBuf| target.starts_with(bundle);
        for target in self.targets(bundle, usize::MAX).filter(inside) {
            let _ = umount2(&target, MntFlags::MNT_DETACH);
        }
    }

    /// Returns where the first mounts are, the last of them first.
    fn targets(&self, bundle: &Path, count: usize) -> impl Iterator<Item = PathBuf> {
        let first = &self.mounts[..count.min(self.mounts.len())];
        let mounts =
            |entry: &&Mount| !mounts::parse(&entry.options).flags.contains(MsFlags::MS_REMOUNT);
        first.iter().rev().filter(mounts).map(|entry| inside(bundle, &entry.destination))
    }

    /// Gives the container, whose first process this is, its network interfaces.
    pub(crate) fn arrange_interfaces(&self, pid: i32) -> Result<(), RuntimeError> {
        for interface in &self.interfaces {
            let Interface { name, add, peer, create_in_root } = interface;
            link::arrange(name, add, peer, *create_in_root, pid)
                .map_err(|source| RuntimeError::Interface { name: name.clone(), source })?;
        }
        Ok(())
    }

    /// Keeps the container's namespaces under a path of their own, for others to join.
    pub(crate) fn bind_namespaces(&self, pid: i32) -> Result<(), RuntimeError> {
        for (kind, path) in self.bind_namespaces.iter().filter(|(_, path)| !path.is_empty()) {
            let target = PathBuf::from(path);
            if let Some(parent) = target.parent() {
                make_directory(parent)?;
            }
            // That of an earlier run, which would be covered and never go.
            let _ = umount2(&target, MntFlags::MNT_DETACH);
            fs::File::create(&target)
                .map_err(|source| RuntimeError::MakeDirectory { path: target.clone(), source })?;
            let source = format!("/proc/{pid}/ns/{kind}");
            mount(Some(source.as_str()), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|error| MountError::Mount { kind: source, target, source: error })?;
        }
        Ok(())
    }
}

impl Mount {
    fn perform(&self, bundle: &Path) -> Result<(), RuntimeError> {
        let target = inside(bundle, &self.destination);
        let options = mounts::parse(&self.options);
        let failed = |error| MountError::Mount {
            kind: if self.kind.is_empty() { self.source.clone() } else { self.kind.clone() },
            target: target.clone(),
            source: error,
        };
        if !target.exists() {
            make_directory(&target)?;
        }
        for option in &self.options {
            let layer =
                option.strip_prefix("upperdir=").or_else(|| option.strip_prefix("workdir="));
            if let Some(layer) = layer {
                make_directory(Path::new(layer))?;
            }
        }
        // `remount` with nothing but a propagation changes only that.
        let only_propagation = options.propagation.is_some()
            && options.flags == MsFlags::MS_REMOUNT
            && options.data.is_empty();
        if options.from_file {
            mounts::mount_file(Path::new(&self.source), &self.kind, &target)?;
        } else if !only_propagation {
            let source = (!self.source.is_empty()).then_some(self.source.as_str());
            let kind = (!self.kind.is_empty()).then_some(self.kind.as_str());
            let data = (!options.data.is_empty()).then_some(options.data.as_str());
            mount(source, &target, kind, options.flags, data).map_err(failed)?;
            let bound = MsFlags::MS_BIND;
            if options.flags.contains(bound) && options.flags.contains(MsFlags::MS_RDONLY) {
                // The kernel ignores `ro` when it makes a bind mount.
                let again = options.flags | MsFlags::MS_REMOUNT;
                mount(None::<&str>, &target, None::<&str>, again, None::<&str>).map_err(failed)?;
            } else if target == bundle.join("rootfs") && options.flags.contains(bound) {
                // The root of the machine is read-only, and so is what is bound from it. Missing
                // mount points must still be made in it; `root.readonly` of the bundle is what
                // makes it read-only for the container.
                let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
                mount(None::<&str>, &target, None::<&str>, again, None::<&str>).map_err(failed)?;
            }
        }
        if let Some(propagation) = options.propagation {
            mount(None::<&str>, &target, None::<&str>, propagation, None::<&str>)
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// A relative path is one inside the container's root.
fn inside(bundle: &Path, path: &Path) -> PathBuf {
    bundle.join("rootfs").join(path)
}

fn make_directory(path: &Path) -> Result<(), RuntimeError> {
    fs::create_dir_all(path)
        .map_err(|source| RuntimeError::MakeDirectory { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_with_the_usual_overlay_is_understood() {
        let runtime: Runtime = serde_json::from_str(
            r#"{"cgroups":[],"mounts":[{"destination":"/containers/onboot/000-a/tmp","type":"tmpfs",
              "source":"tmpfs"},{"destination":"/containers/onboot/000-a/tmp","options":["remount",
              "private"]}],"mkdir":[],"interfaces":[],"bindNS":{"net":""},"namespace":""}"#,
        )
        .unwrap();
        assert_eq!(runtime.mounts.len(), 2);
        assert_eq!(runtime.mounts[0].kind, "tmpfs");
    }

    #[test]
    fn interfaces_are_understood_as_linuxkit_writes_them() {
        let runtime: Runtime = serde_json::from_str(
            r#"{"interfaces":[{"name":"wg0","add":"wireguard","createInRoot":true},
                {"name":"v0","add":"veth","peer":"v1","createInRoot":false}]}"#,
        )
        .unwrap();
        assert!(runtime.interfaces[0].create_in_root);
        assert_eq!(runtime.interfaces[1].peer, "v1");
        assert!(Runtime::default().arrange_interfaces(1).is_ok());
    }

    #[test]
    fn a_relative_destination_is_inside_the_container() {
        let bundle = Path::new("/containers/services/a");
        assert_eq!(inside(bundle, Path::new("etc")), bundle.join("rootfs/etc"));
        assert_eq!(inside(bundle, Path::new("/run/x")), Path::new("/run/x"));
    }
}
