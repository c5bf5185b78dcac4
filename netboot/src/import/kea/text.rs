//! The text of Kea's settings: JSON with comments (`#`, `//`, `/* */`) and with commas behind the last of a list.

use super::super::ImportError;

/// The key under which each object has the line that it begins in.
pub(super) const LINE: &str = "@line";

/// Makes JSON of it. Comments become blanks, so that lines stay where they were, and each object is told its line.
pub(super) fn json(text: &str) -> Result<String, ImportError> {
    let mut out = Out { text: String::with_capacity(text.len() * 2), line: 1, comma: None };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (piece, after) = if c == '"' {
            rest.split_at(string(rest))
        } else if c == '#' || rest.starts_with("//") {
            rest = rest.split_at(rest.find('\n').unwrap_or(rest.len())).1;
            continue;
        } else if let Some(inside) = rest.strip_prefix("/*") {
            let (gone, after) = inside
                .split_once("*/")
                .ok_or_else(|| ImportError::at(out.line, "a comment without an end"))?;
            out.blank(gone);
            rest = after;
            continue;
        } else {
            rest.split_at(c.len_utf8())
        };
        out.push(piece);
        rest = after;
    }
    Ok(out.text)
}

/// How long the string is that a text begins with.
fn string(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return at + 1,
            '\\' => drop(letters.next()),
            _ => {}
        }
    }
    text.len()
}

struct Out {
    text: String,
    /// The line that was reached.
    line: usize,
    /// Where the last comma is, as long as only blanks are behind it.
    comma: Option<usize>,
}

impl Out {
    fn push(&mut self, piece: &str) {
        if matches!(piece, "}" | "]")
            && let Some(at) = self.comma
        {
            self.text.replace_range(at..=at, " ");
        }
        if !piece.chars().all(char::is_whitespace) {
            self.comma = None;
        }
        self.line += piece.bytes().filter(|b| *b == b'\n').count();
        if piece == "," {
            self.comma = Some(self.text.len());
        }
        self.text.push_str(piece);
        if piece == "{" {
            self.text.push_str(&format!("\"{LINE}\":{}", self.line));
            self.comma = Some(self.text.len());
            self.text.push(',');
        }
    }

    /// Leaves something out, but for its ends of lines.
    fn blank(&mut self, gone: &str) {
        let lines = gone.bytes().filter(|b| *b == b'\n').count();
        self.line += lines;
        self.text.push(' ');
        self.text.extend(std::iter::repeat_n('\n', lines));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn read(text: &str) -> Value {
        serde_json::from_str(&super::json(text).unwrap()).unwrap()
    }

    #[test]
    fn comments_and_last_commas_are_left_out_and_strings_stay_as_they_are() {
        for (text, value) in [
            ("[1, 2, ]", json!([1, 2])),
            ("[1, # one\n// two,\n 2 /* ,\n */, /* x */\n]", json!([1, 2])),
            (
                r#"["a # b", "c // d", "/* e", "f,]", "g\",}"]"#,
                json!(["a # b", "c // d", "/* e", "f,]", "g\",}"]),
            ),
            ("{}", json!({"@line": 1})),
            ("\n{ \"a\": [{}, {\n},], }", json!({"@line": 2, "a": [{"@line": 2}, {"@line": 2}]})),
            ("/* äöü\n\n */ {\"ä\": 1,}\n# end", json!({"@line": 3, "ä": 1})),
            ("{\"a\":\n\n{\"b\": 1}}", json!({"@line": 1, "a": {"@line": 3, "b": 1}})),
        ] {
            assert_eq!(read(text), value, "{text}");
        }
    }

    #[test]
    fn commas_in_the_wrong_place_are_refused() {
        for text in ["[1,,]", "[1,,2]", "{,}", "{\"a\" 1,}", "\"a", "[1],"] {
            let plain = super::json(text).unwrap();
            serde_json::from_str::<Value>(&plain).expect_err(&plain);
        }
    }
}
