use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde_saphyr::Error;

use super::place::Place;

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
}

/// Says what the parser found in our words.
pub(super) fn from_parser(file: &Arc<str>, error: &Error) -> SpecError {
    let place = Place::new(file, error.location());
    let problem = match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            // The place is told already.
            let text = text.split(" at line ").next().unwrap_or(text);
            text.strip_prefix("error: ").unwrap_or(text).to_owned()
        }
    };
    SpecError::Wrong { place, problem }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (distance(key, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min();
    if let Some((_, candidate)) = nearest {
        return format!("unknown key `{key}`; did you mean `{candidate}`?");
    }
    format!("unknown key `{key}`; known here: {}", known.join(", "))
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
