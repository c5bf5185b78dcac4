//! The types of single fields.

use std::fmt;

use kiln_types::Arch;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, de};

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

/// A text for every architecture, or one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerArch {
    /// The same for all.
    All(String),
    /// Those that are named.
    Each(Vec<(Arch, String)>),
}

impl PerArch {
    /// Returns the text for an architecture.
    pub fn get(&self, arch: Arch) -> Option<&str> {
        match self {
            Self::All(text) => Some(text),
            Self::Each(texts) => {
                texts.iter().find(|(a, _)| *a == arch).map(|(_, text)| text.as_str())
            }
        }
    }
}

impl<'de> Deserialize<'de> for PerArch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;
        impl<'de> Visitor<'de> for TextOrMap {
            type Value = PerArch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a map from x86_64 and arm64 to texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PerArch, E> {
                Ok(PerArch::All(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PerArch, A::Error> {
                let mut texts = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    texts.push(entry);
                }
                Ok(PerArch::Each(texts))
            }
        }
        deserializer.deserialize_any(TextOrMap)
    }
}

/// Which modules of the kernel an image holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModuleSelection {
    /// What machines need to find their network and disks, and what containers need.
    #[default]
    Auto,
    /// None at all.
    None,
    /// These, and what they depend on.
    Named(Vec<String>),
}

impl<'de> Deserialize<'de> for ModuleSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrList;
        impl<'de> Visitor<'de> for WordOrList {
            type Value = ModuleSelection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `none` or a list of module names")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<ModuleSelection, E> {
                match word {
                    "auto" => Ok(ModuleSelection::Auto),
                    "none" => Ok(ModuleSelection::None),
                    _ => Err(E::custom(format!(
                        "`{word}` is not `auto`, `none` or a list of module names"
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<ModuleSelection, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(ModuleSelection::Named(names))
            }
        }
        deserializer.deserialize_any(WordOrList)
    }
}

/// Name of a container: part of paths, so it cannot be just anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ContainerName(String);

impl ContainerName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ContainerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let good = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if good {
            Ok(Self(name))
        } else {
            let name: String = name.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "`{name}` cannot be the name of a container; use letters, digits, `-`, `_` and `.`, starting \
                 with a letter or digit, at most 64"
            )))
        }
    }
}

/// Which namespace a container runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// That of the machine.
    Host,
    /// One of its own.
    New,
    /// The one that is bound to this path.
    Path(String),
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.as_str() {
            "host" | "root" => Ok(Self::Host),
            "new" | "none" => Ok(Self::New),
            path if path.starts_with('/') => Ok(Self::Path(word)),
            _ => {
                Err(D::Error::custom(format!("`{word}` is not `host`, `new` or an absolute path")))
            }
        }
    }
}

/// Permissions, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// Returns the permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if bits <= 0o7777 && !digits.starts_with('+') => Ok(Self(bits)),
            _ => Err(D::Error::custom(format!(
                "`{text}` is not a file mode in octal, such as \"0644\""
            ))),
        }
    }
}

/// The capabilities of a container: bounding, permitted, inheritable and effective alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// Returns their names with `CAP_`, in the order in which they were given.
    pub fn names(&self) -> &[String] {
        &self.0
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
                return Ok(Self(CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect()));
            }
        }
        let known =
            |name: &String| name.strip_prefix("CAP_").is_some_and(|n| CAPABILITIES.contains(&n));
        match names.iter().find(|name| !known(name)) {
            None => Ok(Self(names)),
            Some(name) => Err(D::Error::custom(format!(
                "unknown capability `{name}`; write it as `CAP_NET_ADMIN`, or use `all` or `none` alone"
            ))),
        }
    }
}

/// A text, or a number or truth value that stands for its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scalar(String);

impl Scalar {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The parser hands a plain scalar out as it was written.
        String::deserialize(deserializer).map(Self)
    }
}
