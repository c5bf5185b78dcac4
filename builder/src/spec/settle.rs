//! Puts together what the specification, the label of the image and the image itself say of a container.

use std::collections::BTreeMap;

use super::caps::Capabilities;
use super::container::{ContainerSpec, OnFailure};
use super::device::{DeviceSpec, IdMapping};
use super::fields::{ContainerName, Layout, Namespace, Scalar, Seccomp};
use super::health::Health;
use super::ids::UserId;
use super::limits::Rlimit;
use super::mount::Mount;
use super::place::Placed;
use super::resources::ResourcesSpec;
use super::restart::RestartSpec;
use super::runtime::{self, Runtime};
use crate::oci::ImageConfig;

/// A container with everything settled: nothing of it can be "not given".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What it is called.
    pub name: ContainerName,
    /// Program and arguments; empty when no one says what to run.
    pub command: Vec<String>,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Capabilities with `CAP_`, in the order given.
    pub capabilities: Vec<String>,
    /// Ambient capabilities with `CAP_`, in the order given.
    pub ambient: Vec<String>,
    /// Tmpfs, then binds, then mounts: a later one replaces an earlier one, and a default one, with its destination.
    /// The source of a bind that does not begin with `/` is the name of a volume.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<DeviceSpec>,
    /// Network namespace.
    pub net: Namespace,
    /// Process namespace.
    pub pid: Namespace,
    /// Namespace of inter-process communication.
    pub ipc: Namespace,
    /// Namespace of the host name.
    pub uts: Namespace,
    /// User namespace.
    pub userns: Namespace,
    /// Host name.
    pub hostname: Option<String>,
    /// Whether nothing can be written to its root file system.
    pub readonly: bool,
    /// Paths that it cannot see.
    pub masked_paths: Vec<String>,
    /// Paths that it can only read.
    pub readonly_paths: Vec<String>,
    /// User that it runs as.
    pub uid: UserId,
    /// Group that it runs as.
    pub gid: UserId,
    /// Further groups.
    pub additional_gids: Vec<UserId>,
    /// Whether programs in it can never gain privileges.
    pub no_new_privileges: bool,
    /// How readily it is killed when memory runs out.
    pub oom_score_adj: Option<i32>,
    /// Propagation of mounts of its root.
    pub rootfs_propagation: Option<String>,
    /// Path of its control group.
    pub cgroups_path: Option<String>,
    /// Limits of its control group; its JSON is that of `config.json`.
    pub resources: ResourcesSpec,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, Scalar>,
    /// Limits of its processes.
    pub rlimits: Vec<Rlimit>,
    /// Users of its user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of its user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Notes.
    pub annotations: BTreeMap<String, Scalar>,
    /// What is done before it starts.
    pub runtime: Runtime,
    /// Which system calls it can use.
    pub seccomp: Seccomp,
    /// How its files are stored, where it says so itself.
    pub layout: Option<Layout>,
    /// When it is started again; means something for services only.
    pub restart: RestartSpec,
    /// Services that start before it.
    pub after: Vec<ContainerName>,
    /// How it is known to be well.
    pub health: Option<Health>,
    /// What happens when it fails; means something for `onboot` only.
    pub on_failure: OnFailure,
}

