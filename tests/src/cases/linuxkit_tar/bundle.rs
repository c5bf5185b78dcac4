//! What LinuxKit writes into `config.json` and `runtime.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use super::expect::{list, text};
use super::stand_in::StandIn;

/// What is understood here. Another key would go unnoticed.
const KEYS: [&str; 15] = [
    "name",
    "image",
    "command",
    "env",
    "cwd",
    "binds",
    "binds.add",
    "capabilities",
    "mounts",
    "net",
    "pid",
    "oomScoreAdj",
    "readonly",
    "rootfsPropagation",
    "runtime",
];
/// In the order of their numbers.
const ALL_CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP \
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO \
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
    CHECKPOINT_RESTORE";

/// Returns the numbers that the names of containers stand for.
pub(super) fn ids(spec: &Value) -> HashMap<String, u32> {
    let sections = ["onboot", "onshutdown", "services"];
    let names = sections.into_iter().flat_map(|section| list(&spec[section]));
    names.map(|container| text(&container["name"]).to_owned()).zip(100..).collect()
}

/// Returns the number that a user is.
pub(super) fn id(value: &Value, ids: &HashMap<String, u32>) -> anyhow::Result<u32> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => Ok(number.as_u64().context("a number")?.try_into()?),
        other => match text(other) {
            "" | "root" => Ok(0),
            name => match name.parse() {
                Ok(number) => Ok(number),
                Err(_) => ids.get(name).copied().with_context(|| format!("nobody is {name}")),
            },
        },
    }
}

/// Puts together what the specification, the label and the image say: the specification before the label before the
/// image.
pub(super) fn settle(container: &Value, image: &StandIn) -> Value {
    let mut settled = Map::new();
    let from_image = &image.config;
    settled.insert(
        "command".to_owned(),
        [list(&from_image["Entrypoint"]), list(&from_image["Cmd"])].concat().into(),
    );
    settled.insert("env".to_owned(), from_image["Env"].clone());
    let cwd = text(&from_image["WorkingDir"]);
    settled.insert("cwd".to_owned(), if cwd.is_empty() { "/" } else { cwd }.into());
    for said in image.label.iter().chain([container]) {
        for (key, value) in said.as_object().into_iter().flatten() {
            settled.insert(key.clone(), value.clone());
        }
    }
    if container.get("binds").is_none() && container.get("binds.add").is_some() {
        let label = image.label.as_ref().map_or(&[][..], |label| list(&label["binds"]));
        let both = [label, list(&container["binds.add"])].concat();
        settled.insert("binds".to_owned(), both.into());
    }
    Value::Object(settled)
}

/// Returns `config.json`.
pub(super) fn config(container: &Value, ids: &HashMap<String, u32>) -> anyhow::Result<Value> {
    for key in container.as_object().into_iter().flatten().map(|(key, _)| key) {
        ensure!(KEYS.contains(&key.as_str()), "this case does not know what `{key}` does");
    }
    let readonly = container["readonly"] == true;
    let mut process = json!({
        "user": {"uid": id(&container["uid"], ids)?, "gid": id(&container["gid"], ids)?},
        "cwd": container["cwd"],
        "capabilities": capabilities(container),
    });
    for (key, to) in [("command", "args"), ("env", "env")] {
        if !list(&container[key]).is_empty() {
            process[to] = container[key].clone();
        }
    }
    if container["oomScoreAdj"].is_number() {
        process["oomScoreAdj"] = container["oomScoreAdj"].clone();
    }
    let namespace = |key: &str, kind: &str, usual: &str| match container[key]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or(usual)
    {
        "host" | "root" => None,
        "new" | "none" => Some(json!({"type": kind})),
        path => Some(json!({"type": kind, "path": path})),
    };
    let namespaces = [
        namespace("net", "network", "host"),
        namespace("pid", "pid", "new"),
        Some(json!({"type": "mount"})),
    ];
    let mut linux = json!({
        "resources": {},
        "namespaces": namespaces.into_iter().flatten().collect::<Vec<_>>(),
    });
    if container["rootfsPropagation"].is_string() {
        linux["rootfsPropagation"] = container["rootfsPropagation"].clone();
    }
    let mut root = json!({"path": "rootfs"});
    if readonly {
        root["readonly"] = true.into();
    }
    let mounts: Vec<_> = mounts(container, readonly).into_values().collect();
    Ok(json!({
        "ociVersion": "1.2.1", "process": process, "root": root, "mounts": mounts, "linux": linux,
    }))
}

