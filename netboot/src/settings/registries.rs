//! `[[registry]]`: what builds need to know of registries.

use std::path::Path;

use kiln_builder::oci::RegistrySettings;
use serde::Deserialize;
use toml::Spanned;

use super::{Problems, SettingsError};

/// Finds what is wrong with registries.
pub(super) fn check(registries: &[Spanned<RegistrySettings>], problems: &mut Problems) {
    for registry in registries {
        if let Some(problem) = registry.get_ref().problem() {
            problems.push((Some(registry.span()), problem));
        }
    }
}

/// Reads the registries of a file and leaves the rest of it to the server.
///
/// # Errors
///
/// Fails when the file cannot be read or is no TOML, and when a registry is wrong.
pub fn registries(path: &Path) -> Result<Vec<RegistrySettings>, SettingsError> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        registry: Vec<RegistrySettings>,
    }
    let read = |source| SettingsError::Read { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(read)?;
    let wrong = |problem: String| read(std::io::Error::other(problem));
    let part: Part = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match part.registry.iter().find_map(RegistrySettings::problem) {
        Some(problem) => Err(wrong(problem)),
        None => Ok(part.registry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_beside_the_rest_and_a_wrong_one_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "[server]\nother = 1\n[[registry]]\nhost = \"registry.example\"\nplain-http = true\n";
        std::fs::write(file.path(), text).unwrap();
        let read = registries(file.path()).unwrap();
        assert!(read[0].host == "registry.example" && read[0].plain_http);
        std::fs::write(file.path(), "[[registry]]\nhost = \"a/b\"\n").unwrap();
        assert!(registries(file.path()).is_err());
    }
}
