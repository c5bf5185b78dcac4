//! Which machines are meant: `rack=r1, role in (web,db), !broken`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::scan::Scanner;

/// Longest text.
const MAX_TEXT: usize = 4096;
/// Most terms, and most values of one term.
const MAX_TERMS: usize = 64;
/// Longest key and longest value, in bytes.
const MAX_WORD: usize = 256;

/// Terms about labels, all of which have to hold. Written with commas between them:
///
/// ```text
/// rack=r1            the label is there and has this value
/// rack!=r1           it has another value or is not there
/// rack in (r1,r2)    it has one of these values
/// rack               it is there
/// !rack              it is not there
/// *                  every machine
/// ```
///
/// A value with other letters than these of names goes in quotes: `rack="row 1"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    terms: Vec<Term>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label has another value or is missing.
    IsNot(String, String),
    /// The label is there.
    Has(String),
    /// The label is missing.
    HasNot(String),
}

kiln_types::text_schemas! {
    Selector: "Terms about labels with commas between them, or * for every machine", "role=web,rack in (r1,r2)";
}

/// The text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector, column {column}: {problem}")]
pub struct ParseSelectorError {
    /// Where, counted from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Selector {
    /// Selects every machine.
    pub const fn every() -> Self {
        Self { terms: Vec::new() }
    }

    /// Returns the conditions. None of them is every machine.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Returns whether a machine with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// Returns whether something is meant whose values a function finds.
    pub fn matches_by<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| match term {
            Term::In(key, values) => value(key).is_some_and(|is| values.iter().any(|v| v == is)),
            Term::IsNot(key, other) => value(key) != Some(other),
            Term::Has(key) => value(key).is_some(),
            Term::HasNot(key) => value(key).is_none(),
        })
    }
}

/// Whether a letter may stand in a word without quotes.
const fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/' | ':' | '+' | '@')
}

/// Returns whether a label can have this name: selectors write it without quotes.
pub fn is_label(text: &str) -> bool {
    is_word(text)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_plain)
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut scan = Scanner::new(text);
        let at = |column, problem: &str| ParseSelectorError { column, problem: problem.to_owned() };
        if text.len() > MAX_TEXT {
            return Err(at(1, &format!("it is longer than {MAX_TEXT} bytes")));
        }
        scan.space();
        if scan.take('*') {
            scan.space();
            let rest = "nothing can follow `*`, which is every machine";
            return if scan.is_done() { Ok(Self::every()) } else { Err(at(scan.column(), rest)) };
        }
        if scan.is_done() {
            return Err(at(1, "it is empty; write LABEL=VALUE, or `*` for every machine"));
        }
        let mut terms = Vec::new();
        loop {
            if terms.len() == MAX_TERMS {
                return Err(at(scan.column(), &format!("it has more than {MAX_TERMS} terms")));
            }
            terms.push(term(&mut scan)?);
            scan.space();
            if scan.is_done() {
                return Ok(Self { terms });
            }
            if !scan.take(',') {
                let found = scan.show();
                return Err(at(
                    scan.column(),
                    &format!("{found} where a comma or the end belongs"),
                ));
            }
            scan.space();
        }
    }
}

fn term(scan: &mut Scanner<'_>) -> Result<Term, ParseSelectorError> {
    if scan.take('!') {
        scan.space();
        return Ok(Term::HasNot(word(scan, "the name of a label")?));
    }
    let key = word(scan, "the name of a label")?;
    scan.space();
    if scan.take('!') {
        if !scan.take('=') {
            return Err(wrong(scan, "`=` belongs after `!`: LABEL!=VALUE"));
        }
        scan.space();
        return Ok(Term::IsNot(key, value(scan)?));
    }
    if scan.take('=') {
        // Two of them are common in other tools and mean the same.
        scan.take('=');
        scan.space();
        return Ok(Term::In(key, vec![value(scan)?]));
    }
    if scan.take_word("in", is_plain) {
        scan.space();
        return Ok(Term::In(key, values(scan)?));
    }
    Ok(Term::Has(key))
}

fn values(scan: &mut Scanner<'_>) -> Result<Vec<String>, ParseSelectorError> {
    if !scan.take('(') {
        return Err(wrong(scan, "`(` belongs after `in`: LABEL in (VALUE,VALUE)"));
    }
    let mut values = Vec::new();
    loop {
        if values.len() == MAX_TERMS {
            return Err(wrong(scan, &format!("there are more than {MAX_TERMS} values")));
        }
        scan.space();
        values.push(value(scan)?);
        scan.space();
        if scan.take(')') {
            return Ok(values);
        }
        if !scan.take(',') {
            return Err(wrong(scan, "`,` or `)` belongs here"));
        }
    }
}

