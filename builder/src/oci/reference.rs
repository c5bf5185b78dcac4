//! What an image is called in a specification and on the command line.

mod given;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_types::Digest;
use oci_client::Reference as Parsed;
use serde::{Deserialize, Serialize};

pub use self::given::{GivenImage, GivenKind};

/// The name of an image: registry, repository, and a tag or a digest; or a folder or file of the computer that builds,
/// as in `oci:DIR:TAG`. Short names get the registry and the organisation that they have stood for since Docker, as in
/// LinuxKit.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference(Name);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Registry {
        parsed: Parsed,
        /// Whether a tag was written: the parser adds one where there is none.
        tagged: bool,
    },
    Given(GivenImage),
}

/// The text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the name of an image ({reason}); write it as `registry/name:tag` or `name@sha256:…`"
)]
pub struct ReferenceError {
    text: String,
    reason: String,
}

impl ReferenceError {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        let text = text.chars().take(200).flat_map(char::escape_default).collect();
        Self { text, reason: reason.into() }
    }
}

impl Reference {
    /// Reads the name of an image in a registry.
    ///
    /// # Errors
    ///
    /// Fails when it is no name, or that of a folder or file.
    pub fn in_registry(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: String| ReferenceError::new(text, reason);
        if GivenImage::parse(text).map_err(fail)?.is_some() {
            return Err(fail("it is a folder or file, and a registry is needed".to_owned()));
        }
        let parsed: Parsed = text.parse().map_err(|error| fail(format!("{error}")))?;
        if parsed.repository().contains(|letter: char| letter.is_ascii_uppercase()) {
            return Err(fail("a repository has no capital letters".to_owned()));
        }
        if let Some(digest) = parsed.digest() {
            digest.parse::<Digest>().map_err(|error| fail(error.to_string()))?;
        }
        let name = text.split('@').next().unwrap_or_default();
        let last = name.rsplit('/').next().unwrap_or_default();
        Ok(Self(Name::Registry { parsed, tagged: last.contains(':') }))
    }

    /// Returns the folder or file that it is, if it is one.
    pub fn given(&self) -> Option<&GivenImage> {
        match &self.0 {
            Name::Given(given) => Some(given),
            Name::Registry { .. } => None,
        }
    }

    /// Finds where the folder or file is, if it is one.
    pub(crate) fn find(&mut self, find: impl FnOnce(&Path) -> PathBuf) {
        if let Name::Given(given) = &mut self.0 {
            given.find(find);
        }
    }

    /// Returns the host, and port, of the registry; nothing for a folder or file.
    pub fn registry(&self) -> &str {
        self.parsed().map_or("", Parsed::registry)
    }

    /// Returns the repository in the registry; nothing for a folder or file.
    pub fn repository(&self) -> &str {
        self.parsed().map_or("", Parsed::repository)
    }

    /// Returns the tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        match &self.0 {
            Name::Registry { parsed, tagged: true } => parsed.tag(),
            _ => None,
        }
    }

    /// Returns the digest, if the name has one.
    pub fn digest(&self) -> Option<Digest> {
        self.parsed()?.digest()?.parse().ok()
    }

    fn parsed(&self) -> Option<&Parsed> {
        match &self.0 {
            Name::Registry { parsed, .. } => Some(parsed),
            Name::Given(_) => None,
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match GivenImage::parse(text).map_err(|reason| ReferenceError::new(text, reason))? {
            Some(given) => Ok(Self(Name::Given(given))),
            None => Self::in_registry(text),
        }
    }
}

/// The canonical form, without the tag that the parser has added. Folders and files are as they were written.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = match &self.0 {
            Name::Registry { parsed, .. } => parsed,
            Name::Given(given) => return given.fmt(f),
        };
        let mut text = format!("{}/{}", self.registry(), self.repository());
        if let Some(tag) = self.tag() {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = parsed.digest() {
            text.push('@');
            text.push_str(digest);
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_was_written_and_short_ones_become_whole() {
        let digest = "a".repeat(64);
        for (text, registry, repository, tag) in [
            ("registry.example/a/b:1.2", "registry.example", "a/b", Some("1.2")),
            ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", None),
            ("localhost/a:x", "localhost", "a", Some("x")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            let parts = (reference.registry(), reference.repository(), reference.tag());
            assert_eq!(parts, (registry, repository, tag));
            assert_eq!(reference.digest(), None);
        }
        let short: Reference = "linuxkit/init:v1".parse().unwrap();
        assert_eq!((short.repository(), short.tag()), ("linuxkit/init", Some("v1")));
        let official: Reference = format!("alpine@sha256:{digest}").parse().unwrap();
        assert_eq!((official.repository(), official.tag()), ("library/alpine", None));
        assert_eq!(official.digest().unwrap().hex(), digest);
    }

    #[test]
    fn what_is_no_name_is_told_with_what_to_write() {
        for text in ["", "UPPER/case", "a:b:c", "a@sha256:12", "a b", "../x"] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.ends_with("or `name@sha256:…`"), "{error}");
        }
    }

    #[test]
    fn fuzzed_names_of_images_are_read_or_refused_and_keep_their_whole_form() {
        let samples: [&[u8]; 5] = [
            b"registry.example/a/b:1.2",
            b"127.0.0.1:5000/a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"oci:dir/web:1",
            b"docker-archive:a.tar:name",
            b"[::1]:5000/a",
        ];
        kiln_fuzz::check("oci-name", &samples, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(reference) = text.parse::<Reference>() {
                let whole = reference.to_string();
                // With its registry it may be too long.
                if let Ok(again) = whole.parse::<Reference>() {
                    assert_eq!(again.to_string(), whole);
                }
                let _ = (reference.registry(), reference.repository(), reference.digest());
            }
        });
    }
}
