//! The words of a file.

use super::super::ImportError;

pub(super) enum Word {
    Open,
    Close,
    End,
    /// A word, and its bytes where it is in quotes.
    Text(String, Option<Vec<u8>>),
}

/// Reads the three digits by which a byte is written that cannot be printed.
fn octal(text: &str) -> Option<u8> {
    let digits = text.get(..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    u8::from_str_radix(digits, 8).ok()
}

/// The words of a file. Comments run from `#` to the end of the line.
pub(super) struct Words<'a> {
    rest: &'a str,
    /// The line that was reached.
    pub(super) line: usize,
}

impl<'a> Words<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    pub(super) fn next(&mut self) -> Result<Option<Word>, ImportError> {
        loop {
            let Some(c) = self.rest.chars().next() else { return Ok(None) };
            match c {
                '#' => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
                '{' | '}' | ';' => {
                    self.skip(1);
                    return Ok(Some(match c {
                        '{' => Word::Open,
                        '}' => Word::Close,
                        _ => Word::End,
                    }));
                }
                '"' => return self.quoted().map(Some),
                c if c.is_whitespace() => self.skip(c.len_utf8()),
                _ => {
                    let stop =
                        |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '#' | '"');
                    let end = self.rest.find(stop).unwrap_or(self.rest.len());
                    let word = self.rest.get(..end).unwrap_or_default().to_owned();
                    self.skip(end);
                    return Ok(Some(Word::Text(word, None)));
                }
            }
        }
    }

    fn quoted(&mut self) -> Result<Word, ImportError> {
        let start = self.line;
        let (mut text, mut bytes) = (String::new(), Vec::new());
        let quoted = self.rest;
        let mut letters = quoted.char_indices().skip(1);
        while let Some((at, c)) = letters.next() {
            let letter = match c {
                '"' => {
                    self.skip(at + 1);
                    return Ok(Word::Text(text, Some(bytes)));
                }
                '\\' => match octal(quoted.get(at + 1..).unwrap_or_default()) {
                    Some(byte) => {
                        text.push(char::from(byte));
                        bytes.push(byte);
                        letters.nth(2);
                        continue;
                    }
                    None => letters.next().map(|(_, c)| c),
                },
                c => Some(c),
            };
            if let Some(letter) = letter {
                text.push(letter);
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Err(ImportError::at(start, "a `\"` without its partner"))
    }

    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += gone.bytes().filter(|b| *b == b'\n').count();
        self.rest = rest;
    }
}
