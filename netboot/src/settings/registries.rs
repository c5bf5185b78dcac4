//! `[[registry]]`: what builds need to know of registries.

use std::path::Path;

use kiln_builder::oci::RegistrySettings;
use serde::Deserialize;
use toml::Spanned;

use super::{Problem, Problems, SettingsError};

/// Finds what is wrong with registries.
pub(super) fn check(registries: &[Spanned<RegistrySettings>], problems: &mut Problems) {
    for (number, registry) in registries.iter().enumerate() {
        let host = &registry.get_ref().host;
        if let Some(problem) = registry.get_ref().problem() {
            problems.push((Some(registry.span()), problem));
        } else if registries.iter().take(number).any(|other| other.get_ref().host == *host) {
            problems.push((Some(registry.span()), format!("registry `{host}` is there twice")));
        }
    }
}

/// Reads the registries of a file and leaves the rest of it to the server.
///
/// # Errors
///
/// Fails when the file cannot be read, or names every place of it that is no TOML or wrong about a registry.
pub fn registries(path: &Path) -> Result<Vec<RegistrySettings>, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<RegistrySettings>, SettingsError> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        registry: Vec<Spanned<RegistrySettings>>,
    }
    let mut problems = Vec::new();
    let mut registries = Vec::new();
    match toml::from_str::<Part>(text) {
        Ok(part) => {
            check(&part.registry, &mut problems);
            registries = part.registry.into_iter().map(Spanned::into_inner).collect();
        }
        Err(error) => problems.push((error.span(), error.message().to_owned())),
    }
    if problems.is_empty() {
        return Ok(registries);
    }
    let problem = |(span, message)| Problem::new(path, text, span, message);
    Err(SettingsError::Invalid { problems: problems.into_iter().map(problem).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Result<Vec<RegistrySettings>, String> {
        parse(Path::new("kiln.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn registries_are_read_beside_the_rest() {
        let text = "[server]\nother = 1\n\
                    [[registry]]\nhost = \"registry.example\"\nmirrors = [\"mirror.example/copies\"]\n\
                    ca = [\"/etc/kiln/ca.pem\"]\nusername = \"kiln\"\npassword-file = \"/etc/kiln/password\"\n\
                    [[registry]]\nhost = \"mirror.example\"\nplain-http = true\n";
        let all = registries(text).unwrap();
        let [registry, mirror] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(registry.mirrors, ["mirror.example/copies"]);
        assert_eq!(registry.ca, [Path::new("/etc/kiln/ca.pem")]);
        assert_eq!(registry.username.as_deref(), Some("kiln"));
        assert!(mirror.plain_http && !registry.plain_http);
    }

    #[test]
    fn what_is_wrong_about_registries_is_told_with_its_place() {
        let one = "[[registry]]\nhost = \"a.example\"\n";
        for (text, expected) in [
            ("[[registry]]\nhost = \"https://a.example\"\n", "kiln.toml:1:1: `https://a.example`"),
            ("[[registry]]\nplain-http = true\n", "kiln.toml:1:1: `` is not the host"),
            (&format!("{one}mirrors = [\"\"]\n"), "kiln.toml:1:1: `` is not the host of a mirror"),
            (&format!("{one}username = \"me\"\n"), "kiln.toml:1:1: `username` and `password-file`"),
            (&format!("{one}password = \"x\"\n"), "kiln.toml:3:1: unknown field `password`"),
            (&format!("{one}{one}"), "kiln.toml:3:1: registry `a.example` is there twice"),
            ("[[registry]\n", "kiln.toml:1:"),
        ] {
            let error = registries(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
