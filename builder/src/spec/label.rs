//! What an image says of how it wants to run.

use std::sync::Arc;

use super::SpecError;
use super::check;
use super::container::ContainerSpec;
use super::error::from_parser;
use super::load::options;
use super::place::{Place, within};
use crate::oci::Reference;

/// The label of an image with a container's settings as JSON, as LinuxKit's packages have it.
pub const LABEL: &str = "org.mobyproject.config";

/// The largest label that is read. Real ones have less than a kilobyte.
const MAX_LABEL: usize = 256 << 10;

/// Reads the text of the label [`LABEL`] of an image.
///
/// # Errors
///
/// Fails when it is no JSON object, or has keys or values that a container cannot have.
pub fn label(image: &Reference, json: &str) -> Result<ContainerSpec, SpecError> {
    let file: Arc<str> = format!("label {LABEL} of {image}").into();
    let wrong = |problem: String| SpecError::Wrong { place: Place::new(&file, None), problem };
    if json.len() > MAX_LABEL {
        return Err(wrong(format!("it has {} bytes; {MAX_LABEL} are the most", json.len())));
    }
    let mut value: serde_json::Value =
        serde_json::from_str(json).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
    let Some(object) = value.as_object_mut() else {
        return Err(wrong("it is not a JSON object".to_owned()));
    };
    for key in ["name", "image", "deb", "keep", "after", "layout"] {
        if object.contains_key(key) {
            return Err(wrong(format!("`{key}` cannot be in a label")));
        }
    }
    object.insert("name".to_owned(), "label".into());
    // As YAML, which JSON is a part of: the same reader then takes the same values.
    let text = value.to_string();
    let parsed =
        within(&file, || serde_saphyr::from_str_with_options::<ContainerSpec>(&text, options()));
    let label = parsed.map_err(|error| match from_parser(&file, &error) {
        SpecError::Wrong { problem, .. } => wrong(problem),
        other => other,
    })?;
    check::settings(&label).map_err(|(_, problem)| wrong(problem))?;
    Ok(label)
}
