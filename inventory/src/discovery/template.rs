//! How machines are named that a rule approves: `rack1-{n:02}`, `{vendor}-{serial}`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ATTRIBUTES, is_attribute};

/// The longest template, and the largest number that is tried.
const MAX_TEXT: usize = 256;
const MAX_NUMBER: u32 = 1_000_000;
/// The longest name of a machine.
const MAX_NAME: usize = 63;

/// A name with places that are filled with what was seen, and `{n}` for the first number whose name is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
    Number(usize),
}

/// The text is no template of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no template of a name: {1}")]
pub struct ParseTemplateError(String, String);

kiln_types::text_schemas! {
    NameTemplate: "How machines are named: letters, {n} or {n:02} for a number, and {vendor}, {serial}, {mac} …", "rack1-{n:02}";
}

impl NameTemplate {
    /// Fills in what was seen.
    ///
    /// # Errors
    ///
    /// Says what is missing, or that no name is free.
    pub fn fill(
        &self,
        values: &BTreeMap<String, String>,
        fact: impl Fn(&str) -> Option<String>,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<String, String> {
        let value = |key: &str| {
            let found = match key.strip_prefix("facts.") {
                Some(path) => fact(path),
                None => values.get(key).cloned(),
            };
            found.filter(|text| !text.is_empty()).ok_or_else(|| {
                format!("its name would be `{}`, and it has not told `{key}`", self.text)
            })
        };
        let mut found: Vec<(&Part, String)> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text.clone(),
                Part::Value(key) => value(key)?,
                Part::Number(_) => String::new(),
            };
            found.push((part, text));
        }
        let made = |number: u32| {
            let mut name = String::new();
            for (part, text) in &found {
                match part {
                    Part::Number(width) => name.push_str(&format!("{number:0width$}")),
                    _ => name.push_str(text),
                }
            }
            label(&name)
        };
        if !self.parts.iter().any(|part| matches!(part, Part::Number(_))) {
            return match made(0) {
                name if name.is_empty() => Err(format!("`{}` leaves no name", self.text)),
                name if is_taken(&name) => Err(format!("there is a machine `{name}` already")),
                name => Ok(name),
            };
        }
        let free = (1..=MAX_NUMBER).map(made).find(|name| !name.is_empty() && !is_taken(name));
        free.ok_or_else(|| format!("no name of the form `{}` is free", self.text))
    }
}

/// Makes the name of a machine of any text: small letters, digits and `-` between them.
fn label(text: &str) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() == MAX_NAME {
            break;
        }
    }
    name.trim_end_matches('-').to_owned()
}

impl FromStr for NameTemplate {
    type Err = ParseTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| ParseTemplateError(text.escape_debug().take(60).collect(), why);
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(wrong(format!("it has to have 1 to {MAX_TEXT} bytes")));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (key, behind) =
                after.split_once('}').ok_or_else(|| wrong("a `}` is missing".to_owned()))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(place(key).map_err(wrong)?);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let plain = |part: &Part| match part {
            Part::Text(text) => {
                text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            }
            _ => true,
        };
        if !parts.iter().all(plain) {
            return Err(wrong("names have small letters, digits and `-`".to_owned()));
        }
        let numbers = parts.iter().filter(|part| matches!(part, Part::Number(_))).count();
        if numbers > 1 {
            return Err(wrong("one `{n}` is enough".to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

fn place(key: &str) -> Result<Part, String> {
    if key == "n" {
        return Ok(Part::Number(0));
    }
    if let Some(width) = key.strip_prefix("n:") {
        let width = width.parse().ok().filter(|width| *width <= 9);
        return width.map(Part::Number).ok_or_else(|| "write a number as {n} or {n:02}".to_owned());
    }
    if !is_attribute(key) {
        let key: String = key.escape_debug().take(40).collect();
        return Err(format!(
            "`{{{key}}}` is nothing that is seen; use n, {} or facts.PATH",
            ATTRIBUTES.join(", ")
        ));
    }
    Ok(Part::Value(key.to_owned()))
}

impl TryFrom<String> for NameTemplate {
    type Error = ParseTemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NameTemplate> for String {
    fn from(template: NameTemplate) -> Self {
        template.text
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
