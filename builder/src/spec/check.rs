//! Finds what is well-formed but makes no sense.

use std::collections::BTreeMap;

use kiln_types::Arch;

use super::place::Place;
use super::{ContainerSpec, FileSpec, Spec, SpecError};

/// Services by their names.
type Services<'a> = BTreeMap<&'a str, &'a ContainerSpec>;

impl Spec {
    /// Returns the kernel's package, once everything is there that a machine needs to boot.
    ///
    /// # Errors
    ///
    /// Fails when there is no kernel for the architecture or nothing to run first.
    pub fn kernel_package(&self, arch: Arch) -> Result<&str, SpecError> {
        if self.init.is_empty() {
            return Err(wrong(&self.place, "`init` is missing; add `init: [kiln]`"));
        }
        if let Some(image) = &self.kernel.image {
            return Err(wrong(image.place(), "this kernel is an image, not a Debian package"));
        }
        let Some(deb) = &self.kernel.deb else {
            return Err(wrong(&self.place, "there is no kernel; add `kernel: {deb: …}`"));
        };
        deb.get(arch).ok_or_else(|| {
            wrong(deb.place(), format!("there is no kernel package for {arch} here"))
        })
    }
}

pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let mut services = Services::new();
    for service in &spec.services {
        if let Some(first) = services.insert(service.name.as_str(), service) {
            return Err(wrong(
                service.name.place(),
                format!(
                    "service `{}` is there twice, first at {}; give one of them another name",
                    service.name.as_str(),
                    first.name.place()
                ),
            ));
        }
    }
    for service in &spec.services {
        check_order(service, &services)?;
    }
    for container in spec.onboot.iter().chain(&spec.onshutdown) {
        if let Some(other) = container.after.first() {
            let problem = "`after` is for services; these run in the order they are written in";
            return Err(wrong(other.place(), problem));
        }
    }
    for container in spec.containers() {
        check_container(container).map_err(|problem| wrong(container.name.place(), problem))?;
        settings(container).map_err(|(place, problem)| wrong(place, problem))?;
    }
    for file in &spec.files {
        check_file(file).map_err(|problem| wrong(file.path.place(), problem))?;
    }
    Ok(())
}

fn wrong(place: &Place, problem: impl Into<String>) -> SpecError {
    SpecError::Wrong { place: place.clone(), problem: problem.into() }
}

/// Follows `after` from one service: all must exist, and none may lead back to it.
fn check_order(service: &ContainerSpec, services: &Services<'_>) -> Result<(), SpecError> {
    let name = service.name.as_str();
    for first in &service.after {
        if !services.contains_key(first.as_str()) {
            let problem = format!(
                "service `{name}` starts after `{}`, which is not a service",
                first.as_str()
            );
            return Err(wrong(first.place(), problem));
        }
        // Where each service that must be there before was met, so that the way back can be told.
        let mut met: BTreeMap<&str, Option<&str>> = BTreeMap::from([(first.as_str(), None)]);
        let mut next = vec![first.as_str()];
        while let Some(at) = next.pop() {
            if at == name {
                let way: Vec<_> =
                    std::iter::successors(Some(at), |at| met.get(at).copied().flatten())
                        .map(|name| format!("`{name}`"))
                        .collect();
                let way = way.into_iter().rev().collect::<Vec<_>>().join(" after ");
                let problem = format!("services wait for each other: `{name}` after {way}");
                return Err(wrong(first.place(), problem));
            }
            for other in services.get(at).into_iter().flat_map(|service| &service.after) {
                if !met.contains_key(other.as_str()) {
                    met.insert(other.as_str(), Some(at));
                    next.push(other.as_str());
                }
            }
        }
    }
    Ok(())
}

fn check_container(container: &ContainerSpec) -> Result<(), String> {
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

/// Checks what a specification and a label of an image can say alike.
pub(super) fn settings(container: &ContainerSpec) -> Result<(), (&Place, String)> {
    for mount in container.mounts.iter().flatten() {
        let settled = mount.settle().map_err(|problem| (mount.place(), problem))?;
        if !settled.destination.starts_with('/') {
            let problem = format!("destination `{}` is not an absolute path", settled.destination);
            return Err((mount.place(), problem));
        }
    }
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
    Ok(())
}

fn check_file(file: &FileSpec) -> Result<(), String> {
    let given = [
        file.contents.is_some(),
        file.source.is_some(),
        file.metadata.is_some(),
        file.symlink.is_some(),
        file.directory,
    ];
    match given.iter().filter(|given| **given).count() {
        1 if file.optional && file.source.is_none() => {
            Err(format!("file `/{}` is optional, which only a `source` can be", *file.path))
        }
        1 => Ok(()),
        _ => Err(format!(
            "file `/{}` needs exactly one of `contents`, `source`, `metadata`, `symlink` and `directory: true`",
            *file.path
        )),
    }
}