/// Reads a value: a word, or a text in quotes, in which `\` makes the letter after it plain.
fn value(scan: &mut Scanner<'_>) -> Result<String, ParseSelectorError> {
    if !scan.take('"') {
        return word(scan, "a value");
    }
    let mut text = String::new();
    loop {
        match scan.next() {
            None => return Err(wrong(scan, "a `\"` is missing at the end of the value")),
            Some('"') => return Ok(text),
            Some('\\') => match scan.next() {
                Some(letter) => text.push(letter),
                None => return Err(wrong(scan, "a `\"` is missing at the end of the value")),
            },
            Some(letter) => text.push(letter),
        }
        if text.len() > MAX_WORD {
            return Err(wrong(scan, &format!("the value is longer than {MAX_WORD} bytes")));
        }
    }
}

fn word(scan: &mut Scanner<'_>, what: &str) -> Result<String, ParseSelectorError> {
    let column = scan.column();
    let word = scan.while_is(is_plain);
    let problem = match word.len() {
        0 if scan.is_done() => format!("{what} is missing"),
        0 => format!("{} where {what} belongs; other letters go in quotes", scan.show()),
        1..=MAX_WORD => return Ok(word.to_owned()),
        _ => format!("{what} is longer than {MAX_WORD} bytes"),
    };
    Err(ParseSelectorError { column, problem })
}

fn wrong(scan: &Scanner<'_>, problem: &str) -> ParseSelectorError {
    ParseSelectorError { column: scan.column(), problem: problem.to_owned() }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.pad("*");
        }
        let terms: Vec<String> = self.terms.iter().map(ToString::to_string).collect();
        f.pad(&terms.join(","))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) => match values.as_slice() {
                [value] => write!(f, "{key}={}", quoted(value)),
                _ => {
                    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                    write!(f, "{key} in ({})", values.join(","))
                }
            },
            Self::IsNot(key, value) => write!(f, "{key}!={}", quoted(value)),
            Self::Has(key) => f.write_str(key),
            Self::HasNot(key) => write!(f, "!{key}"),
        }
    }
}

fn quoted(value: &str) -> String {
    if is_word(value) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for letter in value.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text + "\""
}

impl TryFrom<String> for Selector {
    type Error = ParseSelectorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_form_of_a_term_selects_what_it_says() {
        let one = labels(&[("rack", "r1"), ("role", "web"), ("note", "row 1, left")]);
        for (text, selected) in [
            ("*", true),
            ("rack=r1", true),
            ("rack==r1", true),
            (" rack = r1 , role=web ", true),
            ("rack=r1,role=db", false),
            ("rack!=r2", true),
            ("rack!=r1", false),
            ("gone!=r1", true),
            ("role in (db,web)", true),
            ("role in ( db , \"x\" )", false),
            ("role", true),
            ("gone", false),
            ("!gone", true),
            ("! role", false),
            (r#"note="row 1, left""#, true),
            ("note=\"\"", false),
            // `in` alone and names that begin with it are labels.
            ("in", false),
            ("!index", true),
        ] {
            let selector: Selector = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&one), selected, "{text}");
            assert_eq!(selector.to_string().parse(), Ok(selector), "{text}");
        }
    }

    #[test]
    fn errors_name_the_column_and_what_belongs_there() {
        for (text, column, part) in [
            ("", 1, "empty"),
            ("  ", 1, "empty"),
            ("=x", 1, "`=` where the name of a label belongs"),
            ("rack=", 6, "a value is missing"),
            ("rack=r1,", 9, "the name of a label is missing"),
            ("rack!r1", 6, "LABEL!=VALUE"),
            ("rack=r1 role=web", 9, "`r` where a comma or the end belongs"),
            ("rack in r1", 9, "`(` belongs"),
            ("rack in (r1", 12, "`,` or `)`"),
            ("rack in ()", 10, "`)` where a value belongs"),
            ("rack=\"r1", 9, "missing at the end"),
            ("*,a", 2, "nothing can follow"),
            ("rack=ü", 6, "`ü` where a value belongs"),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.problem.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn hostile_texts_are_refused_and_bounded() {
        let many = vec!["a"; 65].join(",");
        let values = format!("a in ({})", vec!["b"; 65].join(","));
        let long = format!("a={}", "b".repeat(257));
        let quoted = format!("a=\"{}\"", "b".repeat(300));
        for text in [&many, &values, &long, &quoted, &"a".repeat(5000), &"\\".repeat(50)] {
            assert!(text.parse::<Selector>().is_err(), "{}", &text[..20.min(text.len())]);
        }
        for text in ["\0", "a=\u{202e}", "a=b\n", "((((", "!!a", "a in (", "a=\"\\"] {
            let error = text.parse::<Selector>();
            assert!(
                error.is_err() || error.is_ok_and(|s| s.to_string().parse() == Ok(s)),
                "{text}"
            );
        }
    }

    #[test]
    fn fuzzed_selectors_are_read_or_refused_and_mean_what_they_say() {
        let samples: [&[u8]; 4] = [
            b"rack=r1,role!=web",
            b"rack in (r1, \"r 2\"),!old",
            b"*",
            b"facts.system.product=\"R640\\\"\"",
        ];
        kiln_fuzz::check("selector", &samples, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match text.parse::<Selector>() {
                Ok(selector) => assert_eq!(selector.to_string().parse(), Ok(selector)),
                Err(error) => assert!(error.column <= text.chars().count() + 1, "{error}"),
            }
        });
    }
}
