//! `[trust]`: which versions may be served.

use std::path::{Path, PathBuf};

use kiln_builder::trust::KeyDir;
use serde::Deserialize;

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
