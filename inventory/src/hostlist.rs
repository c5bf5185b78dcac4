//! Many names in one word: `rack1-n[01-40]`.

use crate::scan::Scanner;

/// Most names that one list may stand for.
const MAX_NAMES: usize = 100_000;
/// Longest text, and longest name that comes out.
const MAX_TEXT: usize = 4096;
const MAX_NAME: usize = 255;
/// Most brackets in one name.
const MAX_BRACKETS: usize = 8;
/// Most digits of a number.
const MAX_DIGITS: usize = 18;

/// The text is no list of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("list of names, column {column}: {problem}")]
pub struct ParseHostlistError {
    /// Where, counted from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Returns the names that a list stands for, in its order: `n[1-3,7],gw` are `n1`, `n2`, `n3`, `n7` and `gw`. A number
/// with leading zeros keeps its width, and several brackets in one name are all combinations.
///
/// # Errors
///
/// When the text is malformed or stands for more than 100 000 names.
pub fn expand_hostlist(text: &str) -> Result<Vec<String>, ParseHostlistError> {
    let mut scan = Scanner::new(text);
    if text.len() > MAX_TEXT {
        return Err(wrong(1, format!("it is longer than {MAX_TEXT} bytes")));
    }
    let mut names = Vec::new();
    loop {
        scan.space();
        let column = scan.column();
        let parts = one(&mut scan)?;
        if parts.is_empty() {
            let problem = match scan.peek() {
                None => "a name is missing".to_owned(),
                Some(_) => format!("{} where a name belongs", scan.show()),
            };
            return Err(wrong(scan.column(), problem));
        }
        combine(&parts, column, &mut names)?;
        scan.space();
        if scan.is_done() {
            return Ok(names);
        }
        if !scan.take(',') {
            let problem = format!("{} where a comma or the end belongs", scan.show());
            return Err(wrong(scan.column(), problem));
        }
    }
}

fn wrong(column: usize, problem: impl Into<String>) -> ParseHostlistError {
    ParseHostlistError { column, problem: problem.into() }
}

/// A part of a name: as it is, or one of several numbers.
enum Part<'a> {
    Text(&'a str),
    Numbers(Vec<Range>),
}

struct Range {
    from: u64,
    to: u64,
    /// How many digits, at least.
    width: usize,
}

impl Part<'_> {
    /// Returns how many bytes of a name it makes, at most.
    fn longest(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Numbers(ranges) => {
                let length = |range: &Range| range.width.max(range.to.to_string().len());
                ranges.iter().map(length).max().unwrap_or_default()
            }
        }
    }
}

impl Range {
    const fn count(&self) -> u64 {
        // Both ends have at most 18 digits.
        self.to - self.from + 1
    }
}

fn one<'a>(scan: &mut Scanner<'a>) -> Result<Vec<Part<'a>>, ParseHostlistError> {
    let mut parts = Vec::new();
    let mut brackets = 0;
    loop {
        let text = scan.while_is(|c| !c.is_whitespace() && !c.is_control() && !"[],".contains(c));
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        match scan.peek() {
            Some('[') => {
                brackets += 1;
                if brackets > MAX_BRACKETS {
                    let problem = format!("a name has more than {MAX_BRACKETS} brackets");
                    return Err(wrong(scan.column(), problem));
                }
                scan.next();
                parts.push(Part::Numbers(ranges(scan)?));
            }
            Some(']') => return Err(wrong(scan.column(), "`]` without a `[` before it")),
            _ => return Ok(parts),
        }
    }
}

fn ranges(scan: &mut Scanner<'_>) -> Result<Vec<Range>, ParseHostlistError> {
    let mut ranges = Vec::new();
    loop {
        let column = scan.column();
        let first = digits(scan)?;
        let last = if scan.take('-') { digits(scan)? } else { first };
        let number = |text: &str| text.parse().map_err(|_| wrong(column, "no number"));
        let (from, to): (u64, u64) = (number(first)?, number(last)?);
        if from > to {
            let problem = format!("{first}-{last} runs backwards; write {last}-{first}");
            return Err(wrong(column, problem));
        }
        let padded = first.len() > 1 && first.starts_with('0');
        if last.len() < first.len() || (last.len() > first.len() && last.starts_with('0')) {
            let problem = format!("{first} and {last} are not written with as many digits");
            return Err(wrong(column, problem));
        }
        ranges.push(Range { from, to, width: if padded { first.len() } else { 1 } });
        if scan.take(']') {
            return Ok(ranges);
        }
        if !scan.take(',') {
            let problem = format!("{} where `-`, `,` or `]` belongs", scan.show());
            return Err(wrong(scan.column(), problem));
        }
    }
}

fn digits<'a>(scan: &mut Scanner<'a>) -> Result<&'a str, ParseHostlistError> {
    let column = scan.column();
    let digits = scan.while_is(|c| c.is_ascii_digit());
    match digits.len() {
        0 => Err(wrong(column, format!("{} where a number belongs", scan.show()))),
        1..=MAX_DIGITS => Ok(digits),
        _ => Err(wrong(column, format!("the number has more than {MAX_DIGITS} digits"))),
    }
}

