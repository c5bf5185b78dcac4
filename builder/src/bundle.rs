//! Writes a container as a runtime finds it: `config.json` of the OCI runtime specification with LinuxKit's defaults,
//! `runtime.json` with what has to be mounted before, and the root file system.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::spec::{Container, Mount as Settled, Namespace, UserId};
use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

const OCI_VERSION: &str = "1.2.1";
/// Where programs are looked for when a container does not say so itself.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    oci_version: &'static str,
    process: Process<'a>,
    root: Root,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    mounts: Vec<Mount>,
    linux: Linux<'a>,
}

#[derive(Serialize)]
struct Process<'a> {
    user: User,
    args: &'a [String],
    env: Vec<&'a str>,
    cwd: &'a str,
    capabilities: Caps,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
struct Caps {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bounding: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    effective: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inheritable: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permitted: Vec<String>,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    readonly: bool,
}

#[derive(Clone, Serialize)]
struct Mount {
    destination: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

#[derive(Serialize)]
struct Linux<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sysctl: BTreeMap<&'a str, &'a str>,
    resources: Resources,
    namespaces: Vec<NamespaceEntry<'a>>,
}

#[derive(Serialize)]
struct Resources {}

#[derive(Serialize)]
struct NamespaceEntry<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

/// What has to be done before a container can be made. Every key is always there, as LinuxKit writes it.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    cgroups: Vec<String>,
    mounts: Vec<Mount>,
    mkdir: Vec<String>,
    interfaces: Vec<String>,
    #[serde(rename = "bindNS")]
    bind_ns: BindNs,
    namespace: String,
}

#[derive(Default, Serialize)]
struct BindNs {
    cgroup: String,
    ipc: String,
    mnt: String,
    net: String,
    pid: String,
    user: String,
    uts: String,
}

/// Returns `config.json`.
pub fn config_json(spec: &Container) -> Vec<u8> {
    let caps = &spec.capabilities;
    let mut sorted = caps.to_vec();
    sorted.sort();
    sorted.dedup();
    let config = Config {
        oci_version: OCI_VERSION,
        process: Process {
            user: User { uid: number(&spec.uid), gid: number(&spec.gid) },
            args: &spec.command,
            env: environment(spec),
            cwd: &spec.cwd,
            capabilities: Caps {
                bounding: sorted.clone(),
                effective: caps.to_vec(),
                inheritable: sorted.clone(),
                permitted: sorted,
            },
        },
        root: Root { path: "rootfs", readonly: spec.readonly },
        hostname: spec.hostname.as_deref(),
        mounts: mounts(spec),
        linux: Linux {
            sysctl: spec.sysctl.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            resources: Resources {},
            namespaces: namespaces(spec),
        },
    };
    to_json(&config)
}

/// Returns `runtime.json` for a bundle at this absolute path, whose files are in `lower` unless it is read-only.
pub fn runtime_json(spec: &Container, bundle: &str, lower: &str) -> Vec<u8> {
    let in_bundle = |name: &str| format!("{bundle}/{name}");
    let rootfs = in_bundle("rootfs");
    let mounts = if spec.readonly {
        vec![Mount {
            destination: rootfs.clone(),
            kind: Some("bind".to_owned()),
            source: Some(rootfs),
            options: vec!["bind".to_owned()],
        }]
    } else {
        let tmp = in_bundle("tmp");
        let options = vec![
            format!("lowerdir={lower}"),
            format!("upperdir={tmp}/upper"),
            format!("workdir={tmp}/work"),
        ];
        vec![
            mount(&tmp, "tmpfs", "tmpfs", &[]),
            Mount {
                destination: tmp,
                kind: None,
                source: None,
                options: vec!["remount".to_owned(), "private".to_owned()],
            },
            Mount { options, ..mount(&rootfs, "overlay", "overlay", &[]) },
        ]
    };
    to_json(&Runtime { mounts, ..Runtime::default() })
}

/// Where a container gets its files from.
#[derive(Debug)]
pub enum RootFiles {
    /// From this tree, which becomes a part of the bundle.
    Own(Tree),
    /// From a directory that another bundle brings. A container that is read-only cannot share it.
    Shared(String),
}

