//! Who a container runs as, and with which capabilities.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{BundleError, Ids};
use crate::spec::Container;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    additional_gids: Vec<u32>,
}

pub(super) fn user(container: &Container, ids: &Ids) -> Result<User, BundleError> {
    let number = |user| ids.of(container.name.as_str(), user);
    let additional = container.additional_gids.iter().map(number).collect::<Result<_, _>>()?;
    Ok(User {
        uid: number(&container.uid)?,
        gid: number(&container.gid)?,
        additional_gids: additional,
    })
}

/// The five sets of `capabilities(7)`.
#[derive(Serialize)]
pub(super) struct Capabilities {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bounding: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    effective: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inheritable: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permitted: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ambient: Vec<String>,
}

/// An ambient capability must be permitted and inheritable too, or the kernel does not take it.
pub(super) fn capabilities(container: &Container) -> Capabilities {
    let all: BTreeSet<_> = container.capabilities.iter().chain(&container.ambient).collect();
    let all: Vec<String> = all.into_iter().cloned().collect();
    Capabilities {
        bounding: all.clone(),
        effective: container.capabilities.clone(),
        inheritable: all.clone(),
        permitted: all,
        ambient: container.ambient.clone(),
    }
}
