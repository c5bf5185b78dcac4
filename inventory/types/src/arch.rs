use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A processor architecture that Kiln builds images for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Arch {
    /// 64-bit PC (Debian: `amd64`).
    #[serde(rename = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit ARM (Debian: `arm64`, the kernel and qemu: `aarch64`).
    #[serde(rename = "arm64", alias = "aarch64")]
    Arm64,
}

impl Arch {
    /// Every architecture, in the order that listings use.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// Returns the name that Kiln uses everywhere: `x86_64` or `arm64`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns Debian's name of the architecture, as in `Packages` files.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns the name that the kernel (`uname -m`), qemu and Rust targets use.
    pub const fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Returns the architecture this program was compiled for, if Kiln builds images for it.
    pub fn host() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not the name of an architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture `{0}`; use x86_64 or arm64")]
pub struct ParseArchError(String);

impl FromStr for Arch {
    type Err = ParseArchError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "arm64" | "aarch64" => Ok(Self::Arm64),
            _ => Err(ParseArchError(s.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_names_parse() {
        for arch in Arch::ALL {
            for name in [arch.as_str(), arch.debian(), arch.machine()] {
                assert_eq!(name.parse(), Ok(arch));
            }
        }
        assert_eq!(
            "sparc".parse::<Arch>().unwrap_err().to_string(),
            "unknown architecture `sparc`; use x86_64 or arm64"
        );
    }
}
