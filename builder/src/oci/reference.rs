use std::fmt;
use std::str::FromStr;

use kiln_types::Digest;
use oci_client::Reference as Parsed;
use serde::{Deserialize, Serialize};

/// The name of an image: registry, repository, and a tag or a digest. Short names get the registry and the
/// organisation that they have stood for since Docker, as in LinuxKit.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    parsed: Parsed,
    /// Whether a tag was written: the parser adds one where there is none.
    tagged: bool,
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

impl Reference {
    /// Returns the host, and port, of the registry.
    pub fn registry(&self) -> &str {
        self.parsed.registry()
    }

    /// Returns the repository in the registry.
    pub fn repository(&self) -> &str {
        self.parsed.repository()
    }

    /// Returns the tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.parsed.tag().filter(|_| self.tagged)
    }

    /// Returns the digest, if the name has one.
    pub fn digest(&self) -> Option<Digest> {
        self.parsed.digest()?.parse().ok()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: String| {
            let text = text.chars().take(200).flat_map(char::escape_default).collect();
            ReferenceError { text, reason }
        };
        let parsed: Parsed = text.parse().map_err(|error| fail(format!("{error}")))?;
        if parsed.repository().contains(|letter: char| letter.is_ascii_uppercase()) {
            return Err(fail("a repository has no capital letters".to_owned()));
        }
        if let Some(digest) = parsed.digest() {
            digest.parse::<Digest>().map_err(|error| fail(error.to_string()))?;
        }
        let name = text.split('@').next().unwrap_or_default();
        let last = name.rsplit('/').next().unwrap_or_default();
        Ok(Self { parsed, tagged: last.contains(':') })
    }
}

/// The canonical form, without the tag that the parser has added.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", self.registry(), self.repository());
        if let Some(tag) = self.tag() {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = self.parsed.digest() {
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
}
