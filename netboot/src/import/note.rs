//! What is told of a file: why it cannot be read, and what there is no place for.

use std::collections::HashMap;
use std::fmt;

/// How many more lines a note names that say the same.
const MAX_LINES: usize = 3;

/// A file cannot be read as what it is said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}", Line(*.line))]
pub struct ImportError {
    /// Line, where one is to blame.
    pub(super) line: Option<usize>,
    pub(super) what: String,
}

impl ImportError {
    pub(super) fn at(line: usize, what: impl Into<String>) -> Self {
        Self { line: Some(line), what: what.into() }
    }

    pub(super) fn whole(what: impl Into<String>) -> Self {
        Self { line: None, what: what.into() }
    }

    /// Says of a text of JSON what is wrong with it. The column is none of the file where comments were taken out.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
        Self::at(error.line(), what)
    }
}

/// Something that a file says and Kiln has no place for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which of the files says it.
    pub file: usize,
    line: Option<usize>,
    what: String,
    /// Further lines of which the same is true.
    also: Vec<usize>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Line(self.line), self.what)?;
        let shown: Vec<_> = self.also.iter().take(MAX_LINES).map(ToString::to_string).collect();
        match (shown.as_slice(), self.also.len().saturating_sub(MAX_LINES)) {
            ([], _) => Ok(()),
            ([one], _) => write!(f, " (also in line {one})"),
            (several, 0) => write!(f, " (also in lines {})", several.join(", ")),
            (several, more) => write!(f, " (also in lines {} and {more} more)", several.join(", ")),
        }
    }
}

struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

/// Notes of several files. What is true of many lines of a file is one note.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: Vec<Note>,
    said: HashMap<(usize, String), usize>,
}

impl Notes {
    pub(super) fn add(&mut self, file: usize, line: Option<usize>, what: String) {
        let said = self.said.entry((file, what));
        let what = said.key().1.clone();
        let at = *said.or_insert(self.list.len());
        match self.list.get_mut(at) {
            None => self.list.push(Note { file, line, what, also: Vec::new() }),
            Some(note) => {
                let new =
                    line.filter(|line| note.line != Some(*line) && !note.also.ends_with(&[*line]));
                note.also.extend(new);
            }
        }
    }

    /// Takes over the notes of one file.
    pub(super) fn extend(&mut self, file: usize, notes: Self) {
        for note in notes.list {
            let lines = std::iter::once(note.line).chain(note.also.into_iter().map(Some));
            for line in lines {
                self.add(file, line, note.what.clone());
            }
        }
    }

    /// Returns them in the order of the files and their lines.
    pub(super) fn sorted(self) -> Vec<Note> {
        let mut list = self.list;
        list.sort_by_key(|note| (note.file, note.line));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_true_of_many_lines_is_said_once_with_the_first_of_them() {
        let mut page = Notes::default();
        for line in [9, 9, 10, 10, 12, 14, 15] {
            page.add(0, Some(line), "`x` is left out".to_owned());
        }
        page.add(0, Some(2), "`y` is left out".to_owned());
        page.add(0, Some(3), "`y` is left out".to_owned());
        page.add(0, None, "`z` is left out".to_owned());
        page.add(0, None, "`z` is left out".to_owned());
        let mut all = Notes::default();
        all.add(1, Some(1), "`y` is left out".to_owned());
        all.extend(0, page);
        let notes = all.sorted();
        let texts: Vec<_> = notes.iter().map(|note| (note.file, note.to_string())).collect();
        let expected = [
            (0, "`z` is left out".to_owned()),
            (0, "line 2: `y` is left out (also in line 3)".to_owned()),
            (0, "line 9: `x` is left out (also in lines 10, 12, 14 and 1 more)".to_owned()),
            (1, "line 1: `y` is left out".to_owned()),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn an_error_of_json_says_its_line_once() {
        let error = serde_json::from_str::<serde_json::Value>("{\n\"a\" 1}").unwrap_err();
        assert_eq!(ImportError::json(&error).to_string(), "line 2: expected `:`");
    }
}