/// Adds every combination of the parts. How many there are is settled before the first is made.
fn combine(
    parts: &[Part<'_>],
    column: usize,
    names: &mut Vec<String>,
) -> Result<(), ParseHostlistError> {
    let count = parts.iter().try_fold(1_u64, |count, part| match part {
        Part::Text(_) => Some(count),
        Part::Numbers(ranges) => {
            let sum = ranges.iter().try_fold(0_u64, |sum, range| sum.checked_add(range.count()));
            count.checked_mul(sum?)
        }
    });
    let room = (MAX_NAMES - names.len()) as u64;
    if count.is_none_or(|count| count > room) {
        return Err(wrong(column, format!("it stands for more than {MAX_NAMES} names")));
    }
    let longest = parts.iter().fold(0_usize, |length, part| length.saturating_add(part.longest()));
    if longest > MAX_NAME {
        return Err(wrong(column, format!("a name is longer than {MAX_NAME} bytes")));
    }
    let mut made = vec![String::new()];
    for part in parts {
        made = match part {
            Part::Text(text) => made.into_iter().map(|name| name + text).collect(),
            Part::Numbers(ranges) => {
                let numbers = |name: &String| {
                    let name = name.clone();
                    ranges.iter().flat_map(move |range| {
                        let (name, width) = (name.clone(), range.width);
                        (range.from..=range.to).map(move |n| format!("{name}{n:0width$}"))
                    })
                };
                made.iter().flat_map(numbers).collect()
            }
        };
    }
    names.append(&mut made);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        expand_hostlist(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn lists_keep_their_order_and_their_zeros() {
        for (text, all) in [
            ("n1", "n1"),
            ("n[1-3,7],gw", "n1 n2 n3 n7 gw"),
            ("n[08-11]", "n08 n09 n10 n11"),
            ("n[8-11]", "n8 n9 n10 n11"),
            ("n[098-101]", "n098 n099 n100 n101"),
            ("n[0-1]", "n0 n1"),
            ("r[1-2]-n[01-02]x", "r1-n01x r1-n02x r2-n01x r2-n02x"),
            ("[1-2][3-4]", "13 14 23 24"),
            (" a , b ", "a b"),
            ("52:54:00:00:00:01", "52:54:00:00:00:01"),
        ] {
            assert_eq!(names(text).join(" "), all, "{text}");
        }
        let rack = names("rack1-n[01-40]");
        assert_eq!(
            (rack.len(), rack[0].as_str(), rack[39].as_str()),
            (40, "rack1-n01", "rack1-n40")
        );
        assert_eq!(names("n[1-50000],m[1-50000]").len(), 100_000);
    }

    #[test]
    fn errors_name_the_column() {
        for (text, column, part) in [
            ("", 1, "a name is missing"),
            ("n1,,n2", 4, "`,` where a name belongs"),
            ("n1,", 4, "a name is missing"),
            ("n1 n2", 4, "a comma or the end"),
            ("n[", 3, "the end where a number belongs"),
            ("n[1", 4, "the end where `-`, `,` or `]` belongs"),
            ("n[]", 3, "`]` where a number belongs"),
            ("n[a-b]", 3, "`a` where a number belongs"),
            ("n[3-1]", 3, "runs backwards; write 1-3"),
            ("n[1-03]", 3, "as many digits"),
            ("n[001-10]", 3, "as many digits"),
            ("n]", 2, "without a `[`"),
            ("n[[1]]", 3, "`[` where a number belongs"),
            ("a\nb", 3, "a comma or the end"),
            ("a\0b", 2, "`\\0` where a comma"),
        ] {
            let error = expand_hostlist(text).unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.problem.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_that_stands_for_too_many_names_is_refused_at_once() {
        for text in [
            "n[1-100001]",
            "n[0-999999999999999999]",
            "[0-999999999999999999][0-999999999999999999][0-999999999999999999]",
            "a[1-1000]b[1-1000]",
            "n[1-100000],m",
            "n[1-99999999999999999999]",
            "[1][1][1][1][1][1][1][1][1]",
        ] {
            assert!(expand_hostlist(text).is_err(), "{text}");
        }
        assert!(expand_hostlist(&"n,".repeat(3000)).is_err());
        assert!(expand_hostlist(&"n".repeat(300)).is_err());
        for long in ["n".repeat(4000) + "[1-90000]", "[1-90000]".to_owned() + &"n".repeat(4000)] {
            let error = expand_hostlist(&long).unwrap_err().to_string();
            assert!(error.contains("longer than 255 bytes"), "{error}");
        }
        assert!(expand_hostlist(&format!("[1,10]{}", "n".repeat(253))).is_ok());
        assert!(expand_hostlist(&format!("[1,10]{}", "n".repeat(254))).is_err());
    }

    #[test]
    fn fuzzed_hostlists_are_short_or_refused() {
        let samples: [&[u8]; 3] = [b"n[001-010,20],gw", b"r[1-3]n[1-4]", b"a,b,c"];
        kiln_fuzz::check("hostlist", &samples, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match expand_hostlist(&text) {
                Ok(names) => assert!(names.len() <= 100_000 && names.iter().all(|n| !n.is_empty())),
                Err(error) => assert!(error.column <= text.chars().count() + 1, "{error}"),
            }
        });
    }
}
