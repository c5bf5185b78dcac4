//! The watchdog of the hardware.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::health::Period;
use super::text::short;
use super::{InitSpec, Spec};

/// The times that kiln-init can keep and hardware can count.
const TIMES: std::ops::RangeInclusive<u64> = 5..=3600;

/// What is made of the hardware's watchdog: a word, or a map with its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogSpec {
    /// Where there is one, it resets a machine that hangs for 30 s.
    #[default]
    Auto,
    /// It is left alone.
    Off,
    /// It resets a machine that hangs for this long; that there is none is told.
    Timeout(Period),
}

/// The same, written as a map.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Map {
    /// How long a machine hangs until it is reset, 5 s to 1 h.
    timeout: Period,
}

/// The same, written as a word.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Word {
    Auto,
    Off,
}

impl WatchdogSpec {
    /// Returns what kiln-init reads: milliseconds, 0 for never.
    pub(crate) fn millis(self) -> Option<u64> {
        match self {
            Self::Auto => None,
            Self::Off => Some(0),
            Self::Timeout(period) => {
                Some(u64::try_from(period.duration().as_millis()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Returns what is wrong with it.
    pub(super) fn problem(self, spec: &Spec) -> Option<String> {
        let kiln = spec.init.is_empty() || spec.init.iter().any(|it| **it == InitSpec::Kiln);
        if !kiln {
            return Some("`watchdog` is fed by kiln-init; add `init: [kiln]`".to_owned());
        }
        let Self::Timeout(period) = self else { return None };
        (!TIMES.contains(&period.duration().as_secs()))
            .then(|| format!("`timeout` {period} of `watchdog` is not from 5s to 1h"))
    }
}

impl Serialize for WatchdogSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Auto => Word::Auto.serialize(serializer),
            Self::Off => Word::Off.serialize(serializer),
            Self::Timeout(timeout) => Map { timeout }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WatchdogSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;
        impl<'de> Visitor<'de> for WordOrMap {
            type Value = WatchdogSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `off`, or a map with `timeout`")
            }

            // What `off` is to some readers of YAML.
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<WatchdogSpec, E> {
                Ok(if on { WatchdogSpec::Auto } else { WatchdogSpec::Off })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<WatchdogSpec, E> {
                match word {
                    "auto" => Ok(WatchdogSpec::Auto),
                    "off" => Ok(WatchdogSpec::Off),
                    _ => Err(E::unknown_variant(&short(word), &["auto", "off"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WatchdogSpec, A::Error> {
                let Map { timeout } = Map::deserialize(MapAccessDeserializer::new(map))?;
                Ok(WatchdogSpec::Timeout(timeout))
            }
        }
        deserializer.deserialize_any(WordOrMap)
    }
}

impl JsonSchema for WatchdogSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WatchdogSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (word, map) = (generator.subschema_for::<Word>(), generator.subschema_for::<Map>());
        json_schema!({"anyOf": [word, map]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_a_word_or_a_time_and_comes_out_as_it_went_in() {
        for (text, millis) in
            [(r#""auto""#, None), (r#""off""#, Some(0)), (r#"{"timeout":"10s"}"#, Some(10_000))]
        {
            let spec: WatchdogSpec = serde_json::from_str(text).unwrap();
            assert_eq!(spec.millis(), millis);
            assert_eq!(spec.problem(&Spec::default()), None);
            assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        }
    }

    #[test]
    fn times_that_no_hardware_counts_and_other_words_are_refused() {
        for text in [r#"{"timeout":"1s"}"#, r#"{"timeout":"2h"}"#] {
            let spec: WatchdogSpec = serde_json::from_str(text).unwrap();
            assert!(spec.problem(&Spec::default()).unwrap().ends_with("is not from 5s to 1h"));
        }
        for text in [r#""on""#, r#"{"time":"10s"}"#, "5"] {
            assert!(serde_json::from_str::<WatchdogSpec>(text).is_err(), "{text}");
        }
    }
}
