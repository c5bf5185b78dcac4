//! What a specification can say and the build cannot do yet: refused with its place rather than left out.

use crate::spec::{Place, Spec, SpecError, VolumeFormat};

/// Finds the first thing that the build cannot do.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let no = |place: &Place, what: &str| {
        let problem = format!("{what} cannot be built yet");
        Err(SpecError::Wrong { place: place.clone(), problem })
    };
    if let Some(state) = &spec.state {
        return no(state.place(), "`state`");
    }
    for volume in &spec.volumes {
        if let Some(format) = volume.format.as_ref().filter(|it| ***it == VolumeFormat::Oci) {
            return no(
                format.place(),
                &format!("`format: oci` of volume `{}`", volume.name.as_str()),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_is_to_be_a_layout_is_refused_rather_than_unpacked() {
        let volume = |rest: &str| {
            let yaml = format!("volumes:\n  - name: data\n    image: a/b:1\n{rest}");
            let found = check(&crate::spec::parse("web.yml", &yaml).unwrap());
            found.map_err(|error| error.to_string())
        };
        assert_eq!(volume("    format: filesystem\n"), Ok(()));
        let refused = "web.yml:4:13: `format: oci` of volume `data` cannot be built yet";
        assert_eq!(volume("    format: oci\n"), Err(refused.to_owned()));
    }
}
