//! Where the settings say that the store, the keys and the server's socket are, for commands that need no more of them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kiln_builder::trust::KeyDir;
use serde::Deserialize;

use super::{DEFAULT_DATA, DEFAULT_PATH, DEFAULT_SOCKET, Problem, SettingsError};

/// What the server and commands on its host share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The artifact store.
    pub store: PathBuf,
    /// The site's key, its certificate authority, and the keys that are trusted besides.
    pub keys: KeyDir,
    /// The unix socket of the server.
    pub socket: PathBuf,
}

/// What the file has to say of them. The rest of it is left to the server.
#[derive(Default, Deserialize)]
struct Part {
    #[serde(default)]
    server: Server,
    #[serde(default)]
    store: Dir,
    #[serde(default)]
    trust: Keys,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Server {
    data_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct Dir {
    dir: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct Keys {
    keys: Option<PathBuf>,
}

impl Part {
    fn folders(self) -> Folders {
        let store = store_dir(self.store.dir, self.server.data_dir.as_deref());
        let keys = self.trust.keys.map_or_else(|| KeyDir::beside(&store), KeyDir::new);
        let socket = self.server.socket.unwrap_or_else(|| DEFAULT_SOCKET.into());
        Folders { store, keys, socket }
    }
}

/// Returns where the store is, as told or beside the rest of the data.
pub(super) fn store_dir(told: Option<PathBuf>, data_dir: Option<&Path>) -> PathBuf {
    told.unwrap_or_else(|| data_dir.unwrap_or_else(|| Path::new(DEFAULT_DATA)).join("store"))
}

/// Reads where they are: of the file that is named, or of the usual one, which need not be there.
///
/// # Errors
///
/// Fails when the file cannot be read, or is no TOML or wrong in that part.
pub fn folders(path: Option<&Path>) -> Result<Folders, SettingsError> {
    let file = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
    match std::fs::read_to_string(file) {
        Ok(text) => parse(file, &text),
        Err(error) if path.is_none() && error.kind() == ErrorKind::NotFound => {
            Ok(Part::default().folders())
        }
        Err(source) => Err(SettingsError::Read { path: file.to_owned(), source }),
    }
}

fn parse(path: &Path, text: &str) -> Result<Folders, SettingsError> {
    toml::from_str(text).map(Part::folders).map_err(|error| {
        let problem = Problem::new(path, text, error.span(), error.message().to_owned());
        SettingsError::Invalid { problems: vec![problem] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_are_those_of_the_server() {
        let subnet = "[[subnet]]\nnetwork = \"10.0.0.0/24\"\ninterface = \"lo\"\n\
                      address = \"10.0.0.1\"\ndhcp = \"off\"\n";
        for (text, store, keys) in [
            ("", "/var/lib/kiln/store", "/var/lib/kiln/keys"),
            ("[server]\ndata-dir = \"/srv/kiln\"\n", "/srv/kiln/store", "/srv/kiln/keys"),
            ("[server]\nsocket = \"/srv/s\"\n", "/var/lib/kiln/store", "/var/lib/kiln/keys"),
            ("[store]\ndir = \"/mnt/images\"\n", "/mnt/images", "/mnt/keys"),
            ("[trust]\nkeys = \"/etc/kiln/keys\"\n", "/var/lib/kiln/store", "/etc/kiln/keys"),
        ] {
            let path = Path::new("kiln.toml");
            let found = parse(path, text).unwrap();
            assert_eq!((found.store.as_path(), found.keys.path()), (store.as_ref(), keys.as_ref()));
            let whole = super::super::Settings::parse(path, &format!("{text}{subnet}")).unwrap();
            let (store, keys, socket) = (whole.store_dir, whole.trust.keys, whole.socket);
            assert_eq!(found, Folders { store, keys, socket });
        }
    }

    #[test]
    fn a_file_that_is_named_is_read_and_what_is_wrong_there_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln.toml");
        let missing = folders(Some(&path)).unwrap_err().to_string();
        assert!(missing.contains("cannot read the settings"), "{missing}");
        std::fs::write(&path, "[store]\ndir = 5\n").unwrap();
        let wrong = folders(Some(&path)).unwrap_err().to_string();
        assert!(wrong.contains("kiln.toml:2:7: "), "{wrong}");
    }
}
