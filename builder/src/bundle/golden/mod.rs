//! What LinuxKit writes for the same container, by the rules of its builder, document by document.

use kiln_types::Arch;
use serde_json::{Value, json};

use super::*;
use crate::spec::parse;
use crate::tree::{Content, Kind};

const AT: &str = "/containers/onboot/000-a";

fn container(extra: &str) -> Container {
    // The specification has more than the surroundings below, so that what those lack is found by the bundle.
    let yaml = format!(
        "onboot:\n- {{name: a, image: x/y:1, command: [/bin/true]{extra}}}\n- {{name: b, image: x/y:1}}\n\
         - {{name: c, image: x/y:1}}\nvolumes:\n- {{name: data}}\n- {{name: fixed}}\n- {{name: other}}\n"
    );
    parse("a.yml", &yaml).unwrap().onboot[0].settle(None, None)
}

fn try_config(
    container: &Container,
    seccomp: Option<&seccomp::Profile>,
) -> Result<Value, BundleError> {
    let ids = Ids::new(["a", "b"]);
    let volumes = Volumes::new([("data", false), ("fixed", true)]);
    let around = Surroundings { arch: Arch::Arm64, ids: &ids, volumes: &volumes, seccomp };
    config_json(container, around).map(|json| serde_json::from_slice(&json).unwrap())
}

fn config(extra: &str) -> Value {
    try_config(&container(extra), None).unwrap()
}

fn runtime(extra: &str, root: &RootPlace) -> Value {
    serde_json::from_slice(&runtime_json(&container(extra), AT, root)).unwrap()
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_plain_container_is_that_of_linuxkit() {
    assert_eq!(config(""), document(include_str!("plain.json")));
    assert_eq!(runtime("", &RootPlace::Bundle), document(include_str!("plain-runtime.json")));
}

#[test]
fn a_container_with_every_field_is_that_of_linuxkit() {
    let yaml = include_str!("every-field.yml");
    let spec = parse("every-field.yml", yaml).unwrap();
    let every = spec.onboot[0].settle(None, None);
    let value = try_config(&every, None).unwrap();
    assert_eq!(value, document(include_str!("every-field.json")), "{value:#}");
    let json = runtime_json(&every, AT, &RootPlace::Bundle);
    let value: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value, document(include_str!("every-field-runtime.json")), "{value:#}");
}

#[test]
fn a_read_only_container_mounts_dev_and_sys_read_only() {
    let value = config(", readonly: true");
    assert_eq!(value["root"], json!({"path": "rootfs", "readonly": true}));
    assert_eq!(
        value["mounts"][0]["options"],
        json!(["nosuid", "strictatime", "mode=755", "size=65536k", "ro"])
    );
    assert_eq!(value["mounts"][3]["options"], json!(["nosuid", "noexec", "nodev", "ro"]));
    let rootfs = format!("{AT}/rootfs");
    assert_eq!(
        runtime(", readonly: true", &RootPlace::Bundle)["mounts"],
        json!([{"destination": rootfs, "source": rootfs, "options": ["bind"]}])
    );
}

