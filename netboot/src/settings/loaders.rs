use std::path::PathBuf;

use kiln_builder::output::Signing;
use serde::Deserialize;

use super::Problems;

/// The section `[loaders]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireLoaders {
    pub(super) dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) secure_boot: bool,
    #[serde(default)]
    pub(super) raspberry_pi: bool,
    #[serde(default)]
    pub(super) u_boot_rpi: bool,
    sign_key: Option<PathBuf>,
    sign_cert: Option<PathBuf>,
    sign_command: Option<String>,
}

impl WireLoaders {
    /// Returns who signs what UEFI starts.
    pub(super) fn signing(&self, problems: &mut Problems) -> Option<Signing> {
        let mut wrong = |message: &str| {
            problems.push((None, message.to_owned()));
            None
        };
        let (key, command) = (self.sign_key.clone(), self.sign_command.clone());
        match (key, command, self.sign_cert.clone()) {
            (None, None, None) => None,
            (Some(_), Some(_), _) => {
                wrong("[loaders] has both sign-key and sign-command; leave one of them out")
            }
            (None, None, Some(_)) => {
                wrong("[loaders] has sign-cert alone; add sign-key or sign-command")
            }
            (_, _, None) => wrong("[loaders] signs without a certificate; add sign-cert"),
            (Some(key), None, Some(certificate)) => Some(Signing::Key { key, certificate }),
            (None, Some(command), Some(certificate)) => {
                Some(Signing::Command { command: command.into(), certificate })
            }
        }
    }
}
