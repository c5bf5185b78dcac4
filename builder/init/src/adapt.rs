//! A bundle's configuration, turned into one with which the container library does what the OCI
//! runtime specification says, on this machine.

use std::path::{Path, PathBuf};

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Capabilities, Capability, Hook, LinuxCapabilities, LinuxResources, Mount, Spec,
};

use crate::devices::Devices;
use crate::seccomp::{self, SeccompError};
use crate::workload::{SEARCH_PATH, Workload};

/// A configuration that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdaptError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: OciSpecError },
    #[error("the container has no {0}")]
    Missing(&'static str),
    #[error("understand the seccomp section")]
    Seccomp(#[from] SeccompError),
    #[error("keep the configuration as {}", path.display())]
    Write { path: PathBuf, source: OciSpecError },
}

/// What a container needs beside the library.
#[derive(Debug)]
pub(crate) struct Adapted {
    /// Starts its program.
    pub(crate) workload: Workload,
    /// Limits its devices.
    pub(crate) devices: Option<Devices>,
    /// The path of its control group.
    pub(crate) group: PathBuf,
    /// What this machine cannot do for it.
    pub(crate) ignored: Vec<&'static str>,
}

/// Reads the configuration of a bundle and keeps the adapted one in the directory `into`.
pub(crate) fn adapt(bundle: &Path, id: &str, into: &Path) -> Result<Adapted, AdaptError> {
    let path = bundle.join("config.json");
    let mut spec =
        Spec::load(&path).map_err(|source| AdaptError::Read { path: path.clone(), source })?;
    let root = spec.root_mut().as_mut().ok_or(AdaptError::Missing("root"))?;
    // The adapted configuration is in another directory than its bundle.
    let absolute = bundle.join(root.path());
    root.set_path(absolute.clone());
    let devices = Devices::of(&spec);
    bind_devices(&mut spec, &absolute);
    let ignored = adapt_linux(&mut spec, id);
    let group = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let group = group.ok_or(AdaptError::Missing("linux"))?;
    let workload = privileges(&mut spec)?;
    let path = into.join("config.json");
    spec.save(&path).map_err(|source| AdaptError::Write { path, source })?;
    Ok(Adapted { workload, devices, group, ignored })
}

/// Reads what a further program in the container of a bundle is to be: the container's own process with other arguments.
/// The environment is complete; `term` is the kind of its terminal, if it has one.
pub(crate) fn adapt_program(
    bundle: &Path,
    program: &[String],
    term: Option<String>,
) -> Result<(Spec, Workload), AdaptError> {
    let path = bundle.join("config.json");
    let mut spec = Spec::load(&path).map_err(|source| AdaptError::Read { path, source })?;
    let workload = privileges(&mut spec)?.with_environment();
    let process = spec.process_mut().as_mut().ok_or(AdaptError::Missing("process"))?;
    let mut environment = process.env().clone().unwrap_or_default();
    let has = |environment: &[String], name: &str| {
        environment.iter().any(|entry| entry.strip_prefix(name).is_some_and(|e| e.starts_with('=')))
    };
    if let Some(term) = term {
        environment.retain(|entry| !entry.starts_with("TERM="));
        environment.push(format!("TERM={term}"));
    }
    for (name, value) in [("PATH", SEARCH_PATH), ("HOME", home(process.user().uid()))] {
        if !has(&environment, name) {
            environment.push(format!("{name}={value}"));
        }
    }
    process.set_env(Some(environment)).set_args(Some(program.to_vec()));
    Ok((spec, workload))
}

fn home(user: u32) -> &'static str {
    if user == 0 { "/root" } else { "/" }
}

/// Takes over a bind mount on `/dev`. The library fills what is there with links of its own, which must not
/// become a part of the machine's: it gets an empty file system for that, which is covered before the program starts.
fn bind_devices(spec: &mut Spec, root: &Path) {
    let is_bind = |mount: &Mount| {
        let option = |option: &String| option == "bind" || option == "rbind";
        mount.destination() == Path::new("/dev")
            && (mount.typ().as_deref() == Some("bind")
                || mount.options().iter().flatten().any(option))
    };
    let mounts = spec.mounts_mut().iter_mut().flatten();
    let Some(mount) = mounts.rev().find(|mount| is_bind(mount)) else { return };
    let Some(source) = mount.source().clone() else { return };
    let option = |text: &str| text.to_owned();
    mount
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(["nosuid", "mode=755", "size=64k"].map(option).to_vec()));
    let words = ["/init", "bind", &source.display().to_string()].map(option);
    let target = root.join("dev").display().to_string();
    let mut hook = Hook::default();
    hook.set_path("/init".into()).set_args(Some(words.into_iter().chain([target]).collect()));
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    hooks.create_container_mut().get_or_insert_default().push(hook);
    spec.set_hooks(Some(hooks));
}

