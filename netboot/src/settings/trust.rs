//! `[trust]`: which versions may be served, and which images may be used.

use std::path::{Path, PathBuf};

use kiln_builder::oci::{ImagePolicy, ImageRule};
use kiln_builder::trust::KeyDir;
use serde::Deserialize;

use super::{Problem, SettingsError};

/// Which versions may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustSettings {
    /// Whether a trusted key must have signed a version.
    pub require_signature: bool,
    /// The folder of the site's key and of the keys that are trusted besides.
    pub keys: KeyDir,
}

impl TrustSettings {
    /// Returns the default for a store: only what a key of the folder beside it has signed.
    pub fn beside(store: &Path) -> Self {
        Self { require_signature: true, keys: KeyDir::beside(store) }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireTrust {
    require_signature: Option<bool>,
    keys: Option<PathBuf>,
    /// Read by builds alone; here so that a server does not start with what builds would refuse.
    #[serde(default)]
    #[expect(dead_code, reason = "checked, and used by the builds that the server starts")]
    image: Vec<ImageRule>,
}

impl WireTrust {
    pub(super) fn check(self, store: &Path) -> TrustSettings {
        let base = TrustSettings::beside(store);
        TrustSettings {
            require_signature: self.require_signature.unwrap_or(base.require_signature),
            keys: self.keys.map_or(base.keys, KeyDir::new),
        }
    }
}

/// Reads which images may be used, `[[trust.image]]`, and leaves the rest of the file to the server.
///
/// # Errors
///
/// Fails when the file cannot be read, or names the place of it that is no TOML or a wrong rule.
pub fn image_policy(path: &Path) -> Result<ImagePolicy, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    parse_policy(path, &text)
}

fn parse_policy(path: &Path, text: &str) -> Result<ImagePolicy, SettingsError> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        trust: Rules,
    }
    #[derive(Default, Deserialize)]
    struct Rules {
        #[serde(default)]
        image: Vec<ImageRule>,
    }
    let part: Part = toml::from_str(text).map_err(|error| SettingsError::Invalid {
        problems: vec![Problem::new(path, text, error.span(), error.message().to_owned())],
    })?;
    Ok(ImagePolicy { rules: part.trust.image })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<ImagePolicy, String> {
        parse_policy(Path::new("kiln.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_for_images_are_read_in_order_beside_the_rest() {
        let text = "[server]\nother = 1\n[trust]\nrequire-signature = true\n\
                    [[trust.image]]\nimages = \"registry.example/base/*\"\ncosign-keys = [\"/k.pub\"]\n\
                    [[trust.image]]\nimages = \"*\"\nreject = true\n";
        let rules = policy(text).unwrap().rules;
        assert_eq!(rules[0].images, "registry.example/base/*");
        assert_eq!((rules.len(), rules[1].images.as_str()), (2, "*"));
        assert_eq!(policy("").unwrap(), ImagePolicy::default());
    }

    #[test]
    fn a_wrong_rule_is_told_with_its_place() {
        let rule = "[[trust.image]]\nimages = \"a.example\"\n";
        for (text, expected) in [
            (rule.to_owned(), "kiln.toml:1:1: the rule for `a.example` needs one of"),
            (format!("{rule}acept = true\n"), "kiln.toml:3:1: unknown field `acept`"),
        ] {
            let error = policy(&text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            let whole = super::super::Settings::parse(Path::new("kiln.toml"), &text);
            assert!(whole.unwrap_err().to_string().contains(expected));
        }
    }
}
