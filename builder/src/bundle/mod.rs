//! Writes containers and volumes as the machine finds them.
//!
//! ```text
//! Container (settled) ─▶ config.json    what the OCI runtime makes of it        config, mounts, namespaces, devices,
//!                                                                               privileges, seccomp
//!                     ─▶ runtime.json   what is done on the machine before      runtime
//!                     ─▶ its files      in the bundle, or in roots/             root
//! volumes             ─▶ lower/, tmp/, merged/                                  volumes
//! ```
//!
//! `config.json` follows the OCI runtime specification 1.2.1, and says what LinuxKit's says for the same container.

mod config;
mod devices;
mod error;
mod ids;
mod mounts;
mod namespaces;
mod privileges;
mod root;
mod runtime;
pub mod seccomp;
mod volumes;

#[cfg(test)]
mod golden;

use kiln_types::Arch;

pub use config::config_json;
pub use error::BundleError;
pub use ids::Ids;
pub use root::{
    RootFiles, RootPlace, add_mount_points, complete_packages, mount_points, package_environment,
};
pub use runtime::runtime_json;
pub use volumes::{VolumeFiles, Volumes, write_volume};

use crate::spec::Container;
use crate::tree::{Node, Tree, TreePath};

/// What a container needs to know of the image around it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// What the image runs on.
    pub arch: Arch,
    /// The numbers that containers' names stand for.
    pub ids: &'a Ids,
    /// The volumes of the image.
    pub volumes: &'a Volumes,
    /// The container's seccomp profile; none lets it make every system call.
    pub seccomp: Option<&'a seccomp::Profile>,
}

/// Puts what a container is but its files into a tree of its own, at this absolute path of the machine, such as
/// `/containers/services/web`. `config` comes from [`config_json`].
///
/// # Errors
///
/// Fails when a path becomes too long.
pub fn write(
    container: &Container,
    config: Vec<u8>,
    path: &str,
    root: &RootPlace,
) -> Result<Tree, BundleError> {
    let mut tree = Tree::new();
    let at = |name: &str| TreePath::new(&format!("{path}/{name}"));
    let runtime = runtime_json(container, path, root);
    tree.insert(at("config.json")?, Node::file(0o644, config));
    tree.insert(at("runtime.json")?, Node::file(0o644, runtime));
    tree.insert(at("rootfs")?, Node::dir());
    if !container.readonly {
        tree.insert(at("tmp")?, Node::dir());
        if matches!(root, RootPlace::Packed(_)) {
            // What is packed is mounted there, under the overlay.
            tree.insert(at("lower")?, Node::dir());
        }
    }
    Ok(tree)
}
