//! The image specification: LinuxKit's YAML, and what Kiln adds.
//!
//! One type per field says all that is known about it. What is wrong is told with its file, line and column.
//! [`load`] reads and joins files, [`label`] what an image says of itself, and [`ContainerSpec::settle`] puts both
//! together into the [`Container`] that is built.

mod caps;
mod check;
mod container;
mod device;
mod error;
mod fields;
mod file;
mod health;
mod ids;
mod init;
mod kernel;
mod label;
mod limits;
mod load;
mod mount;
mod place;
mod resources;
mod runtime;
mod settle;
mod text;
mod volume;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::caps::Capabilities;
pub use self::container::{ContainerSpec, OnFailure, RestartPolicy};
pub use self::device::{DeviceKind, DeviceSpec, IdMapping};
pub use self::error::SpecError;
pub use self::fields::{
    ContainerName, FileMode, Layout, Namespace, PerArch, Scalar, Seccomp, VolumeName,
};
pub use self::file::{FileSpec, MetadataFormat, SourceFile};
pub use self::health::{HealthSpec, Period};
pub use self::ids::UserId;
pub use self::init::InitSpec;
pub use self::kernel::{Cmdline, KernelSpec, ModuleSelection};
pub use self::label::{LABEL, label};
pub use self::limits::Rlimit;
pub use self::load::{load, parse};
pub use self::mount::{Bind, Mount, MountSpec, Tmpfs};
pub use self::place::{Place, Placed};
pub use self::resources::{
    BlockIoSpec, CpuSpec, DeviceRule, HugepageLimit, InterfacePriority, MemorySpec, NetworkSpec,
    PidsSpec, RdmaSpec, ResourcesSpec, ThrottleDevice, WeightDevice,
};
pub use self::runtime::{BindNs, BindNsSpec, InterfaceSpec, Runtime, RuntimeSpec};
pub use self::settle::Container;
pub use self::volume::{VolumeFormat, VolumeSpec};
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
    /// A disk partition that is kept from image to image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Placed<StateSpec>>,
    /// What LinuxKit knew of content trust once; accepted and without effect, as there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Placed<TrustSpec>>,
    /// Where it begins: the place of what is not there.
    #[serde(skip)]
    pub place: Place,
}

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DebianSpec {
    /// Release, by its code name.
    pub suite: String,
    /// Parts of the archive.
    pub components: Vec<String>,
}

impl Default for DebianSpec {
    fn default() -> Self {
        Self { suite: "trixie".to_owned(), components: vec!["main".to_owned()] }
    }
}

