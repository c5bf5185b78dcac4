//! Devices of a container, and mappings of its user namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::FileMode;

/// A device of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// Where it is in the container; `all` allows the use of every device of the type.
    pub path: String,
    /// What kind of device it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<DeviceKind>,
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permissions, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
}

/// What kind of device one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Every kind, with `path: all`.
    A,
    /// A block device.
    B,
    /// A character device.
    C,
    /// A character device without buffer.
    U,
    /// A named pipe.
    P,
}

impl DeviceSpec {
    /// Returns whether it stands for every device of its kind.
    pub fn is_all(&self) -> bool {
        self.path == "all"
    }

    /// Returns what is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        if self.is_all() {
            return None;
        }
        let path = &self.path;
        if !path.starts_with("/dev/") || path.split('/').any(|part| part == "..") {
            return Some(format!("device `{path}` is not `all` or a path below `/dev/`"));
        }
        if matches!(self.kind, None | Some(DeviceKind::A)) {
            return Some(format!(
                "device `{path}` needs a `type`: `c` for a character device, `b` for a block device, `p` for a pipe"
            ));
        }
        // As the kernel keeps them (`MAJOR` and `MINOR` of `include/linux/kdev_t.h`).
        if !(0..1 << 12).contains(&self.major) || !(0..1 << 20).contains(&self.minor) {
            return Some(format!(
                "device `{path}` has the numbers {}:{}; the kernel knows 0 to 4095 and 0 to 1048575",
                self.major, self.minor
            ));
        }
        if self.mode.is_none() {
            return Some(format!("device `{path}` needs a `mode`, such as \"0660\""));
        }
        None
    }
}

/// A range of users or groups that the container sees under other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    /// First number in the container.
    #[serde(rename = "containerID", alias = "containerid")]
    pub container_id: u32,
    /// First number on the machine.
    #[serde(rename = "hostID", alias = "hostid")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}
