use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The disk of a machine on which a state partition may be made when it is empty: `serial:…`, `wwn:…` or `path:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
pub struct StateDisk(String);

impl StateDisk {
    /// Returns it as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text names no disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no disk; use `serial:` and its serial number, `wwn:` and its worldwide name, or `path:` and where it is \
     plugged in, such as `path:0000:00:1f.2/ata1`"
)]
pub struct ParseStateDiskError(String);

impl FromStr for StateDisk {
    type Err = ParseStateDiskError;

    fn from_str(text: &str) -> Result<Self, ParseStateDiskError> {
        let wrong = || ParseStateDiskError(text.escape_debug().take(80).collect());
        let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let good = match kind {
            "serial" | "wwn" => true,
            // What is in `/dev` is called otherwise after the next boot.
            "path" => !name.starts_with("/dev") && !name.split('/').any(|part| part == ".."),
            _ => false,
        };
        if !good || !plain || name.trim().is_empty() || name.trim() != name || name.len() > 200 {
            return Err(wrong());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for StateDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for StateDisk {
    type Error = ParseStateDiskError;

    fn try_from(text: String) -> Result<Self, ParseStateDiskError> {
        text.parse()
    }
}

impl From<StateDisk> for String {
    fn from(disk: StateDisk) -> Self {
        disk.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_named_by_what_stays_the_same() {
        for good in ["serial:S4EV NX0M", "wwn:0x5000c50012345678", "path:0000:00:1f.2/ata1"] {
            assert_eq!(good.parse::<StateDisk>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "sda",
            "/dev/sda",
            "serial:",
            "serial: ",
            "path:/dev/sda",
            "path:a/../b",
            "uuid:1",
            "serial:a\nb",
            "serial:é",
        ] {
            assert!(bad.parse::<StateDisk>().is_err(), "{bad}");
        }
        assert!("serial:".to_owned().add(&"x".repeat(201)).parse::<StateDisk>().is_err());
        assert!(serde_json::from_str::<StateDisk>("\"sda\"").is_err());
    }

    use std::ops::Add as _;
}