/// A disk partition that is kept from image to image, mounted at `/var/lib/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StateSpec {
    /// Name of the partition.
    pub label: String,
    /// File system; `ext4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Least size, as in `2G`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Scalar>,
    /// Version of what is stored there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
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
        trust.collect()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use kiln_types::Arch;

    use super::*;

    fn error(yaml: &str) -> String {
        parse("web.yml", yaml).unwrap_err().to_string()
    }

    #[test]
    fn every_key_of_the_subset_is_read() {
        let spec = parse(
            "web.yml",
            "
kernel:
  deb: {x86_64: a, arm64: b}
  modules: [overlay, virtio_net]
  cmdline: console=ttyS0
init: [kiln]
onboot:
  - {name: hello, deb: [busybox-static], command: [busybox, uname, -r]}
services:
  - name: web
    deb: [busybox-static]
    command: [busybox, httpd]
    capabilities: [CAP_NET_BIND_SERVICE]
    binds: [/etc/web:/srv:ro]
    mounts: [{destination: /data, type: tmpfs, options: [size=1m]}]
    tmpfs: [/cache]
    env: [A=b]
    net: new
    sysctl: {net.core.somaxconn: 128}
    restart: on-failure
    after: [other]
  - {name: other, deb: [a], command: [b]}
files:
  - {path: /etc/web/index.html, contents: hello, mode: \"0644\"}
debian: {suite: forky}
",
        )
        .unwrap();
        assert_eq!(spec.kernel.deb.unwrap().get(Arch::Arm64), Some("b"));
        assert_eq!(spec.kernel.cmdline.unwrap().get(Arch::Arm64), Some("console=ttyS0"));
        let web = &spec.services[0];
        assert_eq!(web.name.as_str(), "web");
        assert_eq!(web.net, Some(Namespace::New));
        assert_eq!(web.restart.as_deref(), Some(&RestartPolicy::OnFailure));
        assert_eq!(spec.files[0].mode.unwrap().bits(), 0o644);
        assert_eq!(spec.debian.suite, "forky");
        assert_eq!(spec.debian.components, ["main"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_was_meant() {
        assert_eq!(
            error("services:\n  - name: web\n    deb: [a]\n    comand: [b]\n"),
            "web.yml:4:5: unknown key `comand`; did you mean `command`?"
        );
        assert!(error("services:\n  - name: Web/..\n").starts_with("web.yml:2:11: "));
        assert_eq!(
            error("kernel:\n  modules: some\n"),
            "web.yml:2:12: `some` is not `auto`, `none` or a list of module names"
        );
        assert!(error("files:\n  - path: ../x\n").starts_with("web.yml:2:11: "));
        assert!(error("a: [\n").starts_with("web.yml:"));
    }

    #[test]
    fn what_contradicts_itself_is_told_with_its_place() {
        for (yaml, text) in [
            (
                "services:\n  - {name: a, deb: [b], command: [c]}\n  - {name: a, deb: [b], command: [c]}",
                "3:12: service `a` is there twice, first at web.yml:2:12; give one of them another name",
            ),
            (
                "services:\n  - name: a\n    deb: [b]\n    command: [c]\n    after: [z]",
                "5:13: service `a` starts after `z`, which is not a service",
            ),
            (
                "services:\n  - name: a\n    deb: [b]\n    command: []",
                "2:11: container `a` has no `command`",
            ),
            (
                "onboot:\n  - command: [c]\n    name: a",
                "3:11: container `a` has no `image` or `deb`, so there is nothing to run",
            ),
            (
                "onboot: [{name: a, deb: [b], command: [c], after: [a]}]",
                "1:52: `after` is for services; these run in the order they are written in",
            ),
            (
                "files:\n  - {contents: x, source: y, path: a}",
                "2:36: file `/a` needs exactly one of `contents`, `source`, `metadata`, `symlink` \
                 and `directory: true`",
            ),
            (
                "files: [{path: a, contents: x, optional: true}]",
                "1:16: file `/a` is optional, which only a `source` can be",
            ),
        ] {
            assert_eq!(error(yaml), format!("web.yml:{text}"));
        }
    }

    #[test]
    fn arguments_of_the_kernel_that_a_loader_would_change_are_refused() {
        let cmdline = |yaml: &str| {
            let spec = parse("web.yml", yaml).unwrap();
            spec.kernel.cmdline.unwrap().get(Arch::Arm64).unwrap().to_owned()
        };
        assert_eq!(cmdline("kernel:\n  cmdline: |\n    a=1  b\n    c=\"d\"\n"), "a=1 b c=\"d\"");
        for (yaml, text) in [
            (
                "kernel:\n  cmdline: \"a\\tb\"",
                "web.yml:2:12: the arguments of the kernel contain '\\t';",
            ),
            ("kernel:\n  cmdline: {arm64: a, x86_64: é}", "web.yml:2:31: "),
            ("kernel:\n  cmdline: a=${net0/ip}", "web.yml:2:12: "),
        ] {
            let error = error(yaml);
            assert!(error.starts_with(text), "{error}");
        }
        let long = |n| format!("kernel:\n  cmdline: {}\n", "a".repeat(n));
        assert_eq!(cmdline(&long(2047)).len(), 2047);
        assert!(error(&long(2048)).ends_with("have 2048 characters; it keeps 2047 at most"));
    }

    #[test]
    fn services_that_wait_for_each_other_are_refused() {
        let service = |name: &str, after: &str| {
            format!("  - {{name: {name}, deb: [x], command: [y], after: [{after}]}}\n")
        };
        let chain = [service("a", "b, c"), service("b", ""), service("c", "b, d")].concat();
        let yaml = |last: &str| format!("services:\n{chain}{}", service("d", last));
        parse("web.yml", &yaml("b")).unwrap();
        assert_eq!(
            error(&yaml("a")),
            "web.yml:2:50: services wait for each other: `a` after `c` after `d` after `a`"
        );
        let alone = format!("services:\n{}", service("a", "a"));
        assert!(error(&alone).ends_with("services wait for each other: `a` after `a`"));
    }

    #[test]
    fn what_a_machine_needs_to_boot_is_missed_with_a_place() {
        for (yaml, text) in [
            ("# web\nkernel: {deb: a}", "2:1: `init` is missing; add `init: [kiln]`"),
            ("kernel: {deb: a}\ninit: []", "1:1: `init` is missing; add `init: [kiln]`"),
            ("", "1:1: `init` is missing; add `init: [kiln]`"),
            ("init: [kiln]", "1:1: there is no kernel; add `kernel: {deb: …}`"),
            (
                "init: [kiln]\nkernel:\n  deb: {x86_64: a}",
                "3:8: there is no kernel package for arm64 here",
            ),
        ] {
            let spec = parse("web.yml", yaml).unwrap();
            let text = format!("web.yml:{text}");
            assert_eq!(spec.kernel_package(Arch::Arm64).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn of_several_files_the_one_that_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["one.yml", "two.yml"].map(|name| dir.path().join(name));
        let yaml = "services:\n  - {name: a, deb: [b], command: [c]}\n";
        std::fs::write(&paths[0], yaml).unwrap();
        std::fs::write(&paths[1], format!("# more\n{yaml}")).unwrap();
        let text = load(&paths).unwrap_err().to_string();
        let [one, two] = paths.map(|path| path.display().to_string());
        assert!(text.starts_with(&format!("{two}:3:12: ")), "{text}");
        assert!(text.contains(&format!("first at {one}:2:12;")), "{text}");
    }
}
