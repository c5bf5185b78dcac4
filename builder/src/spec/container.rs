use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{Capabilities, ContainerName, Namespace, Scalar};
use super::place::Placed;

/// A container: an entry of `onboot` or `services`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// What it is called.
    pub name: Placed<ContainerName>,
    /// Debian packages that its root file system is made from, with all that they depend on.
    #[serde(default)]
    pub deb: Vec<String>,
    /// Program and arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment, as `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory; `/`.
    pub cwd: Option<String>,
    /// Network namespace; the machine's.
    pub net: Option<Namespace>,
    /// Process namespace; a new one.
    pub pid: Option<Namespace>,
    /// Host name, in a namespace of its own.
    pub hostname: Option<String>,
    /// Whether nothing can be written to its root file system.
    #[serde(default)]
    pub readonly: bool,
    /// Capabilities; none.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Paths of the machine, as `source:destination[:options]`.
    #[serde(default)]
    pub binds: Vec<String>,
    /// Mounts, which replace default ones with the same destination.
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    /// File systems in memory, as `destination[:options]`.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// User that it runs as.
    #[serde(default)]
    pub uid: u32,
    /// Group that it runs as.
    #[serde(default)]
    pub gid: u32,
    /// Kernel parameters of its namespaces.
    #[serde(default)]
    pub sysctl: BTreeMap<String, Scalar>,
    /// When it is started again after it has ended; services only.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Services that start before it.
    #[serde(default)]
    pub after: Vec<Placed<ContainerName>>,
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    /// Where in the container.
    pub destination: String,
    /// Type of file system.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What; the type where that says enough.
    pub source: Option<String>,
    /// Options.
    #[serde(default)]
    pub options: Vec<String>,
}

/// When a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whenever it has ended.
    #[default]
    Always,
    /// When it has failed.
    OnFailure,
    /// Never.
    Never,
}