fn capabilities(container: &Value) -> Value {
    let given = list(&container["capabilities"]);
    let all: Vec<Value> = match given {
        [one] if text(one) == "all" => {
            ALL_CAPABILITIES.split_whitespace().map(|name| format!("CAP_{name}").into()).collect()
        }
        given => given.to_vec(),
    };
    if all.is_empty() {
        return json!({});
    }
    let sorted: BTreeSet<_> = all.iter().map(text).collect();
    json!({"bounding": sorted, "inheritable": sorted, "permitted": sorted, "effective": all})
}

fn mounts(container: &Value, readonly: bool) -> BTreeMap<String, Value> {
    let mut mounts = BTreeMap::new();
    let mut put = |at: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({"destination": at, "type": kind, "source": source});
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mounts.insert(at.to_owned(), mount);
    };
    let ro = if readonly { &["ro"][..] } else { &[] };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    put("/dev", "tmpfs", "tmpfs", &[&dev[..], ro].concat());
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    put("/dev/pts", "devpts", "devpts", &pts);
    put("/proc", "proc", "proc", &["nosuid", "nodev", "noexec", "relatime"]);
    put("/sys", "sysfs", "sysfs", &[&["nosuid", "noexec", "nodev"][..], ro].concat());
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    put("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup);
    for bind in list(&container["binds"]) {
        let mut parts = text(bind).splitn(3, ':');
        let (source, at) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let volume = format!("/containers/volumes/{source}/merged");
        let source = if source.starts_with('/') { source } else { &volume };
        match parts.next() {
            None => put(at, "bind", source, &["rw", "rbind", "rshared"]),
            Some(options) => {
                let options: Vec<_> = options.split(',').chain(["rbind"]).collect();
                put(at, "bind", source, &options);
            }
        }
    }
    for mount in list(&container["mounts"]) {
        let kind = text(&mount["type"]);
        let at = match (mount["destination"].as_str(), kind) {
            (Some(at), _) => at,
            (None, "cgroup") => "/sys/fs/cgroup",
            (None, _) => "",
        };
        let options: Vec<_> = list(&mount["options"]).iter().map(text).collect();
        put(at, kind, mount["source"].as_str().unwrap_or(kind), &options);
    }
    mounts
}

/// Returns `runtime.json`.
pub(super) fn runtime(container: &Value, dir: &str, root: &str) -> Value {
    let mut mounts = match container["readonly"] == true {
        true => vec![json!({
            "destination": format!("/{dir}/rootfs"), "source": format!("/{root}"),
            "options": ["bind"],
        })],
        false => vec![
            json!({"destination": format!("/{dir}/tmp"), "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": format!("/{dir}/tmp"), "options": ["remount", "private"]}),
            json!({
                "destination": format!("/{dir}/rootfs"), "type": "overlay", "source": "overlay",
                "options": [
                    format!("lowerdir=/{root}"), format!("upperdir=/{dir}/tmp/upper"),
                    format!("workdir=/{dir}/tmp/work"),
                ],
            }),
        ],
    };
    let given = &container["runtime"];
    mounts.extend(list(&given["mounts"]).iter().cloned());
    let bind = |kind: &str| text(&given["bindNS"][kind]);
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let bind_ns: BTreeMap<_, _> = kinds.into_iter().map(|kind| (kind, bind(kind))).collect();
    json!({
        "cgroups": list(&given["cgroups"]), "mounts": mounts, "mkdir": list(&given["mkdir"]),
        "interfaces": list(&given["interfaces"]), "bindNS": bind_ns,
        "namespace": text(&given["namespace"]),
    })
}