#[test]
fn mounts_come_by_destination_and_take_the_place_of_others() {
    let value = config(
        ", tmpfs: ['/dev', '/z:size=1m,mode=1777'], binds: ['/a:/b', '/c:/b/c:ro', 'data:/srv'], \
         mounts: [{type: cgroup2, options: [ro]}, {source: mqueue}, {destination: /f, type: ext4, source: /dev/vda}]",
    );
    let mounts = value["mounts"].as_array().unwrap();
    let at = |destination: &str| {
        mounts.iter().find(|mount| mount["destination"] == destination).unwrap().clone()
    };
    let order: Vec<_> = mounts.iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(
        order,
        [
            "/b",
            "/b/c",
            "/dev",
            "/dev/mqueue",
            "/dev/pts",
            "/f",
            "/proc",
            "/srv",
            "/sys",
            "/sys/fs/cgroup",
            "/z"
        ]
    );
    assert_eq!(at("/b")["options"], json!(["rw", "rbind", "rshared"]));
    assert_eq!(at("/b/c")["options"], json!(["ro", "rbind"]));
    assert_eq!(at("/dev"), json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(at("/srv")["source"], "/containers/volumes/data/merged");
    assert_eq!(at("/dev/mqueue")["type"], "mqueue");
    assert_eq!(at("/sys/fs/cgroup")["type"], "cgroup2");
    assert_eq!(at("/z")["options"], json!(["size=1m", "mode=1777"]));
}

#[test]
fn namespaces_come_in_the_order_of_linuxkit() {
    let value = config(
        ", net: new, ipc: /run/ns/ipc, uts: new, pid: host, userns: new, hostname: h, \
         uidMappings: [{hostID: 1000, containerID: 0, size: 10}]",
    );
    assert_eq!(
        value["linux"]["namespaces"],
        json!([{"type": "network"}, {"type": "ipc", "path": "/run/ns/ipc"}, {"type": "uts"},
               {"type": "user"}, {"type": "mount"}])
    );
    // LinuxKit loses the numbers of mappings.
    assert_eq!(
        value["linux"]["uidMappings"],
        json!([{"hostID": 1000, "containerID": 0, "size": 10}])
    );
}

#[test]
fn a_device_is_made_and_allowed_and_all_of_a_kind_are_only_allowed() {
    let value = config(
        ", devices: [{path: all, type: b}, {path: /dev/kvm, type: c, major: 10, minor: 232, mode: \"0660\"}]",
    );
    assert_eq!(
        value["linux"]["devices"],
        json!([{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232, "fileMode": 0o660}])
    );
    assert_eq!(
        value["linux"]["resources"],
        json!({"devices": [
            {"allow": true, "type": "b", "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 232, "access": "rwm"},
        ]})
    );
}

#[test]
fn users_by_name_get_the_numbers_of_their_containers() {
    let value = config(", uid: b, gid: root, additionalGids: [a, 7]");
    assert_eq!(value["process"]["user"], json!({"uid": 101, "gid": 0, "additionalGids": [100, 7]}));
    let error = try_config(&container(", uid: c"), None).unwrap_err().to_string();
    assert!(error.starts_with("container `a` runs as `c`"), "{error}");
}

#[test]
fn volumes_that_are_read_only_or_missing_are_refused() {
    for (extra, text) in [
        (", binds: ['fixed:/x']", "the volume is read-only"),
        (", mounts: [{destination: /x, type: bind, source: other}]", "no volume of this name"),
    ] {
        let error = try_config(&container(extra), None).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let value = config(", mounts: [{destination: /x, type: bind, source: fixed, options: [ro]}]");
    let mounts = value["mounts"].as_array().unwrap();
    assert_eq!(mounts.last().unwrap()["source"], "/containers/volumes/fixed/merged");
}

#[test]
fn a_seccomp_profile_is_in_the_configuration() {
    let value = try_config(&container(""), Some(&seccomp::Profile::Default)).unwrap();
    assert_eq!(value["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(value["linux"]["seccomp"]["architectures"][0], "SCMP_ARCH_AARCH64");
    let profile = seccomp::Profile::Given(json!({"defaultAction": "SCMP_ACT_LOG"}));
    let value = try_config(&container(""), Some(&profile)).unwrap();
    assert_eq!(value["linux"]["seccomp"], json!({"defaultAction": "SCMP_ACT_LOG"}));
}

#[test]
fn a_second_container_of_the_same_files_takes_them_from_the_first() {
    let other = "/containers/onboot/000-x/lower".to_owned();
    let value = runtime("", &RootPlace::Dir(other.clone()));
    assert_eq!(value["mounts"][2]["options"][0], format!("lowerdir={other}"));
    let value = runtime(", readonly: true", &RootPlace::Dir(other.clone()));
    assert_eq!(value["mounts"][0]["source"], other);
    let path = |extra: &str| RootPlace::Bundle.path(&container(extra), AT);
    assert_eq!(path(""), format!("{AT}/lower"));
    assert_eq!(path(", readonly: true"), format!("{AT}/rootfs"));
    let id = crate::hash::sha256(b"files");
    let half = &id.hex().to_string()[..32];
    let named = RootPlace::Dir(format!("/containers/roots/{half}"));
    assert_eq!(RootPlace::named(&id, false), named);
    let named = RootPlace::Packed(format!("/containers/roots/{half}.sqfs"));
    assert_eq!(RootPlace::named(&id, true), named);
}

#[test]
fn packed_files_are_mounted_before_the_overlay_or_in_its_place() {
    let packed = RootPlace::Packed("/x/root.sqfs".to_owned());
    let value = runtime("", &packed);
    assert_eq!(
        value["mounts"][0],
        json!({"destination": format!("{AT}/lower"), "type": "squashfs",
               "source": "/x/root.sqfs", "options": ["ro", "loop"]})
    );
    assert_eq!(value["mounts"][1]["type"], "tmpfs");
    assert_eq!(value["mounts"][3]["type"], "overlay");
    assert_eq!(value["mounts"][3]["options"][0], format!("lowerdir={AT}/lower"));
    let value = runtime(", readonly: true", &packed);
    assert_eq!(
        value["mounts"],
        json!([{"destination": format!("{AT}/rootfs"), "type": "squashfs",
                "source": "/x/root.sqfs", "options": ["ro", "loop"]}])
    );

    let paths = |extra: &str, root: &RootPlace| -> Vec<String> {
        let tree = write(&container(extra), Vec::new(), AT, root).unwrap();
        let inside = |path: &str| path.strip_prefix(&AT[1..]).map(str::to_owned);
        tree.iter().filter_map(|(path, _)| inside(path.as_str())).collect()
    };
    let all = ["", "/config.json", "/lower", "/rootfs", "/runtime.json", "/tmp"];
    assert_eq!(paths("", &packed), all);
    let fixed = ["", "/config.json", "/rootfs", "/runtime.json"];
    assert_eq!(paths(", readonly: true", &packed), fixed);
    let plain = ["", "/config.json", "/rootfs", "/runtime.json", "/tmp"];
    assert_eq!(paths("", &RootPlace::Dir("/x".to_owned())), plain);
    let content = RootFiles::Packed(Content::Bytes((*b"hsqs").into()));
    let tree = content.place(&container(""), "/x/root.sqfs").unwrap();
    let paths: Vec<_> = tree.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["x", "x/root.sqfs"]);
}

#[test]
fn a_root_that_cannot_be_written_to_has_its_mount_points() {
    let spec = container(", readonly: true, binds: ['/a:/srv/www', '/b:/etc/hosts', '/c:/bin/x']");
    let root = complete_packages(Tree::new()).unwrap();
    let tree = RootFiles::Tree(root).place(&spec, "/c/rootfs").unwrap();
    let kind = |path: &str| tree.get(&TreePath::new(path).unwrap()).map(|node| &node.kind);
    assert!(matches!(kind("c/rootfs/srv/www"), Some(Kind::Dir)));
    assert!(matches!(kind("c/rootfs/sys/fs/cgroup"), Some(Kind::Dir)));
    assert!(matches!(kind("c/rootfs/etc/hosts"), Some(Kind::File(_))));
    assert!(matches!(kind("c/rootfs/bin"), Some(Kind::Symlink(_))));
    assert!(mount_points(&container("")).is_empty());
}

#[test]
fn files_of_the_root_and_their_hard_links_move_to_their_place() {
    let path = |s: &str| TreePath::new(s).unwrap();
    let mut root = Tree::new();
    root.insert(path("usr/bin/a"), Node::file(0o755, *b"x"));
    root.insert(path("usr/bin/b"), Node::new(0o755, Kind::Hardlink(path("usr/bin/a"))));
    let tree = RootFiles::Tree(root).place(&container(""), &format!("{AT}/lower")).unwrap();
    let link = tree.get(&path(&format!("{AT}/lower/usr/bin/b"))).unwrap();
    let target = path(&format!("{AT}/lower/usr/bin/a"));
    assert!(matches!(&link.kind, Kind::Hardlink(to) if *to == target));
    assert!(tree.contains(&target));
}

#[test]
fn a_container_of_packages_has_a_search_path() {
    let mut plain = container("");
    package_environment(&mut plain);
    assert!(plain.env[0].starts_with("PATH=/usr/local/sbin:"));
    let mut own = container(", env: [PATH=/bin, A=b]");
    package_environment(&mut own);
    assert_eq!(own.env, ["PATH=/bin", "A=b"]);
}
