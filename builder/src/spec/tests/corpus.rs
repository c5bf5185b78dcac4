//! Whole specifications: what is printed of them reads as the same.

use std::path::{Path, PathBuf};

use super::*;

/// Returns the YAML files of a folder beside the package; none when it is not there.
pub(super) fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "yml")).collect();
    files.sort();
    files
}

/// Reads what was written; only the place of the whole is another.
fn again(spec: &Spec, text: &str) {
    let mut again = parse("again.yml", text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    again.place = spec.place.clone();
    assert!(again == *spec, "{}:\n{text}", spec.place);
}

fn is_the_same_when_written(path: &Path) {
    let spec = load(&[path.to_owned()]).unwrap_or_else(|error| panic!("{error}"));
    again(&spec, &spec.to_yaml().unwrap());
    again(&spec, &spec.to_json().unwrap());
}

#[test]
fn every_example_of_linuxkit_is_read_but_the_one_that_is_no_yaml() {
    for path in files("../../shared/corpus/linuxkit-yaml") {
        if path.ends_with("static-ip.yml") {
            let error = load(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:28:7: ", path.display())), "{error}");
        } else {
            is_the_same_when_written(&path);
        }
    }
}

#[test]
fn every_image_that_is_shipped_is_the_same_when_it_is_written_again() {
    let files = files("../config/images");
    assert!(!files.is_empty());
    files.iter().for_each(|path| is_the_same_when_written(path));
}

/// Everything that can be said, with values that a careless writer would change.
pub(super) const EVERYTHING: &str = r##"
kernel: {image: registry.example/kernel:6, modules: [overlay], firmware: [firmware-a], cmdline: {x86_64: "a=1 b=\"c\"", arm64: ""}, binary: bzImage,
         tar: none, ucode: ""}
init: [kiln, registry.example/init:1, "registry.example/runc@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
onboot:
  - {name: "1", image: "registry.example/a:1", on-failure: reboot, layout: packed}
onshutdown:
  - {name: "null", deb: [b], command: ["true", "null", "~", "", " ", "0x10", "1e3", "- a", "#", "a: b", "é\u0007\n"]}
services:
  - name: web
    image: registry.example/web:1
    command: []
    env: [A=, "B= c", "C=#"]
    cwd: /srv
    capabilities: [ALL]
    capabilities.add: [CAP_CHOWN]
    ambient: [none]
    mounts:
      - {type: cgroup, options: [rw]}
      - {type: bind, source: data, destination: /data, options: [rbind, ro]}
    binds: ["data:/d:ro", /etc/x:/y]
    binds.add: ["/a:/b:"]
    tmpfs: [/tmp, "/run:size=1m,mode=755"]
    devices: [{path: all, type: a}, {path: /dev/kvm, type: c, major: 10, minor: 232, mode: 0660}]
    net: none
    pid: root
    ipc: ""
    uts: new
    userns: /run/ns/user
    hostname: web
    readonly: true
    maskedPaths: [/proc/kcore]
    readonlyPaths: []
    uid: web
    gid: "12"
    additionalGids: [0, root, web]
    noNewPrivileges: false
    oomScoreAdj: -1000
    rootfsPropagation: rslave
    cgroupsPath: /x
    resources:
      devices: [{allow: true, type: c, major: 1, minor: 5, access: rwm}]
      memory: {limit: 1, reservation: 2, swap: -1, kernel: 3, kernelTCP: 4, swappiness: 5, disableOOMKiller: true}
      cpu: {shares: 1, quota: 2, burst: 3, period: 4, realtimeRuntime: 5, realtimePeriod: 6, cpus: "0", mems: 0-1, idle: 1}
      pids: {limit: -1}
      blockio: {weight: 10, leafWeight: 11, weightDevice: [{major: 8, minor: 0, weight: 5}],
                throttleReadBpsDevice: [{major: 8, minor: 0, rate: 5}], throttleWriteIOPSDevice: []}
      hugepageLimits: [{pageSize: 2MB, limit: 1}]
      network: {classID: 1, priorities: [{name: eth0, priority: 1}]}
      rdma: {mlx5_0: {hcaHandles: 1, hcaObjects: 2}}
      unified: {memory.high: 100, io.max: "8:0 rbps=1"}
    sysctl: {net.core.somaxconn: 128, kernel.domainname: "yes"}
    rlimits: ["nofile,1,unlimited", "RLIMIT_CORE, 0, 0"]
    uidMappings: [{hostID: 1000, containerID: 0, size: 1}]
    gidMappings: [{hostid: 1000, containerid: 0, size: 1}]
    annotations: {a: 1, b: "true"}
    runtime:
      cgroups: [a]
      mounts: [{type: overlay, source: overlay, destination: etc, options: [lowerdir=/etc]}]
      mkdir: [/var/x]
      interfaces: [{name: wg0, add: wireguard, createInRoot: true}, {name: a, add: veth, peer: b}]
      bindNS: {net: /run/netns/web, uts: ""}
      namespace: x
    seccomp: ./web.json
    layout: cpio
    restart: on-failure
    after: [other]
    health: {http: "http://127.0.0.1/", interval: 90s, timeout: 500ms, retries: 2}
  - {name: other, image: short, seccomp: default, health: {tcp: 80}, restart: {policy: never, max-delay: 1m}}
volumes:
  - {name: data, image: registry.example/data:1, readonly: true, format: oci, platforms: [linux/amd64]}
  - {name: blank}
files:
  - {path: /x, directory: true, mode: "1777"}
  - {path: etc/a, contents: "  two\n lines\n\n", mode: 0644, uid: web, gid: 5}
  - {path: etc/b, source: ~/nothing, optional: true}
  - {path: etc/c, symlink: ../d}
  - {path: etc/d, metadata: json}
  - {path: etc/e, contents: ""}
layout: packed
network:
  - {match: boot, dhcp4: false, dhcp6: auto, ra: true, required: true, mtu: 9000}
  - {match: eth*, dhcp6: true, addresses: [10.0.0.5/24, "2001:db8::5/64"], gateway: [10.0.0.1, "fe80::1"]}
  - {match: {name: eth1, mac: "52:54:00:00:00:01", driver: "virtio*"}, dhcp6: false, gateway: 10.0.0.1}
  - {name: web, vlan: {id: 20, on: bond0}, routes: [{to: 10.0.0.0/8, via: 10.1.0.1}, {to: "2001:db8::/32"}]}
  - {name: bond0, bond: {mode: 802.3ad, interfaces: [boot, {driver: ixgbe}], miimon: 50}, dns: [10.0.0.1], search: [lab.example]}
  - {name: br0, bridge: {interfaces: [eth7]}}
debian: {suite: forky, components: [main, non-free-firmware], snapshot: 20261101T000000Z, sources: [{suite: forky-backports, mirror: 'http://mirror.example/debian', components: [main], keyring: /etc/keys.gpg}]}
state: {label: data, format: ext4, min-size: 2G, schema: 3, compatible: 2, required: false, timeout: 20s}
trust: {org: [linuxkit], image: [a]}
"##;

#[test]
fn everything_that_can_be_said_is_the_same_when_it_is_written_again() {
    let spec = parse("all.yml", EVERYTHING).unwrap();
    let yaml = spec.to_yaml().unwrap();
    again(&spec, &yaml);
    again(&spec, &spec.to_json().unwrap());
    // Short names are whole, and what was not said is not there.
    assert!(yaml.contains("/library/short\n"), "{yaml}");
    assert!(!yaml.contains("null\n    deb: null"), "{yaml}");
    assert_eq!(yaml.matches("namespace: ").count(), 1);
    assert_eq!(spec.warnings().len(), 3, "{:?}", spec.warnings());
}

#[test]
fn all_images_are_listed_with_their_places() {
    let spec = load::read("all.yml", EVERYTHING).unwrap();
    let refs: Vec<_> =
        spec.image_refs().iter().map(|(image, place)| format!("{place} {image}")).collect();
    assert_eq!(refs.len(), 7, "{refs:?}");
    assert_eq!(refs[0], "all.yml:2:17 registry.example/kernel:6");
    assert_eq!(refs[1], "all.yml:4:14 registry.example/init:1");
    assert!(refs[6].ends_with("/library/short"), "{refs:?}");
}
