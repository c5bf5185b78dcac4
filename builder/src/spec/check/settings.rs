//! What a specification and the label of an image can say alike.

use super::super::error::nearest;
use super::super::text::short;
use super::super::{ContainerSpec, Namespace, Place, RuntimeSpec};

type Problem<'a> = (&'a Place, String);

/// Options that the runtime knows for binds; everything else would silently do nothing.
const BIND_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "unbindable",
];
const PROPAGATION: &[&str] = &[
    "",
    "private",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "shared",
    "slave",
    "unbindable",
];

/// Checks one container by itself.
pub(in super::super) fn settings(container: &ContainerSpec) -> Result<(), Problem<'_>> {
    let whole = container.name.place();
    mounts(container)?;
    for device in container.devices.iter().flatten() {
        if let Some(problem) = device.problem() {
            return Err((device.place(), problem));
        }
    }
    if let Some(health) = &container.health
        && let Some(problem) = health.problem()
    {
        return Err((health.place(), problem));
    }
    if let Some(restart) = &container.restart
        && let Some(problem) = restart.problem()
    {
        return Err((restart.place(), problem));
    }
    if let Some(cwd) = container.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        absolute("cwd", cwd).map_err(|problem| (cwd.place(), problem))?;
    }
    let paths =
        [("maskedPaths", &container.masked_paths), ("readonlyPaths", &container.readonly_paths)];
    for (key, paths) in paths {
        for path in paths.iter().flatten() {
            absolute(key, path).map_err(|problem| (path.place(), problem))?;
        }
    }
    for entry in container.env.iter().flatten() {
        if entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0') {
            let problem = format!("`{}` of `env` is not `NAME=value`", short(entry));
            return Err((entry.place(), problem));
        }
    }
    if let Some(hostname) = container.hostname.as_ref().filter(|name| !name.is_empty()) {
        // HOST_NAME_MAX of the kernel.
        if hostname.len() > 64
            || hostname.contains(|c: char| c.is_whitespace() || c == '\0' || c == '/')
        {
            let problem = format!("`{}` is not a host name of at most 64 letters", short(hostname));
            return Err((hostname.place(), problem));
        }
        if container.uts == Some(Namespace::Host) {
            let problem =
                "`hostname` with `uts: host` would rename the machine; leave one of them out";
            return Err((hostname.place(), problem.to_owned()));
        }
    }
    if let Some(score) =
        container.oom_score_adj.as_ref().filter(|s| !(-1000..=1000).contains(&***s))
    {
        let problem = format!("`oomScoreAdj` is {}; it goes from -1000 to 1000", **score);
        return Err((score.place(), problem));
    }
    if let Some(word) = container.rootfs_propagation.as_ref()
        && !PROPAGATION.contains(&word.as_str())
    {
        let problem = format!("`{}` is not one of {}", short(word), PROPAGATION[1..].join(", "));
        return Err((word.place(), problem));
    }
    if let Some(path) = container.cgroups_path.as_ref().filter(|path| goes_up(path)) {
        return Err((path.place(), format!("`cgroupsPath` `{}` has `..` in it", short(path))));
    }
    let mappings = [&container.uid_mappings, &container.gid_mappings];
    if mappings.iter().filter_map(|m| m.as_ref()).flatten().any(|mapping| mapping.size == 0) {
        return Err((whole, "a mapping of users or groups has the size 0".to_owned()));
    }
    if let Some(unified) = container.resources.as_ref().and_then(|r| r.unified.as_ref()) {
        // They are files of one directory, each with the controller before a dot.
        let good =
            |key: &str| key.contains('.') && !key.starts_with('.') && !key.contains(['/', '\0']);
        if let Some(key) = unified.keys().find(|key| !good(key)) {
            let problem =
                format!("`{}` of `unified` is not a file such as `memory.high`", short(key));
            return Err((whole, problem));
        }
    }
    match container.runtime.as_ref().map(|runtime| (runtime.place(), runtime_problem(runtime))) {
        Some((place, Some(problem))) => Err((place, problem)),
        _ => Ok(()),
    }
}

