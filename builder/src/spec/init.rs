use std::fmt;
use std::str::FromStr;

use super::text::as_text;
use crate::oci::Reference;

/// An entry of `init`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitSpec {
    /// The built-in kiln-init.
    Kiln,
    /// The files of an image.
    Image(Reference),
}

impl FromStr for InitSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kiln" => Ok(Self::Kiln),
            image => image.parse().map(Self::Image).map_err(|error| format!("{error}")),
        }
    }
}

impl fmt::Display for InitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kiln => f.pad("kiln"),
            Self::Image(image) => image.fmt(f),
        }
    }
}

as_text!(InitSpec);
