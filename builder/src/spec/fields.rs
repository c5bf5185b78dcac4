//! The types of single fields.

use std::fmt;
use std::marker::PhantomData;

use kiln_types::Arch;
use serde::de::{Deserializer, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
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
pub enum PerArch<T = String> {
    /// The same for all.
    All(T),
    /// Those that are named.
    Each(Vec<(Arch, T)>),
}

impl<T: AsRef<str>> PerArch<T> {
    /// Returns the text for an architecture.
    pub fn get(&self, arch: Arch) -> Option<&str> {
        match self {
            Self::All(text) => Some(text.as_ref()),
            Self::Each(texts) => {
                texts.iter().find(|(a, _)| *a == arch).map(|(_, text)| text.as_ref())
            }
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for PerArch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrMap<T> {
            type Value = PerArch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a map from x86_64 and arm64 to texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PerArch<T>, E> {
                T::deserialize(text.into_deserializer()).map(PerArch::All)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PerArch<T>, A::Error> {
                let mut texts = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    texts.push(entry);
                }
                Ok(PerArch::Each(texts))
            }
        }
        deserializer.deserialize_any(TextOrMap(PhantomData))
    }
}

/// Arguments of the kernel that every loader hands over as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline(String);

impl Cmdline {
    /// The kernel for x86_64 keeps 2048 bytes (`COMMAND_LINE_SIZE`), with the NUL at their end.
    const MAX: usize = 2047;

    fn new(text: &str) -> Result<Self, String> {
        // A text over several lines is one line to the kernel.
        let line = text.split([' ', '\n']).filter(|word| !word.is_empty());
        let line = line.collect::<Vec<_>>().join(" ");
        if let Some(c) = line.chars().find(|c| !matches!(c, ' '..='~')) {
            return Err(format!(
                "the arguments of the kernel contain {c:?}; use printable ASCII, which every loader hands over \
                 as it is"
            ));
        }
        if line.contains("${") {
            return Err(
                "the arguments of the kernel contain `${`, which iPXE replaces; leave it out"
                    .to_owned(),
            );
        }
        if line.len() > Self::MAX {
            return Err(format!(
                "the arguments of the kernel have {} characters; it keeps {} at most",
                line.len(),
                Self::MAX
            ));
        }
        Ok(Self(line))
    }
}

impl AsRef<str> for Cmdline {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Cmdline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
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
