//! What a change would do, field by field.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::print::{self, How};
use super::table::plain;
use super::{Failure, Output};
use crate::api::{FieldChange, Preview};

const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const PLAIN: &str = "\u{1b}[0m";

/// What a change would do to one thing.
#[derive(Debug, Serialize)]
pub(super) struct Would {
    /// Its name.
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) preview: Preview,
}

/// Prints what would be done.
pub(super) fn print(how: impl Into<How>, all: &[Would]) -> Result<(), Failure> {
    let how = how.into();
    match how.output {
        Output::Table | Output::Wide => {
            let coloured = print::coloured();
            let texts: Vec<String> = all.iter().map(|would| text(would, coloured)).collect();
            print::say(&texts.join("\n"))
        }
        Output::Name => {
            // Those to which something would be done.
            let changed = all.iter().filter(|would| would.preview.would != "nothing");
            print::say(&changed.map(|would| plain(&would.name)).collect::<Vec<_>>().join("\n"))
        }
        Output::Jsonl => {
            all.iter().try_for_each(|would| print::say(&print::value(how.output, would)?))
        }
        output => print::say(&print::value(output, &all)?),
    }
}

/// Writes it for people: what goes in red, what comes in green.
pub(super) fn text(would: &Would, coloured: bool) -> String {
    let Would { name, preview } = would;
    let what = match preview.would.as_str() {
        "add" => "would be added",
        "change" => "would change",
        "remove" => "would be removed",
        _ => "stays as it is",
    };
    let mut text = format!("{}: {what}", plain(name));
    for FieldChange { field, before, after } in &preview.diff {
        for (mark, colour, value) in [('-', RED, before), ('+', GREEN, after)] {
            let Some(value) = value.as_ref().filter(|value| !value.is_null()) else { continue };
            let line = format!("{mark} {}: {}", dotted(field), shown(value));
            let (on, off) = if coloured { (colour, PLAIN) } else { ("", "") };
            let _ = write!(text, "\n  {on}{line}{off}");
        }
    }
    text
}

/// Writes a JSON pointer as people write it: `labels.rack`.
fn dotted(pointer: &str) -> String {
    let parts = pointer.trim_start_matches('/').split('/');
    let parts = parts.map(|part| part.replace("~1", "/").replace("~0", "~"));
    plain(&parts.collect::<Vec<_>>().join("."))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => plain(text),
        other => plain(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn would() -> Would {
        let preview = json!({"would": "change", "diff": [
            {"field": "/image", "before": "web", "after": "web:edge"},
            {"field": "/labels/a~1b", "after": "\u{1b}[2J"},
            {"field": "/macs", "before": ["52:54:00:00:00:01"], "after": null},
        ]});
        Would { name: "n1".to_owned(), preview: serde_json::from_value(preview).unwrap() }
    }

    #[test]
    fn each_field_that_changes_has_a_line_for_what_goes_and_what_comes() {
        assert_eq!(
            text(&would(), false),
            "n1: would change\n  - image: web\n  + image: web:edge\n  + labels.a/b: [2J\n  - macs: [\"52:54:00:00:00:01\"]"
        );
    }

    #[test]
    fn colours_end_where_they_begin() {
        let text = text(&would(), true);
        assert_eq!(text.matches(PLAIN).count(), 4);
        assert_eq!((text.matches(RED).count(), text.matches(GREEN).count()), (2, 2));
        assert!(text.lines().skip(1).all(|line| line.ends_with(PLAIN)));
    }

    #[test]
    fn what_stays_is_said_too() {
        let preview = Preview { would: "nothing".to_owned(), after: None, diff: Vec::new() };
        assert_eq!(text(&Would { name: "n1".to_owned(), preview }, true), "n1: stays as it is");
    }
}
