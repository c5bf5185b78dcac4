use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How one registry is talked to: `[[registry]]` in `kiln.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RegistrySettings {
    /// The registry, as image names begin: `registry.example`, or with a port.
    pub host: String,
    /// Hosts that are asked first, in this order, each with a path in front of the repository if it needs one.
    pub mirrors: Vec<String>,
    /// Files with certificates (PEM) that are trusted besides those of the system.
    pub ca: Vec<PathBuf>,
    /// Whether it is talked to without encryption.
    pub plain_http: bool,
    /// Who to log in as. Without one, the files that Docker and Podman keep are looked at.
    pub username: Option<String>,
    /// The file that has the password.
    pub password_file: Option<PathBuf>,
}

impl RegistrySettings {
    /// Returns what is wrong with it.
    pub fn problem(&self) -> Option<String> {
        let host = |text: &str| !text.is_empty() && !text.contains(['/', '@', ' ']);
        if !host(&self.host) {
            return Some(format!("`{}` is not the host of a registry", self.host));
        }
        let mirror = |mirror: &&String| !host(mirror.split('/').next().unwrap_or_default());
        if let Some(mirror) = self.mirrors.iter().find(mirror) {
            return Some(format!(
                "`{mirror}` is not the host of a mirror; write it as host or host/path"
            ));
        }
        if self.username.is_some() != self.password_file.is_some() {
            return Some("`username` and `password-file` belong together".to_owned());
        }
        None
    }
}