fn mounts(container: &ContainerSpec) -> Result<(), Problem<'_>> {
    for namespace in
        [&container.net, &container.pid, &container.ipc, &container.uts, &container.userns]
    {
        if let Some(Namespace::Path(path)) = namespace
            && goes_up(path)
        {
            let problem = format!("the path `{}` of a namespace has `..` in it", short(path));
            return Err((container.name.place(), problem));
        }
    }
    let binds = container.binds.iter().flatten().chain(container.binds_add.iter().flatten());
    for bind in binds {
        for path in [&bind.source, &bind.destination] {
            if goes_up(path) {
                return Err((bind.place(), format!("`{}` of a bind has `..` in it", short(path))));
            }
        }
        let options = bind.options.iter().flatten();
        if let Some(option) =
            options.clone().find(|option| !BIND_OPTIONS.contains(&option.as_str()))
        {
            let meant = nearest(option, BIND_OPTIONS).map(|o| format!("; did you mean `{o}`?"));
            let meant = meant.unwrap_or_default();
            let problem = format!("`{}` is not an option of a bind{meant}", short(option));
            return Err((bind.place(), problem));
        }
        contradiction(options).map_err(|problem| (bind.place(), problem))?;
    }
    for tmpfs in container.tmpfs.iter().flatten() {
        absolute("tmpfs", &tmpfs.destination).map_err(|problem| (tmpfs.place(), problem))?;
        contradiction(tmpfs.options.iter()).map_err(|problem| (tmpfs.place(), problem))?;
    }
    for mount in container.mounts.iter().flatten() {
        let settled = mount.settle().map_err(|problem| (mount.place(), problem))?;
        absolute("destination", &settled.destination).map_err(|p| (mount.place(), p))?;
        contradiction(settled.options.iter()).map_err(|problem| (mount.place(), problem))?;
    }
    Ok(())
}

/// Finds options that say the opposite of each other.
fn contradiction<'a>(options: impl Iterator<Item = &'a String> + Clone) -> Result<(), String> {
    let has = |word: &str| options.clone().any(|option| option == word);
    for (a, b) in [("ro", "rw"), ("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec")] {
        if has(a) && has(b) {
            return Err(format!("the options `{a}` and `{b}` contradict each other"));
        }
    }
    match options.clone().find(|option| option.is_empty() || option.contains('\0')) {
        Some(_) => Err("an option of a mount is empty".to_owned()),
        None => Ok(()),
    }
}

fn goes_up(path: &str) -> bool {
    path.split('/').any(|part| part == "..") || path.contains('\0')
}

fn absolute(key: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("`{}` of `{key}` is not an absolute path", short(path)));
    }
    if goes_up(path) {
        return Err(format!("`{}` of `{key}` has `..` in it", short(path)));
    }
    Ok(())
}

fn runtime_problem(runtime: &RuntimeSpec) -> Option<String> {
    for mount in runtime.mounts.iter().flatten() {
        match mount.destination.as_deref() {
            None | Some("") => return Some("a mount of `runtime` has no `destination`".to_owned()),
            Some(path) if goes_up(path) => {
                return Some(format!("`{}` of `runtime` has `..` in it", short(path)));
            }
            Some(_) => {}
        }
    }
    let (cgroups, mkdir) = (runtime.cgroups.iter().flatten(), runtime.mkdir.iter().flatten());
    if let Some(path) = cgroups.chain(mkdir).find(|path| path.is_empty() || goes_up(path)) {
        return Some(format!("`{}` of `runtime` is empty or has `..` in it", short(path)));
    }
    for interface in runtime.interfaces.iter().flatten() {
        // IFNAMSIZ of the kernel is 16, with the NUL at the end.
        let bad = |name: &str| {
            name.len() > 15
                || name == "."
                || name == ".."
                || name.contains(|c: char| c.is_whitespace() || c == '/')
        };
        let name = &interface.name;
        if name.is_empty() || bad(name) || bad(&interface.peer) {
            let name = short(if bad(&interface.peer) { &interface.peer } else { name });
            return Some(format!("`{name}` cannot be the name of a network interface"));
        }
        if !interface.peer.is_empty() && !matches!(interface.add.as_str(), "" | "veth") {
            return Some(format!("interface `{name}` has a `peer`, which only `add: veth` has"));
        }
    }
    let ns = runtime.bind_ns.as_ref()?;
    let paths = [&ns.cgroup, &ns.ipc, &ns.mnt, &ns.net, &ns.pid, &ns.user, &ns.uts];
    let given = paths.into_iter().flatten().filter(|path| !path.is_empty());
    given.filter_map(|path| absolute("bindNS", path).err()).next()
}
