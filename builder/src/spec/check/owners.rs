//! Users and groups that are called after containers.

use super::super::{Placed, Spec, SpecError, UserId};
use super::container_names;
use crate::spec::text::short;

/// Checks that every name is that of a container.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let names = container_names(spec);
    let of_containers = spec.containers().flat_map(|container| {
        let further = container.additional_gids.iter().flatten();
        container.uid.iter().chain(&container.gid).chain(further)
    });
    let of_files = spec.files.iter().flat_map(|file| file.uid.iter().chain(&file.gid));
    for id in of_containers.chain(of_files) {
        known(id, |name| names.contains(name))?;
    }
    Ok(())
}

fn known(id: &Placed<UserId>, is_container: impl Fn(&str) -> bool) -> Result<(), SpecError> {
    match &**id {
        UserId::Container(name) if !is_container(name) => {
            let problem =
                format!("`{}` is not a number, and no container has this name", short(name));
            Err(SpecError::wrong(id.place(), problem))
        }
        _ => Ok(()),
    }
}
