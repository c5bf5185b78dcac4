//! What a specification can say and the build cannot do yet: refused with its place rather than left out.

use crate::spec::{ContainerSpec, Place, Spec, SpecError};

/// Finds the first thing that the build cannot do.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let no = |place: &Place, what: &str| {
        let problem = format!("{what} cannot be built yet");
        Err(SpecError::Wrong { place: place.clone(), problem })
    };
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
    let given = [("health", c.health.is_some()), ("on-failure", c.on_failure.is_some())];
    given.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
}
