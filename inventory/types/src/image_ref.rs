use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name of an image or of a channel, in bytes.
const MAX_NAME: usize = 64;

/// An image and one of its channels, written `web:stable`; `web` alone means `web:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    name: String,
    channel: String,
}

impl ImageRef {
    /// The channel that is meant when none is named.
    pub const LATEST: &'static str = "latest";

    /// Returns the name of the image, `web` in `web:stable`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the channel, `stable` in `web:stable`.
    pub fn channel(&self) -> &str {
        &self.channel
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.channel == Self::LATEST {
            f.pad(&self.name)
        } else {
            f.pad(&format!("{}:{}", self.name, self.channel))
        }
    }
}

/// The text does not name an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` does not name an image; use NAME or NAME:CHANNEL, each of lower-case letters, digits, `-`, `_` \
     and `.`, starting with a letter or digit, at most {MAX_NAME} long"
)]
pub struct ParseImageRefError(String);

/// Returns whether the text can be the name of an image or channel. Such a name is safe as a file name.
fn is_name(s: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX_NAME).contains(&s.len())
        && s.bytes().next().is_some_and(plain)
        && s.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'))
}

impl FromStr for ImageRef {
    type Err = ParseImageRefError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (name, channel) = s.split_once(':').unwrap_or((s, Self::LATEST));
        if is_name(name) && is_name(channel) {
            Ok(Self { name: name.to_owned(), channel: channel.to_owned() })
        } else {
            Err(ParseImageRefError(s.chars().take(140).collect()))
        }
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_defaults_to_latest() {
        let web: ImageRef = "web".parse().unwrap();
        assert_eq!((web.name(), web.channel()), ("web", "latest"));
        assert_eq!(web.to_string(), "web");
        let edge: ImageRef = "web:edge".parse().unwrap();
        assert_eq!((edge.name(), edge.channel()), ("web", "edge"));
        assert_eq!(edge.to_string(), "web:edge");
    }

    #[test]
    fn a_name_can_never_leave_its_folder() {
        for bad in
            ["", ":", "a:", ".", "..", "../a", "a/b", "A", "-a", "a:b:c", "a\0", &"a".repeat(65)]
        {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
