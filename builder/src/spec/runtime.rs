//! What is done for a container before it starts (LinuxKit's `runtime`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mount::MountSpec;

/// What is done for a container before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSpec {
    /// Control groups that are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<Vec<String>>,
    /// What is mounted by the machine; a relative destination is inside the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<MountSpec>>,
    /// Directories that are made, after the mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mkdir: Option<Vec<String>>,
    /// Network interfaces that are moved or made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<InterfaceSpec>>,
    /// Where the container's namespaces are bound to.
    #[serde(rename = "bindNS", skip_serializing_if = "Option::is_none")]
    pub bind_ns: Option<BindNsSpec>,
    /// containerd's namespace; Kiln's own init has no use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A network interface of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InterfaceSpec {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Type of a new one, such as `wireguard`; without it, one of the machine is moved.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub add: String,
    /// Name of the other end, for a pair (`veth`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Whether it is made by the machine and moved then.
    #[serde(rename = "createInRoot")]
    pub create_in_root: bool,
}

/// Where namespaces are bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BindNsSpec {
    /// Control groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Inter-process communication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// Mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mnt: Option<String>,
    /// Network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// Users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
}

/// The same, settled: what is not given is empty. Its JSON has every key, as LinuxKit writes it to `runtime.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Runtime {
    /// Control groups that are made.
    pub cgroups: Vec<String>,
    /// What is mounted by the machine.
    pub mounts: Vec<MountSpec>,
    /// Directories that are made.
    pub mkdir: Vec<String>,
    /// Network interfaces.
    pub interfaces: Vec<InterfaceSpec>,
    /// Where namespaces are bound to.
    #[serde(rename = "bindNS")]
    pub bind_ns: BindNs,
    /// containerd's namespace.
    pub namespace: String,
}

/// Paths that namespaces are bound to; an empty one is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BindNs {
    /// Control groups.
    pub cgroup: String,
    /// Inter-process communication.
    pub ipc: String,
    /// Mounts.
    pub mnt: String,
    /// Network.
    pub net: String,
    /// Processes.
    pub pid: String,
    /// Users.
    pub user: String,
    /// Host name.
    pub uts: String,
}

/// Returns what the specification says, then what the label says, key by key.
pub(super) fn settle(spec: Option<&RuntimeSpec>, label: Option<&RuntimeSpec>) -> Runtime {
    fn pick<'a, T: Clone + Default + 'a>(
        both: [Option<&'a RuntimeSpec>; 2],
        key: impl Fn(&'a RuntimeSpec) -> Option<&'a T>,
    ) -> T {
        both.into_iter().flatten().find_map(key).cloned().unwrap_or_default()
    }
    let both = [spec, label];
    let ns = |key: fn(&BindNsSpec) -> Option<&String>| {
        pick(both, move |runtime| runtime.bind_ns.as_ref().and_then(key))
    };
    Runtime {
        cgroups: pick(both, |runtime| runtime.cgroups.as_ref()),
        mounts: pick(both, |runtime| runtime.mounts.as_ref()),
        mkdir: pick(both, |runtime| runtime.mkdir.as_ref()),
        interfaces: pick(both, |runtime| runtime.interfaces.as_ref()),
        bind_ns: BindNs {
            cgroup: ns(|ns| ns.cgroup.as_ref()),
            ipc: ns(|ns| ns.ipc.as_ref()),
            mnt: ns(|ns| ns.mnt.as_ref()),
            net: ns(|ns| ns.net.as_ref()),
            pid: ns(|ns| ns.pid.as_ref()),
            user: ns(|ns| ns.user.as_ref()),
            uts: ns(|ns| ns.uts.as_ref()),
        },
        namespace: pick(both, |runtime| runtime.namespace.as_ref()),
    }
}
