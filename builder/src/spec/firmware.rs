use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::text::short;

/// Which firmware an image holds for the devices that its kernel's modules drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FirmwareSelection {
    /// What modules declare, as far as the kernel comes with it.
    #[default]
    Auto,
    /// None at all.
    None,
    /// What modules declare, as far as the kernel or these Debian packages have it.
    Packages(Vec<String>),
}

impl FirmwareSelection {
    /// Returns the packages.
    pub fn packages(&self) -> &[String] {
        match self {
            Self::Packages(names) => names,
            Self::Auto | Self::None => &[],
        }
    }
}

impl Serialize for FirmwareSelection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Packages(names) => names.serialize(serializer),
        }
    }
}

impl JsonSchema for FirmwareSelection {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FirmwareSelection".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["auto", "none"]},
            {"type": "array", "items": {"type": "string"}},
        ]})
    }
}

impl<'de> Deserialize<'de> for FirmwareSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrList;
        impl<'de> Visitor<'de> for WordOrList {
            type Value = FirmwareSelection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `none` or a list of packages")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<FirmwareSelection, E> {
                match word {
                    "auto" => Ok(FirmwareSelection::Auto),
                    "none" => Ok(FirmwareSelection::None),
                    _ => Err(E::custom(format!(
                        "`{}` is not `auto`, `none` or a list of packages",
                        short(word)
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<FirmwareSelection, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    if matches!(name.as_str(), "auto" | "none" | "") {
                        return Err(de::Error::custom(format!(
                            "`{name}` cannot be in a list of packages; what the kernel comes with is taken anyway"
                        )));
                    }
                    names.push(name);
                }
                Ok(FirmwareSelection::Packages(names))
            }
        }
        deserializer.deserialize_any(WordOrList)
    }
}
