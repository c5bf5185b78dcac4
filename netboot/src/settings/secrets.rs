//! `[secrets]`: what the secrets of machines are encrypted with.

use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireSecrets {
    key_file: Option<PathBuf>,
}

impl WireSecrets {
    /// Returns the file of the keys; it is made with the first secret.
    pub(super) fn key_file(self, data_dir: &Path) -> PathBuf {
        self.key_file.unwrap_or_else(|| data_dir.join("secrets.key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_beside_the_data_unless_told_otherwise() {
        let file = |text: &str| {
            toml::from_str::<WireSecrets>(text).unwrap().key_file(Path::new("/var/lib/kiln"))
        };
        assert_eq!(file(""), Path::new("/var/lib/kiln/secrets.key"));
        assert_eq!(file("key-file = \"/etc/kiln/k\""), Path::new("/etc/kiln/k"));
    }
}
