//! Writes a specification down again, merged and with whole image names.

use super::{Spec, SpecError};

impl Spec {
    /// Returns it as YAML, which reads as the same specification. Names of images are in their whole form.
    ///
    /// # Errors
    ///
    /// Fails when it holds something that YAML cannot say.
    pub fn to_yaml(&self) -> Result<String, SpecError> {
        serde_saphyr::to_string(self)
            .map_err(|error| SpecError::Write { format: "YAML", problem: error.to_string() })
    }

    /// Returns it as JSON with line breaks, which reads as the same specification.
    ///
    /// # Errors
    ///
    /// Fails when it holds something that JSON cannot say.
    pub fn to_json(&self) -> Result<String, SpecError> {
        serde_json::to_string_pretty(self)
            .map_err(|error| SpecError::Write { format: "JSON", problem: error.to_string() })
    }
}
