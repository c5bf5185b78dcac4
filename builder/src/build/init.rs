use std::collections::BTreeMap;

use kiln_types::Arch;
use serde_json::json;

use super::BuildError;
use crate::init_binary;
use crate::spec::Container;
use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

/// Makes the root file system around the containers: kiln-init and what it needs.
pub(super) fn tree(
    image: &str,
    arch: Arch,
    services: &[Container],
    at_start: &[String],
) -> Result<Tree, BuildError> {
    let binary = init_binary::load(arch)?;
    let services: BTreeMap<_, _> = services
        .iter()
        .map(|service| {
            (service.name.as_str(), json!({"restart": service.restart, "after": service.after}))
        })
        .collect();
    let about = json!({"image": image, "arch": arch, "modules": at_start, "services": services});
    let about = serde_json::to_vec(&about).map_err(BuildError::Manifest)?;
    init_tree(&binary, about)
        .map_err(|source| BuildError::Place { component: "init".to_owned(), source })
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
