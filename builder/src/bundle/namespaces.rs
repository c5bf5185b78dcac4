//! Which namespaces of its own a container has.

use serde::Serialize;

use crate::spec::{Container, Namespace};

#[derive(Serialize)]
pub(super) struct NamespaceEntry<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

/// In the order in which LinuxKit writes them. Mounts are always its own.
pub(super) fn of(container: &Container) -> Vec<NamespaceEntry<'_>> {
    [
        ("network", &container.net),
        ("ipc", &container.ipc),
        ("uts", &container.uts),
        ("pid", &container.pid),
        ("user", &container.userns),
        ("mount", &Namespace::New),
    ]
    .into_iter()
    .filter_map(|(kind, namespace)| match namespace {
        Namespace::Host | Namespace::Unsaid => None,
        Namespace::New => Some(NamespaceEntry { kind, path: None }),
        Namespace::Path(path) => Some(NamespaceEntry { kind, path: Some(path) }),
    })
    .collect()
}
