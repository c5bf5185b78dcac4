//! The kernel: where it comes from, its modules and its arguments.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer, de};

use super::fields::PerArch;
use super::firmware::FirmwareSelection;
use super::place::Placed;
use super::text::short;
use crate::oci::Reference;

/// The kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KernelSpec {
    /// Image with a kernel and a tar of its modules.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub image: Option<Placed<Reference>>,
    /// Debian package that is a kernel or depends on one, instead of an image; a text, or a map from architecture to
    /// text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deb: Option<Placed<PerArch>>,
    /// Which of its modules the image holds: `auto`, `none`, or a list of names, among which `auto` may be too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<Placed<ModuleSelection>>,
    /// Firmware for the devices of its modules: `auto`, what it comes with; `none`; or a list of Debian packages that
    /// have more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Placed<FirmwareSelection>>,
    /// Arguments; a text, or a map from architecture to text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<PerArch<Cmdline>>,
    /// Name of the kernel's file in its image; `kernel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// Name of the tar of its modules in its image, `none` or empty for no modules; `kernel.tar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tar: Option<String>,
    /// Name of a cpio archive of processor microcode in its image; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ucode: Option<String>,
}

impl KernelSpec {
    /// Takes what a later file says.
    pub(super) fn join(&mut self, later: Self) {
        // The last kernel wins, whatever it is made from.
        if later.image.is_some() || later.deb.is_some() {
            self.image = later.image;
            self.deb = later.deb;
        }
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let said = |line: &PerArch<Cmdline>| *line != PerArch::All(Cmdline::default());
        self.modules = later.modules.or_else(|| self.modules.take());
        self.firmware = later.firmware.or_else(|| self.firmware.take());
        self.cmdline = later.cmdline.filter(said).or_else(|| self.cmdline.take());
        if given(&later.binary) {
            self.binary = later.binary;
        }
        // Here an empty text has a meaning.
        self.tar = later.tar.or_else(|| self.tar.take());
        self.ucode = later.ucode.or_else(|| self.ucode.take());
    }
}

/// Arguments of the kernel that every loader hands over as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
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
    /// These, and what they depend on; the names `auto` and `network` stand for what [`Auto`](Self::Auto) takes and its
    /// part without disks, and what has a `-` before it is left out.
    Named(Vec<String>),
}

impl ModuleSelection {
    /// The word for what is needed.
    pub const AUTO: &str = "auto";
    /// The word for what is needed besides disks.
    pub const NETWORK: &str = "network";
    /// What is before the name of a module that is left out.
    pub const WITHOUT: char = '-';
}

impl Serialize for ModuleSelection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Named(names) => names.serialize(serializer),
        }
    }
}

impl JsonSchema for ModuleSelection {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModuleSelection".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["auto", "none"]},
            {"type": "array", "items": {"type": "string"}},
        ]})
    }
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
                        "`{}` is not `auto`, `none` or a list of module names",
                        short(word)
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<ModuleSelection, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    if name == "none" {
                        return Err(de::Error::custom(
                            "`none` cannot be in a list of modules; write `modules: none` or leave it out",
                        ));
                    }
                    if name.is_empty() || name == "-" {
                        return Err(de::Error::custom("the name of a module is missing"));
                    }
                    names.push(name);
                }
                Ok(ModuleSelection::Named(names))
            }
        }
        deserializer.deserialize_any(WordOrList)
    }
}
