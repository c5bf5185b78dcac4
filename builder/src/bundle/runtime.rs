//! `runtime.json`: what is done on the machine before the container is made. LinuxKit's `service` and kiln-init do it.

use serde::Serialize;

use super::RootPlace;
use super::config::to_json;
use crate::spec::{BindNs, Container, InterfaceSpec, MountSpec};

/// Every key is always there, as LinuxKit writes it.
#[derive(Serialize)]
struct Runtime<'a> {
    cgroups: &'a [String],
    mounts: Vec<MountSpec>,
    mkdir: &'a [String],
    interfaces: &'a [InterfaceSpec],
    #[serde(rename = "bindNS")]
    bind_ns: &'a BindNs,
    namespace: &'a str,
}

/// Returns `runtime.json` for a bundle at this absolute path: first the mounts that make its root file system, then
/// what the container asks for.
pub fn runtime_json(container: &Container, bundle: &str, root: &RootPlace) -> Vec<u8> {
    let given = &container.runtime;
    let mut mounts = root_mounts(container, bundle, root);
    mounts.extend(given.mounts.iter().cloned());
    to_json(&Runtime {
        cgroups: &given.cgroups,
        mounts,
        mkdir: &given.mkdir,
        interfaces: &given.interfaces,
        bind_ns: &given.bind_ns,
        namespace: &given.namespace,
    })
}

fn root_mounts(container: &Container, bundle: &str, root: &RootPlace) -> Vec<MountSpec> {
    let [rootfs, lower, tmp] = ["rootfs", "lower", "tmp"].map(|name| format!("{bundle}/{name}"));
    let mount_packed = |file: &str, target: &str| mount(target, "squashfs", file, &["ro", "loop"]);
    if container.readonly {
        return match root {
            RootPlace::Packed(file) => vec![mount_packed(file, &rootfs)],
            _ => vec![bind(&rootfs, &root.path(container, bundle))],
        };
    }
    let (packed, below) = match root {
        RootPlace::Packed(file) => (Some(mount_packed(file, &lower)), lower),
        _ => (None, root.path(container, bundle)),
    };
    let layers = [
        format!("lowerdir={below}"),
        format!("upperdir={tmp}/upper"),
        format!("workdir={tmp}/work"),
    ];
    packed
        .into_iter()
        .chain([
            mount(&tmp, "tmpfs", "tmpfs", &[]),
            MountSpec {
                destination: Some(tmp.clone()),
                options: Some(vec!["remount".to_owned(), "private".to_owned()]),
                ..MountSpec::default()
            },
            mount(&rootfs, "overlay", "overlay", &layers.each_ref().map(String::as_str)),
        ])
        .collect()
}

/// As LinuxKit writes it: its options say what it is, without a type.
fn bind(destination: &str, source: &str) -> MountSpec {
    MountSpec { kind: None, ..mount(destination, "", source, &["bind"]) }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> MountSpec {
    let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
    MountSpec {
        destination: Some(destination.to_owned()),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: Some(options).filter(|options| !options.is_empty()),
    }
}
