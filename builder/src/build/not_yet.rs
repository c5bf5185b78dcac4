//! What a specification can say and the build cannot do yet: refused with its place rather than left out.

use crate::spec::{ContainerSpec, InitSpec, Place, Spec, SpecError};

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
    if let Some(image) = spec.volumes.iter().find_map(|volume| volume.image.as_ref()) {
        return no(image.place(), "a volume from an image");
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
    }
    Ok(())
}

/// Returns the first key that the build would leave out.
fn beyond(container: &ContainerSpec) -> Option<&'static str> {
    let c = container;
    let given = [
        ("image", c.image.is_some()),
        ("health", c.health.is_some()),
        ("on-failure", c.on_failure.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
}
