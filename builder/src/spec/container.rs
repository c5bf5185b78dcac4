//! A container as it is written in `onboot`, `onshutdown` and `services`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::caps::Capabilities;
use super::device::{DeviceSpec, IdMapping};
use super::fields::{ContainerName, Layout, Namespace, Scalar, Seccomp};
use super::health::HealthSpec;
use super::ids::UserId;
use super::limits::Rlimit;
use super::mount::{Bind, MountSpec, Tmpfs};
use super::place::Placed;
use super::resources::ResourcesSpec;
use super::restart::RestartSpec;
use super::runtime::RuntimeSpec;
use crate::oci::Reference;

/// A container. What is not written here comes from the label `org.mobyproject.config` of its image, command,
/// environment and working directory also from the image itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ContainerSpec {
    /// What it is called.
    pub name: Placed<ContainerName>,
    /// The image that it is made from: its name, or a folder or file as in `oci:DIR:TAG`, `oci-archive:FILE:TAG`,
    /// `docker-archive:FILE:NAME` and `dir:DIR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub image: Option<Placed<Reference>>,
    /// Debian packages that its root file system is made from, with all that they depend on, instead of an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deb: Vec<String>,
    /// Programs, by name or path, and other files and directories that are kept of these packages, with all that they
    /// need to run; all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Placed<String>>,
    /// Program and arguments; those of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Environment, as `NAME=value`; that of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<Placed<String>>>,
    /// Working directory; that of the image, or `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Placed<String>>,
    /// Capabilities; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Capabilities beside those of the image's label.
    #[serde(rename = "capabilities.add", skip_serializing_if = "Option::is_none")]
    pub capabilities_add: Option<Capabilities>,
    /// Capabilities that programs without them keep when they start others; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Capabilities>,
    /// Mounts, which replace default ones with the same destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Placed<MountSpec>>>,
    /// Paths of the machine or volumes, as `source:destination[:options]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binds: Option<Vec<Placed<Bind>>>,
    /// Binds beside those of the image's label.
    #[serde(rename = "binds.add", skip_serializing_if = "Option::is_none")]
    pub binds_add: Option<Vec<Placed<Bind>>>,
    /// File systems in memory, as `destination[:options]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Vec<Placed<Tmpfs>>>,
    /// Devices that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<Placed<DeviceSpec>>>,
    /// Network namespace; the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Namespace>,
    /// Process namespace; a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<Namespace>,
    /// Namespace of System V IPC and POSIX message queues; the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<Namespace>,
    /// Namespace of the host name; the machine's, or a new one when there is a `hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<Namespace>,
    /// User namespace; the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<Namespace>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Placed<String>>,
    /// Whether nothing can be written to its root file system; `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// Paths that it cannot see; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<Placed<String>>>,
    /// Paths that it can only read; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<Placed<String>>>,
    /// User that it runs as; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Placed<UserId>>,
    /// Group that it runs as; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Placed<UserId>>,
    /// Further groups; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_gids: Option<Vec<Placed<UserId>>>,
    /// Whether programs in it can never gain privileges; `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// How readily it is killed when memory runs out, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<Placed<i32>>,
    /// Propagation of mounts of its root: `private`, `shared`, `slave` or `unbindable`, with `r` before it for all
    /// below; private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<Placed<String>>,
    /// Path of its control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<Placed<String>>,
    /// Limits of its control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctl: Option<BTreeMap<String, Scalar>>,
    /// Limits of its processes, as `name,soft,hard`; a number or `unlimited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<Vec<Rlimit>>,
    /// Users of the machine that those of its user namespace are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Vec<IdMapping>>,
    /// Groups of the machine that those of its user namespace are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Vec<IdMapping>>,
    /// Notes for programs that read its `config.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Scalar>>,
    /// What is done before it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Placed<RuntimeSpec>>,
    /// Which system calls it can use: `unconfined`, `default`, or a file with a profile as in OCI's `linux.seccomp`;
    /// `unconfined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Placed<Seccomp>>,
    /// How its files are stored in the initrd; as the whole image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Placed<Layout>>,
    /// When it is started again after it has ended; `always`. Services only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Placed<RestartSpec>>,
    /// Services that start before it. Services only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Placed<ContainerName>>,
    /// How it is known to be well. Services only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Placed<HealthSpec>>,
    /// What happens when it fails; `continue`. `onboot` only.
    #[serde(rename = "on-failure", skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Placed<OnFailure>>,
}

/// What happens when a container of `onboot` fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The next one runs.
    #[default]
    Continue,
    /// The machine stops.
    Halt,
    /// The machine starts anew.
    Reboot,
}
