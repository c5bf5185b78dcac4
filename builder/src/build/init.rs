use std::collections::BTreeMap;

use kiln_types::Arch;
use serde_json::{Value, json};

use super::BuildError;
use crate::init_binary;
use crate::spec::{Container, OnFailure, State};
use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

/// Where kiln-init reads what the image says of itself.
const ABOUT: &str = "etc/kiln/image.json";

/// Makes the root file system around the containers: kiln-init and what it needs. It is the same for every image.
pub(super) fn tree(arch: Arch) -> Result<Tree, BuildError> {
    let binary = init_binary::load(arch)?;
    init_tree(&binary).map_err(|source| BuildError::Place { component: "init".to_owned(), source })
}

/// What kiln-init reads about the image.
pub(super) struct About<'a> {
    pub(super) image: &'a str,
    pub(super) arch: Arch,
    pub(super) onboot: &'a [Container],
    pub(super) services: &'a [Container],
    /// Modules to load at start.
    pub(super) modules: &'a [String],
    /// The component that the mark of each segment stands for; without all of them the machine must not go on.
    pub(super) parts: BTreeMap<String, String>,
    /// The least memory to boot with, in bytes.
    pub(super) min_ram: Option<u64>,
    /// The network, where the specification says something of it.
    pub(super) network: Option<Value>,
    /// The partition that is kept from image to image.
    pub(super) state: Option<State>,
    /// After how many milliseconds a watchdog resets the machine, where the specification says so; 0 for never.
    pub(super) watchdog: Option<u64>,
    /// Whether nothing in the image can reach a disk.
    pub(super) diskless: bool,
}

impl About<'_> {
    /// Returns the file system with only this in it.
    pub(super) fn tree(&self) -> Result<Tree, BuildError> {
        let text = serde_json::to_vec(&self.value()).map_err(BuildError::Manifest)?;
        let place = |source| BuildError::Place { component: "image".to_owned(), source };
        let mut tree = Tree::new();
        tree.insert(TreePath::new(ABOUT).map_err(place)?, Node::file(0o644, text));
        Ok(tree)
    }

    fn value(&self) -> Value {
        let services: BTreeMap<_, _> = self
            .services
            .iter()
            .map(|it| {
                let mut kept = json!({"restart": it.restart.policy, "after": it.after});
                let delays = [("delay", it.restart.delay), ("max-delay", it.restart.max_delay)];
                for (key, delay) in delays {
                    if let Some(delay) = delay {
                        let millis = u64::try_from(delay.duration().as_millis());
                        kept[key] = json!(millis.unwrap_or(u64::MAX));
                    }
                }
                if let Some(health) = &it.health {
                    kept["health"] = json!(health);
                }
                (it.name.as_str(), kept)
            })
            .collect();
        let failures: BTreeMap<_, _> = self
            .onboot
            .iter()
            .filter(|it| it.on_failure != OnFailure::Continue)
            .map(|it| (it.name.as_str(), it.on_failure))
            .collect();
        let Self { image, arch, modules, .. } = self;
        let mut about =
            json!({"image": image, "arch": arch, "modules": modules, "services": services});
        if !failures.is_empty() {
            about["onboot"] = json!(failures);
        }
        if !self.parts.is_empty() {
            about["parts"] = json!(self.parts);
        }
        if let Some(network) = &self.network {
            about["network"] = network.clone();
        }
        if let Some(bytes) = self.min_ram {
            about["min-ram"] = json!(bytes);
        }
        if let Some(state) = &self.state {
            about["state"] = json!(state);
        }
        if let Some(millis) = self.watchdog {
            about["watchdog"] = json!(millis);
        }
        if self.diskless {
            about["diskless"] = json!(true);
        }
        about
    }
}

/// The root file system without anything in it but kiln-init.
fn init_tree(binary: &[u8]) -> Result<Tree, TreePathError> {
    let mut tree = Tree::new();
    let private = || Node::new(0o700, Kind::Dir);
    let nodes = [
        // For containers that bind it: by this name it asks process 1.
        ("bin/kiln-init", Node::symlink("/init")),
        ("containers/onboot", Node::dir()),
        ("containers/services", Node::dir()),
        ("dev", Node::dir()),
        // The kernel opens this one for its first process, before anything is mounted.
        ("dev/console", Node::new(0o600, Kind::CharDevice(5, 1))),
        ("dev/null", Node::new(0o666, Kind::CharDevice(1, 3))),
        ("etc", Node::dir()),
        ("etc/hosts", Node::file(0o644, *b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n")),
        ("etc/resolv.conf", Node::symlink("/run/resolvconf/resolv.conf")),
        ("init", Node::file(0o755, binary)),
        ("mnt", Node::dir()),
        ("proc", Node::dir()),
        ("root", private()),
        ("run", Node::dir()),
        ("sys", Node::dir()),
        ("tmp", Node::new(0o1777, Kind::Dir)),
        ("var", Node::dir()),
    ];
    for (path, node) in nodes {
        tree.insert(TreePath::new(path)?, node);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kiln_init_is_told_of_checks_and_of_what_a_failure_means_and_of_nothing_else() {
        let yaml = "onboot:\n  - {name: a, deb: [x], command: [y], on-failure: reboot}\n  \
                    - {name: b, deb: [x], command: [y]}\nservices:\n  \
                    - {name: c, deb: [x], command: [y], health: {tcp: 80, interval: 2s}}\n  \
                    - {name: d, deb: [x], command: [y], after: [c], restart: never}\n  \
                    - {name: e, deb: [x], command: [y], restart: {delay: 20ms, max-delay: 1s}}\n";
        let spec = crate::spec::parse("a.yml", yaml).unwrap();
        let settle = |all: &[crate::spec::ContainerSpec]| -> Vec<_> {
            all.iter().map(|it| it.settle(None, None)).collect()
        };
        let (onboot, services) = (settle(&spec.onboot), settle(&spec.services));
        let mut said = About {
            image: "web",
            arch: Arch::Arm64,
            onboot: &onboot,
            services: &services,
            modules: &[],
            parts: BTreeMap::new(),
            min_ram: None,
            network: None,
            state: None,
            watchdog: None,
            diskless: false,
        };
        let about = said.value();
        assert_eq!(about.as_object().unwrap().len(), 5);
        assert_eq!(about["onboot"], json!({"a": "reboot"}));
        let health = &about["services"]["c"]["health"];
        assert_eq!((&health["tcp"], &health["interval"]), (&json!("127.0.0.1:80"), &json!(2000)));
        assert_eq!(about["services"]["d"], json!({"restart": "never", "after": ["c"]}));
        let e = json!({"restart": "always", "after": [], "delay": 20, "max-delay": 1000});
        assert_eq!(about["services"]["e"], e);
        said.parts.insert("00ff".to_owned(), "web".to_owned());
        said.min_ram = Some(1 << 27);
        said.network = Some(json!([]));
        said.diskless = true;
        let about = said.value();
        assert_eq!(about["network"], json!([]), "no network at all is something to say");
        assert_eq!(about["diskless"], true);
        assert_eq!((&about["parts"]["00ff"], &about["min-ram"]), (&json!("web"), &json!(1 << 27)));
    }
}
