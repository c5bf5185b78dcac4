//! Keys that take more than one form.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer, de};

use super::{CardMatch, Dhcp6, Gateways, LinkMatch};
use crate::spec::text::short;

impl<'de> Deserialize<'de> for LinkMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;
        impl<'de> Visitor<'de> for TextOrMap {
            type Value = LinkMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`boot`, the name of a card, or a map with `name`, `mac` and `driver`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LinkMatch, E> {
                if text == "boot" {
                    return Ok(LinkMatch::Boot);
                }
                pattern(text).map_err(E::custom)?;
                let name = Some(text.to_owned());
                Ok(LinkMatch::Cards(CardMatch { name, ..CardMatch::default() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LinkMatch, A::Error> {
                let cards = CardMatch::deserialize(MapAccessDeserializer::new(map))?;
                if cards == CardMatch::default() {
                    return Err(de::Error::custom("`name`, `mac` or `driver` is missing"));
                }
                for text in [&cards.name, &cards.driver].into_iter().flatten() {
                    pattern(text).map_err(de::Error::custom)?;
                }
                Ok(LinkMatch::Cards(cards))
            }
        }
        deserializer.deserialize_any(TextOrMap)
    }
}

/// Checks a pattern of names.
fn pattern(text: &str) -> Result<(), String> {
    let good = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(()) } else { Err(format!("`{}` is not a pattern of names", short(text))) }
}

impl Serialize for LinkMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Boot => serializer.serialize_str("boot"),
            Self::Cards(cards) => cards.serialize(serializer),
        }
    }
}

impl JsonSchema for LinkMatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LinkMatch".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let cards = generator.subschema_for::<CardMatch>();
        json_schema!({"anyOf": [{"type": "string"}, cards]})
    }
}

impl<'de> Deserialize<'de> for Dhcp6 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The parser hands a truth value out as it was written.
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Always),
            "false" => Ok(Self::Never),
            text => Err(de::Error::custom(format!(
                "`{}` is not `auto`, `true` or `false`",
                short(text)
            ))),
        }
    }
}

impl Serialize for Dhcp6 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Always => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_bool(false),
        }
    }
}

impl JsonSchema for Dhcp6 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dhcp6".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["auto", true, false]})
    }
}

impl<'de> Deserialize<'de> for Gateways {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Gateways;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the address of a router, or a list of two")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Gateways, E> {
                Ok(Gateways(vec![text.parse().map_err(E::custom)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Gateways, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Gateways(all))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl Serialize for Gateways {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl JsonSchema for Gateways {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Gateways".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
        ]})
    }
}