/// Puts a container with its root file system into a tree of its own, at this absolute path of the machine.
///
/// # Errors
///
/// Fails when a path becomes too long.
pub fn write(spec: &Container, path: &str, root: RootFiles) -> Result<Tree, TreePathError> {
    let mut tree = Tree::new();
    let at = |name: &str| TreePath::new(&format!("{path}/{name}"));
    let (root, lower) = match root {
        RootFiles::Own(root) => (Some(root), format!("{path}/lower")),
        RootFiles::Shared(lower) => (None, lower),
    };
    tree.insert(at("config.json")?, Node::file(0o644, config_json(spec)));
    tree.insert(at("runtime.json")?, Node::file(0o644, runtime_json(spec, path, &lower)));
    tree.insert(at("rootfs")?, Node::dir());
    if !spec.readonly {
        tree.insert(at("tmp")?, Node::dir());
    }
    if let Some(root) = root {
        let mut root = prepare_root(root)?;
        if spec.readonly {
            add_mount_points(spec, &mut root)?;
        }
        let base = at(if spec.readonly { "rootfs" } else { "lower" })?;
        for (inner, mut node) in root {
            if let Kind::Hardlink(target) = &mut node.kind {
                *target = target.below(&base)?;
            }
            tree.insert(inner.below(&base)?, node);
        }
    }
    Ok(tree)
}

