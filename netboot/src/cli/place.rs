//! Where the store and the keys are that a command works on: as it is told, or as the server's settings have it.

use std::path::{Path, PathBuf};

use clap::Args;
use kiln_builder::Store;
use kiln_builder::trust::KeyDir;

use super::Failure;
use crate::settings::{Folders, folders};

/// Which store.
#[derive(Args, Clone, Debug)]
pub(super) struct StoreArg {
    /// Folder of the artifact store; that of the server's settings, which is /var/lib/kiln/store unless they name another
    #[arg(long, env = "KILN_STORE", value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
}

impl StoreArg {
    /// Returns the folder, as told or as the settings have it: those in a file that was named, or the usual ones.
    pub(super) fn dir(&self, config: Option<&Path>) -> Result<PathBuf, Failure> {
        match &self.store {
            Some(dir) => Ok(dir.clone()),
            None => Ok(folders_of(config)?.store),
        }
    }

    pub(super) fn open(&self, config: Option<&Path>) -> Result<Store, Failure> {
        Ok(Store::open(self.dir(config)?)?)
    }
}

/// Reads the folders of the server's settings: those in a file that was named, or the usual ones.
pub(super) fn folders_of(config: Option<&Path>) -> Result<Folders, Failure> {
    let named =
        config.map(Path::to_owned).or_else(|| Some(std::env::var_os("KILN_CONFIG")?.into()));
    folders(named.as_deref()).map_err(|error| Failure::new(Failure::CONFIG, error))
}

/// Which keys.
#[derive(Args, Clone, Debug)]
pub(super) struct KeyDirArg {
    /// Folder of the key to sign with and of the keys that are trusted; that of the server's settings, or `keys` beside
    /// the store
    #[arg(long, env = "KILN_KEY_DIR", value_name = "DIR")]
    key_dir: Option<PathBuf>,
}

impl KeyDirArg {
    /// Returns the folder, as told, beside the store that was named, or as the settings have it.
    pub(super) fn of(&self, store: &StoreArg, config: Option<&Path>) -> Result<KeyDir, Failure> {
        match (&self.key_dir, &store.store) {
            (Some(dir), _) => Ok(KeyDir::new(dir)),
            (None, Some(store)) => Ok(KeyDir::beside(store)),
            (None, None) => Ok(folders_of(config)?.keys),
        }
    }
}

/// Where the keys are, for commands about nothing else.
#[derive(Args, Clone, Debug)]
pub(super) struct KeyPlaceArgs {
    /// Settings of the server, which say where its keys are; /etc/kiln/kiln.toml, where that is there
    #[arg(long, env = "KILN_CONFIG", value_name = "kiln.toml")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keys: KeyDirArg,
}

impl KeyPlaceArgs {
    pub(super) fn keys(&self) -> Result<KeyDir, Failure> {
        self.keys.of(&self.store, self.config.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_and_keys_are_where_the_settings_say_unless_the_command_line_does() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("kiln.toml");
        std::fs::write(&config, "[store]\ndir = \"/srv/store\"\n[trust]\nkeys = \"/etc/keys\"\n")
            .unwrap();
        let path = |text: &str| Some(PathBuf::from(text)).filter(|path| path != Path::new(""));
        for (store, keys, expected) in [
            ("", "", ("/srv/store", "/etc/keys")),
            ("/tmp/store", "", ("/tmp/store", "/tmp/keys")),
            ("", "/k", ("/srv/store", "/k")),
            ("/tmp/store", "/k", ("/tmp/store", "/k")),
        ] {
            let store = StoreArg { store: path(store) };
            let place = KeyPlaceArgs {
                config: Some(config.clone()),
                keys: KeyDirArg { key_dir: path(keys) },
                store: store.clone(),
            };
            let found = (store.dir(Some(&config)).unwrap(), place.keys().unwrap());
            assert_eq!(
                (found.0.as_path(), found.1.path()),
                (expected.0.as_ref(), expected.1.as_ref())
            );
        }
        let missing = StoreArg { store: None }.dir(Some(&dir.path().join("other.toml")));
        assert_eq!(missing.unwrap_err().code(), Failure::CONFIG);
    }
}
