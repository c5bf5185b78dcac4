//! The image specification: LinuxKit's YAML, and what Kiln adds.
//!
//! One type per field says all that is known about it. What is wrong is told with its file, line and column.
//! [`load`] reads and joins files, [`label`] what an image says of itself, and [`ContainerSpec::settle`] puts both
//! together into the [`Container`] that is built.

mod caps;
mod check;
mod container;
mod debian;
mod device;
mod error;
mod fields;
mod file;
mod firmware;
mod health;
mod ids;
mod init;
mod kernel;
mod label;
mod limits;
mod load;
mod mount;
pub mod network;
mod place;
mod resources;
mod restart;
mod runtime;
mod schema;
mod settle;
mod state;
mod text;
mod volume;
mod watchdog;
mod write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::caps::Capabilities;
pub use self::check::KernelSource;
pub use self::container::{ContainerSpec, OnFailure};
pub use self::debian::{DebianSource, DebianSpec, Moment};
pub use self::device::{DeviceKind, DeviceSpec, IdMapping};
pub use self::error::{SpecError, unknown_key};
pub use self::fields::{
    ContainerName, FileMode, Layout, Namespace, PerArch, Scalar, Seccomp, VolumeName,
};
pub use self::file::{FileSpec, MetadataFormat, SourceFile};
pub use self::firmware::FirmwareSelection;
pub use self::health::{Health, HealthSpec, Period};
pub use self::ids::UserId;
pub use self::init::InitSpec;
pub use self::kernel::{Cmdline, KernelSpec, ModuleSelection};
pub use self::label::{LABEL, label};
pub use self::limits::Rlimit;
pub use self::load::{load, parse, read_yaml};
pub use self::mount::{Bind, Mount, MountSpec, Tmpfs};
pub use self::place::{Place, Placed};
pub use self::resources::{
    BlockIoSpec, CpuSpec, DeviceRule, HugepageLimit, InterfacePriority, MemorySpec, NetworkSpec,
    PidsSpec, RdmaSpec, ResourcesSpec, ThrottleDevice, WeightDevice,
};
pub use self::restart::{RestartPolicy, RestartSpec};
pub use self::runtime::{BindNs, BindNsSpec, InterfaceSpec, Runtime, RuntimeSpec};
pub use self::settle::Container;
pub use self::state::{ByteSize, State, StateFormat, StateSpec};
pub use self::volume::{VolumeFormat, VolumeSpec};
pub use self::watchdog::WatchdogSpec;
use crate::oci::Reference;

/// A whole specification, of one or several files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The kernel and its arguments.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: KernelSpec,
    /// What runs first: `kiln`, the built-in kiln-init, or images whose files make the root file system, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init: Vec<Placed<InitSpec>>,
    /// Containers that run one after the other before the services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub onboot: Vec<ContainerSpec>,
    /// Containers that run one after the other when the machine stops.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub onshutdown: Vec<ContainerSpec>,
    /// Containers that keep running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ContainerSpec>,
    /// Directories that containers share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSpec>,
    /// Files of the root file system, written last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    /// How files of containers are stored in the initrd; `cpio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Placed<Layout>>,
    /// Where packages come from.
    #[serde(skip_serializing_if = "is_default")]
    pub debian: DebianSpec,
    /// Network interfaces, as kiln-init sets them up; DHCP on the one over which the machine booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Placed<Vec<Placed<network::LinkSpec>>>>,
    /// A disk partition that is kept from image to image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Placed<StateSpec>>,
    /// What is made of the hardware's watchdog: `auto`, `off`, or a map with `timeout`; `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Placed<WatchdogSpec>>,
    /// What LinuxKit knew of content trust once; accepted and without effect, as there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Placed<TrustSpec>>,
    /// Where it begins: the place of what is not there.
    #[serde(skip)]
    pub place: Place,
}

/// What LinuxKit knew of content trust once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrustSpec {
    /// Images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<String>,
    /// Organisations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub org: Vec<String>,
}

impl Spec {
    /// Returns all containers: `onboot`, `onshutdown`, `services`.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.onboot.iter().chain(&self.onshutdown).chain(&self.services)
    }

    /// Returns every image that is named, in the order in which LinuxKit writes them.
    pub fn image_refs(&self) -> Vec<(&Reference, &Place)> {
        let containers = self.containers().filter_map(|container| container.image.as_ref());
        let volumes = self.volumes.iter().filter_map(|volume| volume.image.as_ref());
        let init = self.init.iter().filter_map(|entry| match &**entry {
            InitSpec::Kiln => None,
            InitSpec::Image(image) => Some((image, entry.place())),
        });
        let placed = |image| (Placed::as_ref(image), Placed::place(image));
        let kernel = self.kernel.image.iter().map(placed);
        kernel.chain(init).chain(volumes.map(placed)).chain(containers.map(placed)).collect()
    }

    /// Returns the kernel modules that the network asks for.
    pub fn network_modules(&self) -> Vec<&'static str> {
        self.network.as_deref().map(|links| network::modules(links)).unwrap_or_default()
    }

    /// Returns how the files of a container are stored.
    pub fn layout_of(&self, container: &ContainerSpec) -> Layout {
        let layout = container.layout.as_deref().or(self.layout.as_deref());
        layout.copied().unwrap_or_default()
    }

    /// Returns what was accepted but has no effect, one sentence each, with its place.
    pub fn warnings(&self) -> Vec<String> {
        let trust = self.trust.iter().map(|trust| {
            let place = trust.place();
            format!(
                "{place}: `trust` has no effect; signatures are checked by the policy in kiln.toml"
            )
        });
        let beside = self.containers().flat_map(|container| {
            let binds = container.binds.is_some() && container.binds_add.is_some();
            let caps = container.capabilities.is_some() && container.capabilities_add.is_some();
            let both = [(binds, "binds"), (caps, "capabilities")];
            both.into_iter().filter(|(both, _)| *both).map(|(_, key)| {
                let place = container.name.place();
                format!("{place}: `{key}.add` has no effect beside `{key}`")
            })
        });
        trust.chain(beside).collect()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
