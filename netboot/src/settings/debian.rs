//! `[debian]`: where packages come from.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{Problem, Problems, SettingsError};

/// Where packages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebianSettings {
    /// Base address of the mirror; without one, the one that the host's apt uses.
    pub mirror: Option<String>,
    /// Base address of an archive of snapshots, for specifications that name one.
    pub snapshot_mirror: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireDebian {
    mirror: Option<Spanned<String>>,
    snapshot_mirror: Option<Spanned<String>>,
}

impl WireDebian {
    pub(super) fn check(self, problems: &mut Problems) -> DebianSettings {
        let mut address = |key: &str, url: Option<Spanned<String>>| {
            let url = url?;
            let text = url.get_ref();
            if !text.starts_with("http://") && !text.starts_with("https://") {
                let problem =
                    format!("`{key}` is `{text}`, which does not begin with http:// or https://");
                problems.push((Some(url.span()), problem));
            }
            Some(url.into_inner())
        };
        DebianSettings {
            mirror: address("mirror", self.mirror),
            snapshot_mirror: address("snapshot-mirror", self.snapshot_mirror),
        }
    }
}

/// Reads that part of a file and leaves the rest of it to the server.
///
/// # Errors
///
/// Fails when the file cannot be read, or names every place of it that is no TOML or wrong in that part.
pub fn debian(path: &Path) -> Result<DebianSettings, SettingsError> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        debian: WireDebian,
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    let mut problems = Vec::new();
    let mut settings = DebianSettings::default();
    match toml::from_str::<Part>(&text) {
        Ok(part) => settings = part.debian.check(&mut problems),
        Err(error) => problems.push((error.span(), error.message().to_owned())),
    }
    if problems.is_empty() {
        return Ok(settings);
    }
    let problem = |(span, message)| Problem::new(path, &text, span, message);
    Err(SettingsError::Invalid { problems: problems.into_iter().map(problem).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_archives_are_read_beside_the_rest_and_a_wrong_one_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[server]\nother = 1\n[debian]\nsnapshot-mirror = \"http://snap.example\"\n";
        std::fs::write(file.path(), text).unwrap();
        let read = debian(file.path()).unwrap();
        assert_eq!(read.snapshot_mirror.as_deref(), Some("http://snap.example"));
        assert_eq!(read.mirror, None);
        for bad in ["mirror = \"mirror.example\"", "snapshot = \"http://x\""] {
            std::fs::write(file.path(), format!("[debian]\n{bad}\n")).unwrap();
            let error = debian(file.path()).unwrap_err().to_string();
            assert!(error.contains(":2:"), "{error}");
        }
    }
}