fn adapt_linux(spec: &mut Spec, id: &str) -> Vec<&'static str> {
    let Some(linux) = spec.linux_mut() else { return Vec::new() };
    // The library knows only the plain words, and applies them recursively where that matters.
    if let Some(word) = linux.rootfs_propagation().clone() {
        let plain = word.strip_prefix('r').unwrap_or(&word);
        let plain = (!plain.is_empty()).then(|| plain.to_owned());
        linux.set_rootfs_propagation(plain);
    }
    // With a user namespace and a relative path the library would look for systemd.
    let group = match linux.cgroups_path() {
        Some(path) => Path::new("/").join(path),
        None => Path::new("/").join(id),
    };
    linux.set_cgroups_path(Some(group));
    linux.resources_mut().as_mut().map(without_version_1).unwrap_or_default()
}

/// Takes out what control groups of version 2 do not have: the library would refuse the container.
fn without_version_1(resources: &mut LinuxResources) -> Vec<&'static str> {
    let mut ignored = Vec::new();
    if let Some(cpu) = resources.cpu_mut() {
        if is_set(cpu.realtime_runtime()) || is_set(cpu.realtime_period()) {
            ignored.push("cpu.realtimeRuntime and cpu.realtimePeriod");
        }
        cpu.set_realtime_runtime(None);
        cpu.set_realtime_period(None);
    }
    if let Some(io) = resources.block_io_mut()
        && is_set(io.leaf_weight())
    {
        ignored.push("blockIO.leafWeight");
        io.set_leaf_weight(None);
    }
    if let Some(memory) = resources.memory() {
        if is_set(memory.kernel()) || is_set(memory.kernel_tcp()) {
            ignored.push("memory.kernel and memory.kernelTCP");
        }
        if is_set(memory.swappiness()) {
            ignored.push("memory.swappiness");
        }
        if memory.disable_oom_killer() == Some(true) {
            ignored.push("memory.disableOOMKiller");
        }
    }
    if resources.network().is_some() {
        ignored.push("network.classID and network.priorities");
    }
    ignored
}

fn is_set<T: Default + PartialEq>(value: Option<T>) -> bool {
    value.is_some_and(|value| value != T::default())
}

/// Completes the capabilities, takes the seccomp section out and arranges who installs it.
fn privileges(spec: &mut Spec) -> Result<Workload, AdaptError> {
    let section = match spec.linux_mut() {
        Some(linux) => linux.seccomp_mut().take(),
        None => None,
    };
    let filter = section.as_ref().map(seccomp::compile).transpose()?;
    let process = spec.process_mut().as_mut().ok_or(AdaptError::Missing("process"))?;
    // The library leaves a set alone that is not given; the specification means an empty one.
    let wanted = complete(process.capabilities().as_ref());
    let keeps_admin = has(wanted.effective(), Capability::SysAdmin);
    let gives_up = process.no_new_privileges() == Some(true);
    // The kernel takes a filter only from who may do everything or has given up new privileges. So
    // the program's own privileges come into force after the filter.
    let later = filter.is_some() && !keeps_admin && !gives_up;
    let first = if later { with_administration(&wanted) } else { wanted.clone() };
    process.set_capabilities(Some(first));
    Ok(Workload::new(filter, later.then_some(wanted)))
}

fn complete(given: Option<&LinuxCapabilities>) -> LinuxCapabilities {
    let set = |set: Option<&Option<Capabilities>>| set.cloned().flatten().unwrap_or_default();
    let mut all = LinuxCapabilities::default();
    all.set_bounding(Some(set(given.map(LinuxCapabilities::bounding))));
    all.set_effective(Some(set(given.map(LinuxCapabilities::effective))));
    all.set_inheritable(Some(set(given.map(LinuxCapabilities::inheritable))));
    all.set_permitted(Some(set(given.map(LinuxCapabilities::permitted))));
    all.set_ambient(Some(set(given.map(LinuxCapabilities::ambient))));
    all
}

/// Adds what it takes to install a filter, and to narrow the bounding set after it.
fn with_administration(wanted: &LinuxCapabilities) -> LinuxCapabilities {
    let more = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend([Capability::SysAdmin, Capability::Setpcap]);
        Some(set)
    };
    let mut all = wanted.clone();
    all.set_bounding(more(wanted.bounding()));
    all.set_effective(more(wanted.effective()));
    all.set_permitted(more(wanted.permitted()));
    all
}

