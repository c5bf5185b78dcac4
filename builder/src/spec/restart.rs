//! When a service is started again.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::health::Period;
use super::text::short;

/// When a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whenever it has ended.
    #[default]
    Always,
    /// When it has failed.
    OnFailure,
    /// Never.
    Never,
}

/// When a service is started again, and after which pause: a word, or a map of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartSpec {
    /// When.
    pub policy: RestartPolicy,
    /// Pause after the first end, which doubles with each that follows; 500 ms.
    pub delay: Option<Period>,
    /// The longest pause; 30 s.
    pub max_delay: Option<Period>,
}

/// The same, written as a map.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
#[derive(Default)]
struct Map {
    /// When a service is started again; `always`.
    policy: RestartPolicy,
    /// Pause after the first end, which doubles with each that follows; `500ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Period>,
    /// The longest pause; `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_delay: Option<Period>,
}

impl RestartSpec {
    /// Returns what is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        let (delay, max) = (self.delay?, self.max_delay?);
        (max.duration() < delay.duration())
            .then(|| format!("`max-delay` {max} is shorter than `delay` {delay}"))
    }
}

impl Serialize for RestartSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { policy, delay, max_delay } = *self;
        if delay.is_none() && max_delay.is_none() {
            return policy.serialize(serializer);
        }
        Map { policy, delay, max_delay }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RestartSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;
        impl<'de> Visitor<'de> for WordOrMap {
            type Value = RestartSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`always`, `on-failure`, `never`, or a map with `policy`, `delay` and `max-delay`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RestartSpec, E> {
                let policy = match word {
                    "always" => RestartPolicy::Always,
                    "on-failure" => RestartPolicy::OnFailure,
                    "never" => RestartPolicy::Never,
                    _ => {
                        let words = &["always", "on-failure", "never"];
                        return Err(E::unknown_variant(&short(word), words));
                    }
                };
                Ok(RestartSpec { policy, ..RestartSpec::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RestartSpec, A::Error> {
                let Map { policy, delay, max_delay } =
                    Map::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RestartSpec { policy, delay, max_delay })
            }
        }
        deserializer.deserialize_any(WordOrMap)
    }
}

impl JsonSchema for RestartSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RestartSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (word, map) =
            (generator.subschema_for::<RestartPolicy>(), generator.subschema_for::<Map>());
        json_schema!({"anyOf": [word, map]})
    }
}