impl ContainerSpec {
    /// Settles the container: what it says itself counts first, then the label `org.mobyproject.config` of its image,
    /// then the image (command, environment and working directory), then LinuxKit's defaults. A value is taken as a
    /// whole. An empty list counts as said; an empty text does not.
    pub fn settle(&self, label: Option<&Self>, image: Option<&ImageConfig>) -> Container {
        let both = [Some(self), label];
        Container {
            name: ContainerName::clone(&self.name),
            command: first(both, |c| c.command.as_ref())
                .or_else(|| image.map(|i| [i.entrypoint.as_slice(), &i.cmd].concat()))
                .unwrap_or_default(),
            env: first(both, |c| c.env.as_ref())
                .map(|env| values(Some(env)))
                .or_else(|| image.map(|i| i.env.clone()))
                .unwrap_or_default(),
            cwd: first(both, |c| said(c.cwd.as_deref()))
                .or_else(|| said(image?.working_dir.as_ref()).cloned())
                .map_or_else(|| "/".to_owned(), rooted),
            capabilities: self.capabilities_over(label),
            ambient: first(both, |c| c.ambient.as_ref()).unwrap_or_default().names().to_vec(),
            mounts: self.mounts_over(label),
            devices: values(first(both, |c| c.devices.as_ref())),
            net: namespace(both, |c| c.net.as_ref()).unwrap_or(Namespace::Host),
            pid: namespace(both, |c| c.pid.as_ref()).unwrap_or(Namespace::New),
            ipc: namespace(both, |c| c.ipc.as_ref()).unwrap_or(Namespace::Host),
            // A host name of its own needs a namespace of its own.
            uts: namespace(both, |c| c.uts.as_ref()).unwrap_or_else(|| {
                let named = first(both, |c| said(c.hostname.as_deref())).is_some();
                if named { Namespace::New } else { Namespace::Host }
            }),
            userns: namespace(both, |c| c.userns.as_ref()).unwrap_or(Namespace::Host),
            hostname: first(both, |c| said(c.hostname.as_deref())),
            readonly: first(both, |c| c.readonly.as_ref()).unwrap_or_default(),
            masked_paths: values(first(both, |c| c.masked_paths.as_ref())),
            readonly_paths: values(first(both, |c| c.readonly_paths.as_ref())),
            uid: value(first(both, |c| c.uid.as_ref())),
            gid: value(first(both, |c| c.gid.as_ref())),
            additional_gids: values(first(both, |c| c.additional_gids.as_ref())),
            no_new_privileges: first(both, |c| c.no_new_privileges.as_ref()).unwrap_or_default(),
            oom_score_adj: first(both, |c| c.oom_score_adj.as_deref()),
            rootfs_propagation: first(both, |c| c.rootfs_propagation.as_deref())
                .filter(|text| !text.is_empty()),
            cgroups_path: first(both, |c| c.cgroups_path.as_deref())
                .filter(|text| !text.is_empty()),
            resources: first(both, |c| c.resources.as_ref()).unwrap_or_default(),
            sysctl: first(both, |c| c.sysctl.as_ref()).unwrap_or_default(),
            rlimits: first(both, |c| c.rlimits.as_ref()).unwrap_or_default(),
            uid_mappings: first(both, |c| c.uid_mappings.as_ref()).unwrap_or_default(),
            gid_mappings: first(both, |c| c.gid_mappings.as_ref()).unwrap_or_default(),
            annotations: first(both, |c| c.annotations.as_ref()).unwrap_or_default(),
            runtime: runtime::settle(
                self.runtime.as_deref(),
                label.and_then(|label| label.runtime.as_deref()),
            ),
            seccomp: first(both, |c| c.seccomp.as_deref()).unwrap_or(Seccomp::Unconfined),
            layout: self.layout.as_deref().copied(),
            restart: first(both, |c| c.restart.as_deref()).unwrap_or_default(),
            after: values(Some(self.after.clone())),
            health: first(both, |c| c.health.as_deref()).map(|health| health.settle()),
            on_failure: first(both, |c| c.on_failure.as_deref()).unwrap_or_default(),
        }
    }

    fn capabilities_over(&self, label: Option<&Self>) -> Vec<String> {
        let names = self.capabilities.clone().unwrap_or_else(|| {
            let base = label.and_then(|label| label.capabilities.clone());
            let none = Capabilities::default();
            base.unwrap_or_default().with(self.capabilities_add.as_ref().unwrap_or(&none))
        });
        names.names().to_vec()
    }

    fn mounts_over(&self, label: Option<&Self>) -> Vec<Mount> {
        let both = [Some(self), label];
        let binds = self.binds.clone().unwrap_or_else(|| {
            let mut binds = label.and_then(|label| label.binds.clone()).unwrap_or_default();
            for bind in self.binds_add.iter().flatten() {
                if !binds.contains(bind) {
                    binds.push(bind.clone());
                }
            }
            binds
        });
        let tmpfs = first(both, |c| c.tmpfs.as_ref()).unwrap_or_default();
        let mounts = first(both, |c| c.mounts.as_ref()).unwrap_or_default();
        let in_memory = tmpfs.iter().map(|tmpfs| tmpfs.settle());
        let bound = binds.iter().map(|bind| bind.settle());
        // One that cannot be settled has been refused when it was read.
        let mounted = mounts.iter().filter_map(|mount| mount.settle().ok());
        in_memory.chain(bound).chain(mounted).collect()
    }
}

/// Returns what the first of both says.
fn first<'a, T: Clone + 'a>(
    both: [Option<&'a ContainerSpec>; 2],
    key: impl Fn(&'a ContainerSpec) -> Option<&'a T>,
) -> Option<T> {
    both.into_iter().flatten().find_map(key).cloned()
}

fn namespace<'a>(
    both: [Option<&'a ContainerSpec>; 2],
    key: impl Fn(&'a ContainerSpec) -> Option<&'a Namespace>,
) -> Option<Namespace> {
    first(both, |container| key(container).filter(|namespace| **namespace != Namespace::Unsaid))
}

fn said(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

/// Images may name their directory without the root.
fn rooted(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

fn value<T: Default>(placed: Option<Placed<T>>) -> T {
    placed.map(|placed| placed.into_parts().0).unwrap_or_default()
}

fn values<T>(placed: Option<Vec<Placed<T>>>) -> Vec<T> {
    placed.unwrap_or_default().into_iter().map(|placed| placed.into_parts().0).collect()
}
