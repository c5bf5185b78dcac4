use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

/// What is made anew for every container, and so is taken out of its image. What lies below `dev/pts` and `dev/shm`
/// goes as well.
const LEFT_OUT: [&str; 6] =
    [".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname"];

/// What names containers without `etc/hosts` of their own know.
const HOSTS: &str = "127.0.0.1       localhost\n\
                     ::1     localhost ip6-localhost ip6-loopback\n\
                     fe00::0 ip6-localnet\n\
                     ff00::0 ip6-mcastprefix\n\
                     ff02::1 ip6-allnodes\n\
                     ff02::2 ip6-allrouters\n";

/// Makes the tree of an image the root file system of a container, as LinuxKit does: leaves out what belongs to the
/// build of the image, and adds what a runtime mounts on.
///
/// # Errors
///
/// Never in practice: the paths are ours, and short.
pub fn for_container(tree: Tree) -> Result<Tree, TreePathError> {
    prepare(tree, Node::file(0o644, *b"\n# no resolv.conf configured\n"))
}

/// Makes the tree of an image a part of the machine's own root file system, or a volume. The name servers are those
/// that the machine learns.
///
/// # Errors
///
/// Never in practice: the paths are ours, and short.
pub fn for_init(tree: Tree) -> Result<Tree, TreePathError> {
    prepare(tree, Node::symlink("/run/resolvconf/resolv.conf"))
}

fn prepare(mut tree: Tree, resolv_conf: Node) -> Result<Tree, TreePathError> {
    let replaced =
        [("etc/hosts", Node::file(0o644, HOSTS.as_bytes())), ("etc/resolv.conf", resolv_conf)];
    let mut gone = Vec::new();
    for path in LEFT_OUT.into_iter().chain(replaced.iter().map(|(path, _)| *path)) {
        gone.push(TreePath::new(path)?);
    }
    tree.remove_keeping_links(&gone);
    for path in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
        let path = TreePath::new(path)?;
        // A directory of the image keeps its owner and mode.
        if !tree.get(&path).is_some_and(|node| matches!(node.kind, Kind::Dir)) {
            tree.insert(path, Node::dir());
        }
    }
    for (path, node) in replaced {
        tree.insert(TreePath::new(path)?, node);
    }
    let mtab = TreePath::new("etc/mtab")?;
    if !tree.contains(&mtab) {
        tree.insert(mtab, Node::symlink("/proc/mounts"));
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> TreePath {
        TreePath::new(s).unwrap()
    }

    fn image() -> Tree {
        let mut tree = Tree::new();
        for name in [".dockerenv", "Dockerfile", "etc/hostname", "etc/hosts", "dev/shm/x", "bin/a"]
        {
            tree.insert(path(name), Node::file(0o600, name.as_bytes()));
        }
        tree.insert(path("dev/console"), Node::new(0o600, Kind::CharDevice(5, 1)));
        tree.insert(path("etc/resolv.conf"), Node::symlink("../run/x"));
        tree.insert(path("proc"), Node::new(0o555, Kind::Dir));
        tree
    }

    #[test]
    fn what_a_runtime_makes_is_left_out_and_what_it_mounts_on_is_there() {
        let text = |tree: &Tree, name: &str| {
            let bytes = tree.content(&path(name)).map(|it| it.read_all(1000).unwrap());
            String::from_utf8(bytes.unwrap()).unwrap()
        };
        let root = for_container(image()).unwrap();
        let names: Vec<_> = root.iter().map(|(path, _)| path.as_str()).collect();
        let want = "bin bin/a dev dev/pts dev/shm etc etc/hosts etc/mtab etc/resolv.conf proc sys";
        assert_eq!(names.join(" "), want);
        assert_eq!(text(&root, "etc/hosts").lines().count(), 6);
        assert_eq!(text(&root, "etc/resolv.conf"), "\n# no resolv.conf configured\n");
        assert_eq!(root.get(&path("proc")).unwrap().mode, 0o555);
        // Alpine's images have one of their own.
        let mut alpine = image();
        alpine.insert(path("etc/mtab"), Node::symlink("../proc/mounts"));
        let alpine = for_container(alpine).unwrap();
        let mtab = &alpine.get(&path("etc/mtab")).unwrap().kind;
        assert!(matches!(mtab, Kind::Symlink(to) if to == "../proc/mounts"));
        let init = for_init(image()).unwrap();
        let target = &init.get(&path("etc/resolv.conf")).unwrap().kind;
        assert!(matches!(target, Kind::Symlink(to) if to == "/run/resolvconf/resolv.conf"));
    }

    #[test]
    fn other_names_of_what_is_left_out_keep_the_content() {
        let mut tree = image();
        for name in ["usr/a", "usr/b"] {
            tree.insert(path(name), Node::new(0o600, Kind::Hardlink(path("dev/shm/x"))));
        }
        let root = for_container(tree).unwrap();
        assert!(matches!(root.get(&path("usr/a")).unwrap().kind, Kind::File(_)));
        let kind = &root.get(&path("usr/b")).unwrap().kind;
        assert!(matches!(kind, Kind::Hardlink(to) if *to == path("usr/a")));
    }

    #[test]
    fn links_where_directories_are_needed_are_replaced() {
        let mut tree = Tree::new();
        tree.insert(path("etc"), Node::symlink("/"));
        tree.insert(path("dev"), Node::file(0o644, *b""));
        let root = for_container(tree).unwrap();
        assert!(root.contains(&path("etc/hosts")) && root.contains(&path("dev/pts")));
    }
}
