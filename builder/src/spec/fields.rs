//! The types of single fields.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use kiln_types::Arch;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, IntoDeserializer as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer, de};

use super::file::SourceFile;
use super::text::{as_text, short};

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

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<PerArch<T>, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PerArch<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PerArch<T>, A::Error> {
                let mut texts = Vec::new();
                while let Some((arch, text)) = map.next_entry()? {
                    if texts.iter().any(|(there, _)| *there == arch) {
                        return Err(de::Error::custom(format!("{arch} is here twice")));
                    }
                    texts.push((arch, text));
                }
                Ok(PerArch::Each(texts))
            }
        }
        deserializer.deserialize_any(TextOrMap(PhantomData))
    }
}

impl<T: Serialize> Serialize for PerArch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(text) => text.serialize(serializer),
            Self::Each(texts) => {
                let mut map = serializer.serialize_map(Some(texts.len()))?;
                for (arch, text) in texts {
                    map.serialize_entry(arch, text)?;
                }
                map.end()
            }
        }
    }
}

impl<T: JsonSchema> JsonSchema for PerArch<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("PerArch{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<T>();
        let names = Arch::ALL.map(|arch| arch.to_string());
        let texts: serde_json::Map<_, _> =
            names.into_iter().map(|name| (name, text.clone().to_value())).collect();
        json_schema!({"anyOf": [
            text,
            {"type": "object", "properties": texts, "additionalProperties": false},
        ]})
    }
}

/// Name of a container: part of paths, so it cannot be just anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let good = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if good {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "`{}` cannot be the name of a container; use letters, digits, `-`, `_` and `.`, starting with a \
             letter or digit, at most 64",
            short(name)
        ))
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Name of a volume: part of paths too, and never like one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        if (1..=64).contains(&name.len()) && name.bytes().all(letter) {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "`{}` cannot be the name of a volume; use lower-case letters, digits, `-` and `_`, at most 64",
            short(name)
        ))
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which namespace a container runs in: `host` or `root`, `new` or `none`, or the path that one is bound to. An empty
/// text says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Not said.
    Unsaid,
    /// That of the machine.
    Host,
    /// One of its own.
    New,
    /// The one that is bound to this path.
    Path(String),
}

impl FromStr for Namespace {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "" => Ok(Self::Unsaid),
            "host" | "root" => Ok(Self::Host),
            "new" | "none" => Ok(Self::New),
            path if path.starts_with('/') => Ok(Self::Path(path.to_owned())),
            _ => Err(format!("`{}` is not `host`, `new` or an absolute path", short(word))),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unsaid => "",
            Self::Host => "host",
            Self::New => "new",
            Self::Path(path) => path,
        })
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

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if bits <= 0o7777 && !digits.starts_with('+') => Ok(Self(bits)),
            _ => Err(format!("`{}` is not a file mode in octal, such as \"0644\"", short(text))),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

as_text!(ContainerName VolumeName Namespace);

/// A text, or a number or truth value that stands for its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scalar(String);

impl Scalar {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the parser hands out as it was written, so that a number needs no quotes.
macro_rules! scalar_schema {
    ($($name:ident)*) => { $(
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": ["string", "number", "boolean"]})
            }
        }
    )* };
}

scalar_schema!(Scalar FileMode);

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How the files of a container are stored in the initrd.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// As they are, in compressed archives that the kernel unpacks into memory.
    #[default]
    Cpio,
    /// As a compressed file system that is read in place.
    Packed,
}

/// Which system calls a container can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// All of them.
    Unconfined,
    /// Those of the built-in profile.
    Default,
    /// Those of the profile in this file of the build host, as in OCI's `linux.seccomp`.
    File(SourceFile),
}

impl FromStr for Seccomp {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "unconfined" => Ok(Self::Unconfined),
            "default" => Ok(Self::Default),
            file if file.contains(['/', '.']) => Ok(Self::File(SourceFile::new(file))),
            _ => Err(format!(
                "`{}` is not `default`, `unconfined` or the path of a profile, such as `./web.json`",
                short(word)
            )),
        }
    }
}

impl fmt::Display for Seccomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unconfined => "unconfined",
            Self::Default => "default",
            Self::File(file) => file.written(),
        })
    }
}

as_text!(Seccomp);
