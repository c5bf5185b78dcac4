//! Containers among each other: where they are, and which volumes they use.

use std::collections::BTreeMap;

use super::super::mount::Mount;
use super::super::text::short;
use super::super::{Container, ContainerSpec, Place, Spec, SpecError, UserId, VolumeSpec};
use super::{container_names, settings};
use crate::tree::TreePath;

type Volumes<'a> = BTreeMap<&'a str, &'a VolumeSpec>;

pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let volumes = volumes(spec);
    let in_order = spec.onboot.iter().chain(&spec.onshutdown);
    for container in in_order {
        let services_only = [
            (container.after.first().map(|after| after.place()), "after"),
            (container.restart.as_ref().map(|restart| restart.place()), "restart"),
            (container.health.as_ref().map(|health| health.place()), "health"),
        ];
        for (place, key) in services_only {
            if let Some(place) = place {
                let problem =
                    format!("`{key}` is for services; these run in the order they are written in");
                return Err(SpecError::wrong(place, problem));
            }
        }
    }
    for container in spec.onshutdown.iter().chain(&spec.services) {
        if let Some(on_failure) = &container.on_failure {
            let problem = "`on-failure` is for `onboot`; services have `restart`";
            return Err(SpecError::wrong(on_failure.place(), problem));
        }
    }
    for container in spec.containers() {
        let whole = |problem: String| SpecError::wrong(container.name.place(), problem);
        source(container).map_err(whole)?;
        for name in &container.keep {
            kept(container, name).map_err(|problem| SpecError::wrong(name.place(), problem))?;
        }
        settings(container).map_err(|(place, problem)| SpecError::wrong(place, problem))?;
        let binds = container.binds.iter().flatten().chain(container.binds_add.iter().flatten());
        for bind in binds {
            volume_problem(&bind.settle(), &volumes)
                .map_err(|problem| SpecError::wrong(bind.place(), problem))?;
        }
        for mount in container.mounts.iter().flatten() {
            mount
                .settle()
                .and_then(|settled| volume_problem(&settled, &volumes))
                .map_err(|problem| SpecError::wrong(mount.place(), problem))?;
        }
    }
    Ok(())
}

impl Spec {
    /// Checks a settled container for what the label of its image can bring in: volumes and users that are not there,
    /// and nothing to run. The place is that of the image's name.
    ///
    /// # Errors
    ///
    /// Fails when the container cannot run, and says why.
    pub fn check_settled(&self, container: &Container, place: &Place) -> Result<(), SpecError> {
        let name = container.name.as_str();
        let wrong = |problem: String| {
            SpecError::wrong(
                place,
                format!("container `{name}` with the label of its image: {problem}"),
            )
        };
        if container.command.is_empty() {
            let problem = format!(
                "container `{name}` has no `command`, and its image names no program either"
            );
            return Err(SpecError::wrong(place, problem));
        }
        let volumes = volumes(self);
        for mount in &container.mounts {
            volume_problem(mount, &volumes).map_err(wrong)?;
        }
        let names = container_names(self);
        let ids = [&container.uid, &container.gid].into_iter().chain(&container.additional_gids);
        for id in ids {
            match id {
                UserId::Container(id) if !names.contains(id.as_str()) => {
                    let id = short(id);
                    return Err(wrong(format!(
                        "`{id}` is not a number, and no container has this name"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn volumes(spec: &Spec) -> Volumes<'_> {
    spec.volumes.iter().map(|volume| (volume.name.as_str(), volume)).collect()
}

fn source(container: &ContainerSpec) -> Result<(), String> {
    let name = container.name.as_str();
    match (&container.image, container.deb.is_empty()) {
        (None, true) => {
            Err(format!("container `{name}` has no `image` or `deb`, so there is nothing to run"))
        }
        (Some(_), false) => {
            Err(format!("container `{name}` has both `image` and `deb`; one is enough"))
        }
        (None, false) if container.command.as_ref().is_none_or(Vec::is_empty) => {
            Err(format!("container `{name}` has no `command`"))
        }
        _ => Ok(()),
    }
}

/// Checks what is kept of the packages of a container.
fn kept(container: &ContainerSpec, name: &str) -> Result<(), String> {
    if container.deb.is_empty() {
        return Err(
            "`keep` is for containers made of Debian packages; this one has no `deb`".to_owned()
        );
    }
    let is_path = name.starts_with('/') && TreePath::new(name).is_ok();
    let is_name = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if is_path || is_name {
        return Ok(());
    }
    Err(format!(
        "`{}` is neither the name of a program nor a path that begins with `/`",
        short(name)
    ))
}

/// Checks the volume that a mount names, if it does.
fn volume_problem(mount: &Mount, volumes: &Volumes<'_>) -> Result<(), String> {
    let Some(name) = mount.volume() else {
        return Ok(());
    };
    let Some(volume) = volumes.get(name) else {
        return Err(format!(
            "`{}` is not a volume; add it to `volumes`, or write a path that begins with `/`",
            short(name)
        ));
    };
    if volume.readonly && mount.is_writable() {
        return Err(format!("volume `{name}` is read-only; add `ro` to the options"));
    }
    Ok(())
}
