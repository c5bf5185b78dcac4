//! Who owns a file or runs a program.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::text::short;

/// A user or group: its number, or the name of a container whose own number it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserId {
    /// The number.
    Number(u32),
    /// The name of a container.
    Container(String),
}

impl Default for UserId {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl UserId {
    /// Returns whether it is root.
    pub fn is_root(&self) -> bool {
        *self == Self::Number(0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;
        impl Visitor<'_> for NumberOrName {
            type Value = UserId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or the name of a container")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<UserId, E> {
                // The highest number stands for "no change" in chown(2) and setuid(2).
                u32::try_from(number)
                    .ok()
                    .filter(|number| *number != u32::MAX)
                    .map(UserId::Number)
                    .ok_or_else(|| {
                        E::custom(format!(
                            "{number} is too large for the number of a user or group"
                        ))
                    })
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<UserId, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom(format!(
                        "{number} is not the number of a user or group; they begin at 0"
                    ))),
                }
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<UserId, E> {
                match name {
                    "" | "root" => Ok(UserId::Number(0)),
                    _ if name.bytes().all(|b| b.is_ascii_digit()) => name
                        .parse()
                        .map_err(|_| E::custom(format!("`{}` is too large a number", short(name))))
                        .and_then(|number| self.visit_u64(number)),
                    _ => Ok(UserId::Container(name.to_owned())),
                }
            }
        }
        deserializer.deserialize_any(NumberOrName)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u32(*number),
            Self::Container(name) => serializer.serialize_str(name),
        }
    }
}

impl JsonSchema for UserId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UserId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or the name of a container whose own number it is.",
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": u32::MAX - 1}, {"type": "string"}],
        })
    }
}
