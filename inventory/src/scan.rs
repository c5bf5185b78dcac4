/// Goes through a short text letter by letter and knows the column, for errors that say where.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    rest: &'a str,
    column: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { rest: text, column: 1 }
    }

    /// Returns the column of the next letter, counted from 1.
    pub(crate) const fn column(&self) -> usize {
        self.column
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = &self.rest[letter.len_utf8()..];
        self.column += 1;
        Some(letter)
    }

    /// Takes a letter if it is the next one.
    pub(crate) fn take(&mut self, letter: char) -> bool {
        let is_next = self.peek() == Some(letter);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Takes a word if it is next and ends there.
    pub(crate) fn take_word(&mut self, word: &str, is_part: impl Fn(char) -> bool) -> bool {
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        if rest.chars().next().is_some_and(is_part) {
            return false;
        }
        self.column += word.chars().count();
        self.rest = rest;
        true
    }

    /// Takes letters as long as they are of a kind.
    pub(crate) fn while_is(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !is(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.column += word.chars().count();
        self.rest = rest;
        word
    }

    pub(crate) fn space(&mut self) {
        self.while_is(char::is_whitespace);
    }

    /// Shows the next letter, for an error.
    pub(crate) fn show(&self) -> String {
        let next = self.peek();
        next.map_or_else(|| "the end".to_owned(), |letter| format!("`{}`", letter.escape_debug()))
    }
}
