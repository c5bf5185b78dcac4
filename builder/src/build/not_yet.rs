//! What a specification can say and the build cannot do yet: refused with its place rather than left out.

use crate::spec::{Spec, SpecError};

/// Finds the first thing that the build cannot do.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    match &spec.state {
        None => Ok(()),
        Some(state) => {
            let problem = "`state` cannot be built yet".to_owned();
            Err(SpecError::Wrong { place: state.place().clone(), problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_yet_is_refused_by_its_place_rather_than_left_out() {
        let checked = |yaml: &str| check(&crate::spec::parse("web.yml", yaml).unwrap());
        assert!(checked("volumes:\n  - {name: data, image: a/b:1, format: oci}\n").is_ok());
        let refused = checked("state: {label: data}\n").unwrap_err().to_string();
        assert_eq!(refused, "web.yml:1:8: `state` cannot be built yet");
    }
}
