//! The root file system of a container.

use std::collections::BTreeSet;

use kiln_types::Digest;

use crate::spec::Container;
use crate::tree::{Content, Kind, Node, Tree, TreePath, TreePathError};

/// Where programs are looked for when a container made from packages does not say so itself.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory of the machine for the root file systems that bundles do not hold themselves.
const ROOTS: &str = "/containers/roots";

/// Where the files of a container are on the machine.
///
/// Two containers may have the same files only if they have the same [`mount_points`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootPlace {
    /// In the bundle, where LinuxKit puts them: in `rootfs` when nothing can be written to it, else in `lower`, under an
    /// overlay.
    Bundle,
    /// In this directory.
    Dir(String),
    /// In this SquashFS file, which has the mount points (see [`add_mount_points`]).
    Packed(String),
}

impl RootPlace {
    /// Returns a place that is named by what is in it, so that every container that has just these files finds them
    /// there, in any image.
    pub fn named(id: &Digest, packed: bool) -> Self {
        // Half of the digest: nobody finds two that agree in it.
        let id: String = id.hex().chars().take(32).collect();
        match packed {
            true => Self::Packed(format!("{ROOTS}/{id}.sqfs")),
            false => Self::Dir(format!("{ROOTS}/{id}")),
        }
    }

    /// Returns the absolute path where the files of a bundle at this path are.
    pub fn path(&self, container: &Container, bundle: &str) -> String {
        match self {
            Self::Bundle if container.readonly => format!("{bundle}/rootfs"),
            Self::Bundle => format!("{bundle}/lower"),
            Self::Dir(path) | Self::Packed(path) => path.clone(),
        }
    }
}

/// The files of a container.
#[derive(Debug)]
pub enum RootFiles {
    /// As they are.
    Tree(Tree),
    /// In a SquashFS file system.
    Packed(Content),
}

impl RootFiles {
    /// Returns the tree that has them at an absolute path of the machine, which is that of a [`RootPlace`].
    ///
    /// # Errors
    ///
    /// Fails when a path becomes too long.
    pub fn place(self, container: &Container, path: &str) -> Result<Tree, TreePathError> {
        let (mut tree, path) = (Tree::new(), TreePath::new(path)?);
        match self {
            Self::Tree(mut root) => {
                add_mount_points(container, &mut root)?;
                graft(root, &path, &mut tree)?;
            }
            Self::Packed(content) => {
                tree.insert(path, Node::new(0o644, Kind::File(content)));
            }
        }
        Ok(tree)
    }
}

/// Returns the directories that the files of a container must have because it cannot make them: those that are mounted
/// on, when nothing can be written to its root. Sorted.
pub fn mount_points(container: &Container) -> Vec<String> {
    const DEFAULT: [&str; 5] = ["/dev", "/dev/pts", "/proc", "/sys", "/sys/fs/cgroup"];
    if !container.readonly {
        return Vec::new();
    }
    let given = container.mounts.iter().map(|mount| mount.destination.as_str());
    let all: BTreeSet<_> = DEFAULT.into_iter().chain(given).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// Adds the [`mount_points`] of a container to its files.
///
/// # Errors
///
/// Fails when a mount point is not a path inside the container.
pub fn add_mount_points(container: &Container, root: &mut Tree) -> Result<(), TreePathError> {
    for point in mount_points(container) {
        let path = TreePath::new(&point)?;
        // A link on the way leads somewhere that only the runtime finds.
        let on_the_way = std::iter::successors(Some(path.clone()), TreePath::parent);
        let in_the_way =
            |path: &TreePath| root.get(path).is_some_and(|node| !matches!(node.kind, Kind::Dir));
        if !on_the_way.into_iter().any(|path| in_the_way(&path)) && !root.contains(&path) {
            root.insert(path, Node::dir());
        }
    }
    Ok(())
}

/// Puts a tree below a directory of another one.
pub(super) fn graft(from: Tree, base: &TreePath, into: &mut Tree) -> Result<(), TreePathError> {
    into.insert(base.clone(), Node::dir());
    for (inner, mut node) in from {
        if let Kind::Hardlink(target) = &mut node.kind {
            *target = target.below(base)?;
        }
        into.insert(inner.below(base)?, node);
    }
    Ok(())
}

/// Gives a container made from packages what an image would bring with it: a search path.
pub fn package_environment(container: &mut Container) {
    if !container.env.iter().any(|entry| entry.starts_with("PATH=")) {
        container.env.insert(0, PATH.to_owned());
    }
}

/// Adds what every root file system needs and packages do not bring: they leave it to scripts, which do not run.
///
/// # Errors
///
/// Never, as long as the paths that are added are paths.
pub fn complete_packages(mut root: Tree) -> Result<Tree, TreePathError> {
    let sticky = || Node::new(0o1777, Kind::Dir);
    let nodes = [
        ("bin", Node::symlink("usr/bin")),
        ("sbin", Node::symlink("usr/sbin")),
        ("lib", Node::symlink("usr/lib")),
        ("dev", Node::dir()),
        ("dev/pts", Node::dir()),
        ("dev/shm", Node::dir()),
        ("etc/group", Node::file(0o644, *b"root:x:0:\nnogroup:x:65534:\n")),
        ("etc/hosts", Node::file(0o644, *b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n")),
        ("etc/mtab", Node::symlink("/proc/mounts")),
        (
            "etc/passwd",
            Node::file(
                0o644,
                *b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
            ),
        ),
        ("etc/resolv.conf", Node::file(0o644, *b"# no resolv.conf configured\n")),
        ("proc", Node::dir()),
        ("root", Node::new(0o700, Kind::Dir)),
        ("run", Node::dir()),
        ("sys", Node::dir()),
        ("tmp", sticky()),
        ("usr/bin", Node::dir()),
        ("usr/lib", Node::dir()),
        ("usr/sbin", Node::dir()),
        ("var/tmp", sticky()),
    ];
    for (path, node) in nodes {
        let path = TreePath::new(path)?;
        if !root.contains(&path) {
            root.insert(path, node);
        }
    }
    // Programs for x86_64 name their loader below /lib64.
    let lib64 = TreePath::new("lib64")?;
    if root.contains(&TreePath::new("usr/lib64")?) && !root.contains(&lib64) {
        root.insert(lib64, Node::symlink("usr/lib64"));
    }
    Ok(root)
}
