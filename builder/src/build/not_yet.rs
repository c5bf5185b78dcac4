//! What a specification can say and the build cannot do yet: refused with its place rather than left out.

use crate::spec::{ContainerSpec, InitSpec, Place, Placed, Spec, SpecError, UserId};

/// Finds the first thing that the build cannot do.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let no = |place: &Place, what: &str| {
        let problem = format!("{what} cannot be built yet");
        Err(SpecError::Wrong { place: place.clone(), problem })
    };
    if let Some(image) = &spec.kernel.image {
        return no(image.place(), "a kernel from an image");
    }
    let kernel = &spec.kernel;
    let extras = [("binary", &kernel.binary), ("tar", &kernel.tar), ("ucode", &kernel.ucode)];
    if let Some((key, _)) = extras.iter().find(|(_, value)| value.is_some()) {
        return no(&spec.place, &format!("`kernel.{key}`"));
    }
    if let Some(init) = spec.init.iter().find(|init| ***init != InitSpec::Kiln) {
        return no(init.place(), "an `init` from an image");
    }
    if let Some(container) = spec.onshutdown.first() {
        return no(container.name.place(), "`onshutdown`");
    }
    if let Some(volume) = spec.volumes.first() {
        return no(volume.name.place(), "a volume");
    }
    if let Some(layout) = &spec.layout {
        return no(layout.place(), "`layout`");
    }
    if let Some(state) = &spec.state {
        return no(state.place(), "`state`");
    }
    for container in spec.containers() {
        if let Some(key) = beyond(container) {
            let what = format!("`{key}` of container `{}`", container.name.as_str());
            return no(container.name.place(), &what);
        }
    }
    for file in &spec.files {
        if file.metadata.is_some() {
            return no(file.path.place(), "`metadata`");
        }
        if named(file.uid.as_ref()) || named(file.gid.as_ref()) {
            return no(file.path.place(), "an owner by name");
        }
    }
    Ok(())
}

fn named(id: Option<&Placed<UserId>>) -> bool {
    id.is_some_and(|id| matches!(**id, UserId::Container(_)))
}

/// Returns the first key that the build would leave out.
fn beyond(container: &ContainerSpec) -> Option<&'static str> {
    let c = container;
    let given = [
        ("image", c.image.is_some()),
        ("capabilities.add", c.capabilities_add.is_some()),
        ("ambient", c.ambient.is_some()),
        ("binds.add", c.binds_add.is_some()),
        ("devices", c.devices.is_some()),
        ("ipc", c.ipc.is_some()),
        ("userns", c.userns.is_some()),
        ("maskedPaths", c.masked_paths.is_some()),
        ("readonlyPaths", c.readonly_paths.is_some()),
        ("uid", named(c.uid.as_ref())),
        ("gid", named(c.gid.as_ref())),
        ("additionalGids", c.additional_gids.is_some()),
        ("noNewPrivileges", c.no_new_privileges.is_some()),
        ("oomScoreAdj", c.oom_score_adj.is_some()),
        ("rootfsPropagation", c.rootfs_propagation.is_some()),
        ("cgroupsPath", c.cgroups_path.is_some()),
        ("resources", c.resources.is_some()),
        ("rlimits", c.rlimits.is_some()),
        ("uidMappings", c.uid_mappings.is_some()),
        ("gidMappings", c.gid_mappings.is_some()),
        ("annotations", c.annotations.is_some()),
        ("runtime", c.runtime.is_some()),
        ("seccomp", c.seccomp.is_some()),
        ("layout", c.layout.is_some()),
        ("health", c.health.is_some()),
        ("on-failure", c.on_failure.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
}