/// Makes the directories that are mounted on: in a root that nothing can be written to, the runtime cannot.
fn add_mount_points(spec: &Container, root: &mut Tree) -> Result<(), TreePathError> {
    for mount in mounts(spec) {
        let path = TreePath::new(&mount.destination)?;
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

/// Adds what every root file system needs and packages do not bring: packages leave it to scripts, which do not run.
fn prepare_root(mut root: Tree) -> Result<Tree, TreePathError> {
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

/// Packages say nothing of an environment, as images do; but without a search path few programs start.
fn environment(spec: &Container) -> Vec<&str> {
    let given = spec.env.iter().map(String::as_str);
    let path = (!given.clone().any(|entry| entry.starts_with("PATH="))).then_some(PATH);
    path.into_iter().chain(given).collect()
}

fn mounts(spec: &Container) -> Vec<Mount> {
    let read_only: &[&str] = if spec.readonly { &["ro"] } else { &[] };
    let with = |options: &[&'static str]| [options, read_only].concat();
    let defaults = [
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &with(&["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        mount("/proc", "proc", "proc", &["nosuid", "nodev", "noexec", "relatime"]),
        mount("/sys", "sysfs", "sysfs", &with(&["nosuid", "noexec", "nodev"])),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    // By destination: that is also the order in which they have to be made.
    let mut mounts: BTreeMap<String, Mount> =
        defaults.into_iter().map(|mount| (mount.destination.clone(), mount)).collect();
    for Settled { destination, kind, source, options } in spec.mounts.clone() {
        let mount = Mount {
            destination: destination.clone(),
            kind: Some(kind),
            source: Some(source),
            options,
        };
        mounts.insert(destination, mount);
    }
    mounts.into_values().collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

fn namespaces(spec: &Container) -> Vec<NamespaceEntry<'_>> {
    [("network", &spec.net), ("uts", &spec.uts), ("pid", &spec.pid), ("mount", &Namespace::New)]
        .into_iter()
        .filter_map(|(kind, namespace)| match namespace {
            Namespace::Host | Namespace::Unsaid => None,
            Namespace::New => Some(NamespaceEntry { kind, path: None }),
            Namespace::Path(path) => Some(NamespaceEntry { kind, path: Some(path) }),
        })
        .collect()
}

/// Names are refused before anything is built.
fn number(id: &UserId) -> u32 {
    match id {
        UserId::Number(number) => *number,
        UserId::Container(_) => 0,
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of text and numbers: there is nothing that JSON cannot say.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(extra: &str) -> Container {
        let yaml = format!("onboot: [{{name: a, deb: [x], command: [/bin/true]{extra}}}]");
        crate::spec::parse("a.yml", &yaml).unwrap().onboot[0].settle(None, None)
    }

    #[test]
    fn a_plain_container_gets_the_defaults_of_linuxkit() {
        let config: Value = serde_json::from_slice(&config_json(&container(""))).unwrap();
        assert_eq!(config["ociVersion"], "1.2.1");
        assert_eq!(
            config["process"],
            json!({"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": [PATH], "cwd": "/",
                   "capabilities": {}})
        );
        assert_eq!(config["root"], json!({"path": "rootfs"}));
        assert_eq!(
            config["linux"],
            json!({"resources": {}, "namespaces": [{"type": "pid"}, {"type": "mount"}]})
        );
        let destinations: Vec<_> =
            config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].clone()).collect();
        assert_eq!(destinations, ["/dev", "/dev/pts", "/proc", "/sys", "/sys/fs/cgroup"]);

        let runtime = runtime_json(
            &container(""),
            "/containers/onboot/000-a",
            "/containers/onboot/000-a/lower",
        );
        let runtime: Value = serde_json::from_slice(&runtime).unwrap();
        let at = "/containers/onboot/000-a";
        assert_eq!(
            runtime["mounts"],
            json!([
                {"destination": format!("{at}/tmp"), "type": "tmpfs", "source": "tmpfs"},
                {"destination": format!("{at}/tmp"), "options": ["remount", "private"]},
                {"destination": format!("{at}/rootfs"), "type": "overlay", "source": "overlay",
                 "options": [format!("lowerdir={at}/lower"), format!("upperdir={at}/tmp/upper"),
                             format!("workdir={at}/tmp/work")]},
            ])
        );
        assert_eq!(runtime["bindNS"].as_object().unwrap().len(), 7);
    }

    #[test]
    fn settings_reach_the_configuration() {
        let spec = container(
            ", net: /run/netns/x, hostname: h, readonly: true, binds: [/a:/b:ro], tmpfs: [/dev], \
              capabilities: [CAP_SYS_TIME, CAP_CHOWN]",
        );
        let config: Value = serde_json::from_slice(&config_json(&spec)).unwrap();
        assert_eq!(config["root"]["readonly"], true);
        assert_eq!(
            config["process"]["capabilities"]["bounding"],
            json!(["CAP_CHOWN", "CAP_SYS_TIME"])
        );
        assert_eq!(
            config["process"]["capabilities"]["effective"],
            json!(["CAP_SYS_TIME", "CAP_CHOWN"])
        );
        let mounts = config["mounts"].as_array().unwrap();
        assert_eq!(
            mounts[0],
            json!({"destination": "/b", "type": "bind", "source": "/a", "options": ["ro", "rbind"]})
        );
        assert_eq!(mounts[1], json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}));
        assert_eq!(
            config["linux"]["namespaces"],
            json!([{"type": "network", "path": "/run/netns/x"}, {"type": "uts"}, {"type": "pid"},
                   {"type": "mount"}])
        );
    }

    #[test]
    fn a_root_that_cannot_be_written_to_has_its_mount_points() {
        let spec = container(", readonly: true, binds: [/a:/srv/www, /b:/etc/hosts, /c:/bin/x]");
        let tree = write(&spec, "/c", RootFiles::Own(Tree::new())).unwrap();
        let kind = |path: &str| tree.get(&TreePath::new(path).unwrap()).map(|node| &node.kind);
        assert!(matches!(kind("c/rootfs/srv/www"), Some(Kind::Dir)));
        assert!(matches!(kind("c/rootfs/sys/fs/cgroup"), Some(Kind::Dir)));
        assert!(matches!(kind("c/rootfs/etc/hosts"), Some(Kind::File(_))));
        assert!(matches!(kind("c/rootfs/bin"), Some(Kind::Symlink(_))));
    }

    #[test]
    fn files_of_the_root_and_their_hard_links_move_into_the_bundle() {
        let path = |s: &str| TreePath::new(s).unwrap();
        let mut root = Tree::new();
        root.insert(path("usr/bin/a"), Node::file(0o755, *b"x"));
        root.insert(path("usr/bin/b"), Node::new(0o755, Kind::Hardlink(path("usr/bin/a"))));
        let tree = write(&container(""), "/containers/onboot/000-a", RootFiles::Own(root)).unwrap();
        let link = tree.get(&path("containers/onboot/000-a/lower/usr/bin/b")).unwrap();
        let target = path("containers/onboot/000-a/lower/usr/bin/a");
        assert!(matches!(&link.kind, Kind::Hardlink(to) if *to == target));
        assert!(tree.contains(&target));
        assert!(tree.contains(&path("containers/onboot/000-a/lower/bin")));
    }
}
