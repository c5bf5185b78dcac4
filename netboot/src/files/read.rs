//! Reads one file, as YAML (of which JSON is a part) or TOML.

use std::path::Path;

use kiln_builder::spec::{Place, Placed, SpecError, read_yaml, unknown_key};
use kiln_inventory::{DiscoveryRule, Group, NewMachine};
use serde_json::Value;
use toml::Spanned;

use super::{Described, Lists, Part};

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, or JSON.
    Yaml,
    /// TOML.
    Toml,
}

impl Format {
    /// Returns the format that the end of a name stands for.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

impl<T> Part<T> for Placed<T> {
    fn part(self, _: &str, _: &str) -> (T, Place) {
        self.into_parts()
    }
}

impl<T> Part<T> for Spanned<T> {
    fn part(self, file: &str, text: &str) -> (T, Place) {
        let before = text.get(..self.span().start).unwrap_or_default();
        (self.into_inner(), Place::behind(file, before))
    }
}

type InYaml = Lists<Placed<NewMachine>, Placed<Group>, Placed<DiscoveryRule>>;
type InToml = Lists<Spanned<NewMachine>, Spanned<Group>, Spanned<DiscoveryRule>>;

/// Reads a file. Its name is for messages.
///
/// # Errors
///
/// Says what is wrong and where.
pub fn read(file: &str, format: Format, text: &str) -> Result<Described, SpecError> {
    let described = match format {
        // A file of nothing but comments is no mistake.
        Format::Yaml => {
            let lists: Option<InYaml> = read_yaml(file, text)?;
            lists.map_or_else(Described::default, |lists| lists.described(file, text))
        }
        Format::Toml => {
            let lists: Result<InToml, _> = toml::from_str(text);
            lists.map_err(|error| wrong_toml(file, text, &error))?.described(file, text)
        }
    };
    let maps = described.wanted.machines.iter().map(|machine| &machine.metadata);
    let maps = maps.zip(&described.machines);
    let of_groups = described.wanted.groups.iter().map(|group| &group.settings.metadata);
    for (metadata, place) in maps.chain(of_groups.zip(&described.groups)) {
        if metadata.values().any(is_date) {
            let problem =
                "metadata cannot hold a date or time of TOML; put it in quotes".to_owned();
            return Err(SpecError::Wrong { place: place.clone(), problem });
        }
    }
    Ok(described)
}

/// Returns whether there is a date of TOML in a value, which JSON has no form for.
fn is_date(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.iter().any(|(key, value)| key == "$__toml_private_datetime" || is_date(value))
        }
        Value::Array(list) => list.iter().any(is_date),
        _ => false,
    }
}

fn wrong_toml(file: &str, text: &str, error: &toml::de::Error) -> SpecError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let place = Place::behind(file, before);
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    let problem = unknown(&message).unwrap_or(message);
    SpecError::Wrong { place, problem }
}

/// Says of a key that nobody knows which one was probably meant.
fn unknown(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(unknown_key(key, &known))
}
