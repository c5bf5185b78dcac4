use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A state that an operator puts a machine in, beside its settings. Several can hold at once.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// It cannot be changed, retired or removed. Only being cordoned and in maintenance can still be switched.
    Locked,
    /// It gets no new version: it boots what it last ran well.
    Cordoned,
    /// It does not do its work: it boots its maintenance image, or waits where it has none.
    Maintenance,
    /// It is out of service, and refused.
    Retired,
}

impl Flag {
    /// Every flag.
    pub const ALL: [Self; 4] = [Self::Locked, Self::Cordoned, Self::Maintenance, Self::Retired];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Cordoned => "cordoned",
            Self::Maintenance => "maintenance",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no flag of a machine; use locked, cordoned, maintenance or retired")]
pub struct ParseFlagError(String);

impl FromStr for Flag {
    type Err = ParseFlagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|flag| flag.as_str() == text);
        found.ok_or_else(|| ParseFlagError(text.escape_debug().take(40).collect()))
    }
}
