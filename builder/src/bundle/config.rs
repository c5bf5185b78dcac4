//! `config.json` of the OCI runtime specification.

use std::collections::BTreeMap;

use serde::Serialize;

use super::devices::{Device, Resources};
use super::namespaces::{self, NamespaceEntry};
use super::privileges::{self, Capabilities, User};
use super::{BundleError, Surroundings, devices, mounts};
use crate::spec::{Container, IdMapping, Mount};

/// The version of the specification whose fields are written, as LinuxKit names it.
const OCI_VERSION: &str = "1.2.1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    oci_version: &'static str,
    process: Process<'a>,
    root: Root,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    linux: Linux<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process<'a> {
    user: User,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    args: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    env: &'a [String],
    cwd: &'a str,
    capabilities: Capabilities,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rlimits: Vec<Rlimit<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_new_privileges: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_score_adj: Option<i32>,
}

#[derive(Serialize)]
struct Rlimit<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    readonly: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    uid_mappings: &'a [IdMapping],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    gid_mappings: &'a [IdMapping],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sysctl: BTreeMap<&'a str, &'a str>,
    resources: Resources<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroups_path: Option<&'a str>,
    namespaces: Vec<NamespaceEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    devices: Vec<Device<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs_propagation: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    masked_paths: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    readonly_paths: &'a [String],
}

/// Returns `config.json`.
///
/// # Errors
///
/// Fails when the container refers to a user or a volume that the image does not have, or wants to write to a volume
/// that is read-only.
pub fn config_json(
    container: &Container,
    around: Surroundings<'_>,
) -> Result<Vec<u8>, BundleError> {
    let profile = around.seccomp;
    let config = Config {
        oci_version: OCI_VERSION,
        process: Process {
            user: privileges::user(container, around.ids)?,
            args: &container.command,
            env: &container.env,
            cwd: &container.cwd,
            capabilities: privileges::capabilities(container),
            rlimits: container
                .rlimits
                .iter()
                .map(|limit| Rlimit { kind: &limit.kind, hard: limit.hard, soft: limit.soft })
                .collect(),
            no_new_privileges: container.no_new_privileges,
            oom_score_adj: container.oom_score_adj,
        },
        root: Root { path: "rootfs", readonly: container.readonly },
        hostname: container.hostname.as_deref(),
        mounts: mounts::of(container, around.volumes)?,
        annotations: texts(&container.annotations),
        linux: Linux {
            uid_mappings: &container.uid_mappings,
            gid_mappings: &container.gid_mappings,
            sysctl: texts(&container.sysctl),
            resources: devices::resources(container),
            cgroups_path: container.cgroups_path.as_deref(),
            namespaces: namespaces::of(container),
            devices: devices::devices(container),
            seccomp: profile.map(|profile| profile.section(&container.capabilities, around.arch)),
            rootfs_propagation: container.rootfs_propagation.as_deref(),
            masked_paths: &container.masked_paths,
            readonly_paths: &container.readonly_paths,
        },
    };
    Ok(to_json(&config))
}

fn texts(map: &BTreeMap<String, crate::spec::Scalar>) -> BTreeMap<&str, &str> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of text and numbers: there is nothing that JSON cannot say.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}
