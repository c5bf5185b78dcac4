//! How answers are printed: the one place where a list, or one thing, becomes text for people or for programs.

mod grid;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

pub(super) use self::screen::{Painter, size as screen_size};
use super::{ClientArgs, Failure, Output};

/// A column of a list.
pub(super) struct Column<T> {
    title: &'static str,
    /// Only with `-o wide`.
    wide: bool,
    cell: fn(&T) -> String,
}

/// A column that every table has.
pub(super) const fn col<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { title, wide: false, cell }
}

/// A column of wide tables.
pub(super) const fn more<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { title, wide: true, cell }
}

/// What can be listed.
pub(super) trait Listed: Serialize + Sized {
    /// What a table shows of it.
    fn columns() -> Vec<Column<Self>>;
    /// What other commands call it.
    fn name(&self) -> String;
}

/// What the command line says about printing.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) output: Output,
    pub(super) no_headers: bool,
    /// Columns of the terminal; nothing where there is none, so that nothing is cut.
    pub(super) width: Option<usize>,
}

impl How {
    pub(super) fn of(args: &ClientArgs) -> Self {
        Self { no_headers: args.no_headers, ..Self::new(args.output) }
    }

    pub(super) fn new(output: Output) -> Self {
        Self { output, no_headers: false, width: screen::size().map(|(width, _)| width) }
    }
}

impl From<&ClientArgs> for How {
    fn from(args: &ClientArgs) -> Self {
        Self::of(args)
    }
}

/// Prints a list.
pub(super) fn list<T: Listed>(how: impl Into<How>, items: &[T]) -> Result<(), Failure> {
    say(&listed(how.into(), items)?)
}

/// Writes a list as text.
pub(super) fn listed<T: Listed>(how: How, items: &[T]) -> Result<String, Failure> {
    Ok(match how.output {
        Output::Table | Output::Wide => rows(how, items).join("\n"),
        Output::Json | Output::Yaml => value(how.output, &items)?,
        Output::Jsonl => {
            let lines = items.iter().map(|item| value(how.output, item));
            lines.collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Output::Name => {
            let mut names: Vec<String> =
                items.iter().map(|item| super::table::plain(&item.name())).collect();
            names.dedup();
            names.join("\n")
        }
    })
}

/// Returns the lines of a table: the one with the titles, where it is wanted, and one for each item.
pub(super) fn rows<T: Listed>(how: How, items: &[T]) -> Vec<String> {
    let mut columns = T::columns();
    columns.retain(|column| !column.wide || how.output == Output::Wide);
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let cells = items.iter().map(|item| columns.iter().map(|column| (column.cell)(item)).collect());
    grid::lines(&titles, cells.collect(), how.width, !how.no_headers)
}

/// Prints one thing: in the words of the caller for people, or else as it came.
pub(super) fn one<T: Serialize>(
    how: impl Into<How>,
    name: &str,
    value: &T,
    words: impl FnOnce() -> String,
) -> Result<(), Failure> {
    say(&shown(how.into(), name, value, words)?)
}

/// Writes one thing as text.
pub(super) fn shown<T: Serialize>(
    how: How,
    name: &str,
    thing: &T,
    words: impl FnOnce() -> String,
) -> Result<String, Failure> {
    match how.output {
        Output::Table | Output::Wide => Ok(words().trim_end().to_owned()),
        Output::Name => Ok(super::table::plain(name)),
        output => value(output, thing),
    }
}

/// Writes a value for programs.
pub(super) fn value(output: Output, value: &impl Serialize) -> Result<String, Failure> {
    Ok(match output {
        Output::Yaml => {
            // By way of JSON, so that both say the same.
            let text = serde_saphyr::to_string(&serde_json::to_value(value)?);
            text.map_err(|error| anyhow::anyhow!("{error}"))?.trim_end().to_owned()
        }
        Output::Jsonl => serde_json::to_string(value)?,
        _ => serde_json::to_string_pretty(value)?,
    })
}

/// Prints a text and a line break; nothing where there is no text. Who reads no further wanted no more.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether standard output is a terminal that may be coloured.
pub(super) fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        name: &'static str,
        text: &'static str,
    }

    impl Listed for Thing {
        fn columns() -> Vec<Column<Self>> {
            vec![
                col("name", |it: &Self| it.name.to_owned()),
                more("long", |it| format!("{}{}", it.text, it.text)),
                col("text", |it| it.text.to_owned()),
            ]
        }

        fn name(&self) -> String {
            self.name.to_owned()
        }
    }

    fn how(output: Output) -> How {
        How { output, no_headers: false, width: None }
    }

    #[test]
    fn a_list_has_the_same_things_in_every_form() {
        let things =
            [Thing { name: "a", text: "x: 1" }, Thing { name: "bb", text: "\u{1b}[2Jyes" }];
        let text = |output| listed(how(output), &things).unwrap();
        assert_eq!(text(Output::Table), "NAME  TEXT\na     x: 1\nbb    [2Jyes");
        assert_eq!(
            text(Output::Wide),
            "NAME  LONG          TEXT\na     x: 1x: 1      x: 1\nbb    [2Jyes[2Jyes  [2Jyes"
        );
        assert_eq!(text(Output::Name), "a\nbb");
        let lines: Vec<serde_json::Value> =
            text(Output::Jsonl).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let json: Vec<serde_json::Value> = serde_json::from_str(&text(Output::Json)).unwrap();
        let yaml: Vec<serde_json::Value> = serde_saphyr::from_str(&text(Output::Yaml)).unwrap();
        assert_eq!((&lines, &lines), (&json, &yaml));
        assert!(!text(Output::Json).contains('\u{1b}') && !text(Output::Jsonl).contains('\u{1b}'));
        let bare = How { no_headers: true, ..how(Output::Table) };
        assert_eq!(listed(bare, &things[..1]).unwrap(), "a     x: 1");
        assert_eq!(listed(bare, &[] as &[Thing]).unwrap(), "");
        assert_eq!(listed(how(Output::Json), &[] as &[Thing]).unwrap(), "[]");
    }

    #[test]
    fn one_thing_is_in_words_or_as_it_came() {
        let thing = Thing { name: "a", text: "no" };
        let text =
            |output| shown(how(output), thing.name, &thing, || "words\n".to_owned()).unwrap();
        assert_eq!((text(Output::Table), text(Output::Wide)), ("words".into(), "words".into()));
        assert_eq!(text(Output::Name), "a");
        assert_eq!(text(Output::Jsonl), r#"{"name":"a","text":"no"}"#);
        let yaml: serde_json::Value = serde_saphyr::from_str(&text(Output::Yaml)).unwrap();
        assert_eq!(yaml["text"], "no", "a text stays one");
    }
}
