use std::collections::BTreeMap;

use kiln_types::Arch;
use serde_json::{Value, json};

use super::BuildError;
use crate::init_binary;
use crate::spec::{Container, OnFailure};
use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

/// Makes the root file system around the containers: kiln-init and what it needs.
pub(super) fn tree(
    image: &str,
    arch: Arch,
    onboot: &[Container],
    services: &[Container],
    at_start: &[String],
) -> Result<Tree, BuildError> {
    let binary = init_binary::load(arch)?;
    let about = about(image, arch, onboot, services, at_start);
    let about = serde_json::to_vec(&about).map_err(BuildError::Manifest)?;
    init_tree(&binary, about)
        .map_err(|source| BuildError::Place { component: "init".to_owned(), source })
}

/// What kiln-init reads about the image: `/etc/kiln/image.json`.
fn about(
    image: &str,
    arch: Arch,
    onboot: &[Container],
    services: &[Container],
    at_start: &[String],
) -> Value {
    let services: BTreeMap<_, _> = services
        .iter()
        .map(|it| {
            let mut kept = json!({"restart": it.restart, "after": it.after});
            if let Some(health) = &it.health {
                kept["health"] = json!(health);
            }
            (it.name.as_str(), kept)
        })
        .collect();
    let failures: BTreeMap<_, _> = onboot
        .iter()
        .filter(|it| it.on_failure != OnFailure::Continue)
        .map(|it| (it.name.as_str(), it.on_failure))
        .collect();
    let mut about =
        json!({"image": image, "arch": arch, "modules": at_start, "services": services});
    if !failures.is_empty() {
        about["onboot"] = json!(failures);
    }
    about
}

/// The root file system without anything in it but kiln-init.
fn init_tree(binary: &[u8], about: Vec<u8>) -> Result<Tree, TreePathError> {
    let mut tree = Tree::new();
    let private = || Node::new(0o700, Kind::Dir);
    let nodes = [
        ("containers/onboot", Node::dir()),
        ("containers/services", Node::dir()),
        ("dev", Node::dir()),
        // The kernel opens this one for its first process, before anything is mounted.
        ("dev/console", Node::new(0o600, Kind::CharDevice(5, 1))),
        ("dev/null", Node::new(0o666, Kind::CharDevice(1, 3))),
        ("etc", Node::dir()),
        ("etc/hosts", Node::file(0o644, *b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n")),
        ("etc/kiln/image.json", Node::file(0o644, about)),
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
                    - {name: d, deb: [x], command: [y], after: [c], restart: never}\n";
        let spec = crate::spec::parse("a.yml", yaml).unwrap();
        let settle = |all: &[crate::spec::ContainerSpec]| -> Vec<_> {
            all.iter().map(|it| it.settle(None, None)).collect()
        };
        let about = about("web", Arch::Arm64, &settle(&spec.onboot), &settle(&spec.services), &[]);
        assert_eq!(about["onboot"], json!({"a": "reboot"}));
        let health = &about["services"]["c"]["health"];
        assert_eq!((&health["tcp"], &health["interval"]), (&json!("127.0.0.1:80"), &json!(2000)));
        assert_eq!(about["services"]["d"], json!({"restart": "never", "after": ["c"]}));
    }
}