fn has(set: &Option<Capabilities>, capability: Capability) -> bool {
    set.as_ref().is_some_and(|set| set.contains(&capability))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(extra: &str, process: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.2.1","process":{{"user":{{"uid":0,"gid":0}},"args":["/bin/true"],
              "cwd":"/"{process}}},"root":{{"path":"rootfs"}},"linux":{{{extra}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn capabilities_that_are_not_given_are_none() {
        let mut spec = spec("", r#","capabilities":{"bounding":["CAP_CHOWN"]}"#);
        privileges(&mut spec).unwrap();
        let process = spec.process().clone().unwrap();
        let sets = process.capabilities().clone().unwrap();
        assert!(has(sets.bounding(), Capability::Chown));
        for set in [sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()] {
            assert_eq!(set.as_ref().map(Capabilities::len), Some(0));
        }
    }

    #[test]
    fn a_filter_is_installed_before_the_privileges_are_given_up() {
        let seccomp = r#""seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        for (process, later) in [
            ("", true),
            (r#","noNewPrivileges":true"#, false),
            (r#","capabilities":{"effective":["CAP_SYS_ADMIN"]}"#, false),
        ] {
            let mut spec = spec(seccomp, process);
            let workload = privileges(&mut spec).unwrap();
            let sets = spec.process().clone().unwrap().capabilities().clone().unwrap();
            assert_eq!(has(sets.bounding(), Capability::Setpcap), later, "{process}");
            assert_eq!(workload.drops_privileges(), later, "{process}");
            assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
        }
    }

    #[test]
    fn what_the_library_would_refuse_is_taken_out_and_told() {
        let mut spec = spec(
            r#""rootfsPropagation":"rshared","resources":{"cpu":{"realtimeRuntime":5,"shares":3},
               "blockIO":{"leafWeight":10,"weight":20},"memory":{"swappiness":0,"kernel":4096}}"#,
            "",
        );
        let ignored = adapt_linux(&mut spec, "services/a");
        assert_eq!(ignored.len(), 3, "{ignored:?}");
        let linux = spec.linux().clone().unwrap();
        assert_eq!(linux.rootfs_propagation().as_deref(), Some("shared"));
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/services/a")));
        let resources = linux.resources().clone().unwrap();
        assert_eq!(resources.cpu().clone().unwrap().realtime_runtime(), None);
        assert_eq!(resources.cpu().clone().unwrap().shares(), Some(3));
        assert_eq!(resources.block_io().clone().unwrap().leaf_weight(), None);
        assert_eq!(resources.block_io().clone().unwrap().weight(), Some(20));
    }

    #[test]
    fn a_bind_of_the_devices_covers_what_the_library_makes_there() {
        let mut spec = spec("", "");
        let text = r#"[{"destination":"/dev","type":"bind","source":"/dev","options":["rbind"]}]"#;
        spec.set_mounts(Some(serde_json::from_str(text).unwrap()));
        bind_devices(&mut spec, Path::new("/containers/services/a/rootfs"));
        let mount = &spec.mounts().as_ref().unwrap()[0];
        assert_eq!(mount.typ().as_deref(), Some("tmpfs"));
        let hooks = spec.hooks().clone().unwrap();
        let args = hooks.create_container().as_ref().unwrap()[0].args().clone().unwrap();
        assert_eq!(args, ["/init", "bind", "/dev", "/containers/services/a/rootfs/dev"]);
        // The usual one is left alone.
        let text = r#"[{"destination":"/dev","type":"tmpfs","source":"tmpfs"}]"#;
        let mut plain = self::spec("", "");
        plain.set_mounts(Some(serde_json::from_str(text).unwrap()));
        bind_devices(&mut plain, Path::new("/r"));
        assert!(plain.hooks().is_none());
    }

    #[test]
    fn a_further_program_is_as_the_first_but_for_what_it_runs() {
        let folder = std::env::temp_dir().join(format!("kiln-adapt-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = r#","env":["A=1","TERM=dumb"],"capabilities":{"effective":["CAP_CHOWN"]}"#;
        let spec = spec("", process);
        spec.save(folder.join("config.json")).unwrap();
        let program = ["id".to_owned()];
        let (spec, _) = adapt_program(&folder, &program, Some("xterm".to_owned())).unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.args().as_deref(), Some(&program[..]));
        let path = format!("PATH={SEARCH_PATH}");
        let environment = ["A=1", "TERM=xterm", path.as_str(), "HOME=/root"];
        assert_eq!(process.env().clone().unwrap(), environment);
        let sets = process.capabilities().clone().unwrap();
        assert!(has(sets.effective(), Capability::Chown) && sets.bounding().is_some());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_relative_group_is_below_the_top() {
        let mut spec = spec(r#""cgroupsPath":"machine/a""#, "");
        adapt_linux(&mut spec, "services-a");
        let linux = spec.linux().clone().unwrap();
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/machine/a")));
    }
}
