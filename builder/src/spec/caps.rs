//! Capabilities of Linux.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::text::short;

/// The capabilities of Linux, without `CAP_`, in the order of their numbers.
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Names of capabilities with `CAP_`; `all` or `none` alone stand for every one and for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// Returns their names with `CAP_`, in the order in which they were given.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns these, and then those of the others that are not there yet.
    pub(super) fn with(&self, more: &Self) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in self.0.iter().chain(&more.0) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Self(names)
    }

    fn all() -> Vec<String> {
        CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect()
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if let [word] = names.as_slice() {
            if word.eq_ignore_ascii_case("none") {
                return Ok(Self(Vec::new()));
            }
            if word.eq_ignore_ascii_case("all") {
                return Ok(Self(Self::all()));
            }
        }
        let known =
            |name: &String| name.strip_prefix("CAP_").is_some_and(|n| CAPABILITIES.contains(&n));
        match names.iter().find(|name| !known(name)) {
            None => Ok(Self(names)),
            Some(name) => Err(D::Error::custom(format!(
                "unknown capability `{}`; write it as `CAP_NET_ADMIN`, or use `all` or `none` alone",
                short(name)
            ))),
        }
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == Self::all() {
            ["all"].serialize(serializer)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl JsonSchema for Capabilities {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Capabilities".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> =
            ["all".to_owned(), "none".to_owned()].into_iter().chain(Self::all()).collect();
        // LinuxKit takes `all` and `none` in any case, which a list of values cannot say.
        json_schema!({
            "type": "array",
            "description": "Names of capabilities with `CAP_`; `all` or `none` alone stand for every one and for none.",
            "items": {"anyOf": [{"enum": names}, {"type": "string", "pattern": "^([aA][lL][lL]|[nN][oO][nN][eE])$"}]},
        })
    }
}
