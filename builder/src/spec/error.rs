use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;

use super::place::Place;
use super::text::short;

/// A specification cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read the specification `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{place}: {problem}")]
    Wrong {
        /// Where.
        place: Place,
        /// What.
        problem: String,
    },
    /// No file was given.
    #[error("no specification was given")]
    None,
    /// It cannot be written down.
    #[error("cannot write the specification as {format}: {problem}")]
    Write {
        /// The format.
        format: &'static str,
        /// Why.
        problem: String,
    },
}

impl SpecError {
    /// Says that something is wrong at a place.
    pub(super) fn wrong(place: &Place, problem: impl Into<String>) -> Self {
        Self::Wrong { place: place.clone(), problem: problem.into() }
    }
}

/// Says what the parser found in our words.
pub(super) fn from_parser(file: &Arc<str>, error: &Error) -> SpecError {
    let place = Place::new(file, error.location());
    SpecError::Wrong { place, problem: problem(error.without_snippet()) }
}

fn problem(error: &Error) -> String {
    const TOO_LARGE: &str =
        "it is too large or nested too deeply, also when its aliases are counted as often as used";
    match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            let meant =
                nearest(variant, expected).map(|meant| format!("; did you mean `{meant}`?"));
            let known = expected.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
            format!(
                "`{}` is not one of {}{}",
                short(variant),
                known.join(", "),
                meant.unwrap_or_default()
            )
        }
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{expected} is expected here, not {}", short(unexpected))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{}` is here twice", short(key))
        }
        Error::Unexpected { expected, .. } => match *expected {
            "sequence start" => "a list is expected here, as in `[a, b]`".to_owned(),
            "mapping start" => "keys and values are expected here, as in `{key: value}`".to_owned(),
            "string scalar" => "a text is expected here".to_owned(),
            other => format!("{other} is expected here"),
        },
        Error::InvalidScalar { ty, .. } => match *ty {
            "boolean" | "bool" => "`true` or `false` is expected here".to_owned(),
            ty if ty.starts_with(['i', 'u']) => {
                let bits = ty.trim_start_matches(['i', 'u']);
                let sign = if ty.starts_with('u') { ", 0 or more," } else { "" };
                format!("a whole number{sign} of {bits} bits at most is expected here")
            }
            other => format!("{other} is expected here"),
        },
        Error::InvalidBooleanStrict { .. } => "`true` or `false` is expected here".to_owned(),
        Error::NullIntoString { .. } => {
            "a text is expected here; put it in quotes if it is one".to_owned()
        }
        // The limit of one document is reached where the second begins, before the parser says what it finds there.
        Error::MultipleDocuments { .. }
        | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a second document begins here; a file holds one".to_owned()
        }
        Error::UnknownAnchor { .. } => "no anchor of this name comes before".to_owned(),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => TOO_LARGE.to_owned(),
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            // The place is told already.
            let text = text.split(" at line ").next().unwrap_or(text);
            let text = text.split(" (defined").next().unwrap_or(text);
            let text = text.strip_prefix("error: ").unwrap_or(text);
            if text.starts_with("`@pkg:") {
                return "`@pkg:` asks LinuxKit to build a package, which Kiln does not do; build and push it as an \
                        image, and write the name of that"
                    .to_owned();
            }
            if text.contains("recursion limit") || text.contains("budget breached") {
                TOO_LARGE.to_owned()
            } else {
                text.to_owned()
            }
        }
    }
}

/// Says that a key means nothing, and which one was probably meant.
pub fn unknown_key(key: &str, known: &[&str]) -> String {
    let name = short(key);
    match nearest(key, known) {
        Some(meant) => format!("unknown key `{name}`; did you mean `{meant}`?"),
        None => format!("unknown key `{name}`; known here: {}", known.join(", ")),
    }
}

/// Returns the word that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let candidates = known.iter().map(|candidate| (distance(word, candidate), *candidate));
    let near = candidates.filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3);
    near.min().map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added or dropped to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
