//! What a specification can say and the build cannot do yet: refused with its place rather than left out.

use crate::spec::{Place, Spec, SpecError};

/// Finds the first thing that the build cannot do.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let no = |place: &Place, what: &str| {
        let problem = format!("{what} cannot be built yet");
        Err(SpecError::Wrong { place: place.clone(), problem })
    };
    if let Some(state) = &spec.state {
        return no(state.place(), "`state`");
    }
    for file in &spec.files {
        if file.metadata.is_some() {
            return no(file.path.place(), "`metadata`");
        }
    }
    Ok(())
}
