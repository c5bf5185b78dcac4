//! The head of an answer: bytes of a server, which may be anything, become a status and a length. Pure.

use super::HttpError;

/// Status line and headers together may have this much.
pub(super) const LARGEST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;

/// What a head says that matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Exact length of the body, where it is told.
    pub(super) length: Option<u64>,
    /// The server's clock, in seconds since 1970.
    pub(super) date: Option<u64>,
    pub(super) chunked: bool,
    /// In how many seconds the server wants to be asked again.
    pub(super) retry_after: Option<u64>,
    /// Of a part: its first byte, where it goes to the end, and the length of the whole.
    pub(super) part: Option<(u64, u64)>,
}

/// Returns where the head ends: behind the first empty line.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a whole head, from the status line to the empty line.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, HttpError> {
    let bad = HttpError::Head;
    let text = std::str::from_utf8(bytes).map_err(|_| bad("it is no text"))?;
    let mut lines = text.split("\r\n");
    let mut head = Head { status: status(lines.next().unwrap_or_default())?, ..Head::default() };
    for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if count >= MOST_HEADERS {
            return Err(bad("it has too many headers"));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header has no colon"))?;
        // A line that goes on, or a name with a blank, is read in different ways by different programs.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("a header has a name that is none"));
        }
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            let length = number(value).ok_or_else(|| bad("its length is no number"))?;
            if head.length.is_some_and(|other| other != length) {
                return Err(bad("it tells two lengths"));
            }
            head.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = true;
        } else if name.eq_ignore_ascii_case("date") {
            head.date = date(value);
        } else if name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = number(value);
        } else if name.eq_ignore_ascii_case("content-range") {
            head.part = part_to_the_end(value);
        }
    }
    if matches!(head.status, 204 | 304) {
        // These have no body, whatever else they say.
        head.length = Some(0);
        head.chunked = false;
    }
    Ok(head)
}

fn status(line: &str) -> Result<u16, HttpError> {
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let code = rest.and_then(|rest| rest.get(..3)).filter(|code| {
        let after = rest.and_then(|rest| rest.as_bytes().get(3));
        code.bytes().all(|byte| byte.is_ascii_digit()) && matches!(after, None | Some(b' '))
    });
    // Answers from 100 to 199 only come to those who ask for them.
    code.and_then(|code| code.parse().ok())
        .filter(|status| (200..600).contains(status))
        .ok_or(HttpError::Head("it does not begin as an answer of HTTP/1.1"))
}

/// Reads `bytes FIRST-LAST/LENGTH`, where LAST is the last one of all.
fn part_to_the_end(text: &str) -> Option<(u64, u64)> {
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) = (number(first)?, number(last)?, number(length)?);
    (first <= last && last.checked_add(1) == Some(length)).then_some((first, length))
}

/// Reads digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads the one form of dates that servers may write: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let part = |from: usize, to: usize| text.get(from..to);
    if text.len() != 29 || part(3, 5) != Some(", ") || part(25, 29) != Some(" GMT") {
        return None;
    }
    let month = MONTHS.find(part(8, 11)?).filter(|at| at % 3 == 0)? as u64 / 3 + 1;
    let (day, year) = (number(part(5, 7)?)?, number(part(12, 16)?)?);
    let (hour, minute, second) =
        (number(part(17, 19)?)?, number(part(20, 22)?)?, number(part(23, 25)?)?);
    if !(1..=31).contains(&day) || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970, counted in years that begin in March, so that a leap day is the last of its year.
    let (years, months) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Head, HttpError> {
        parse(text.as_bytes())
    }

    #[test]
    fn status_length_and_date_are_read() {
        let head = parsed(
            "HTTP/1.1 200 OK\r\ncontent-LENGTH: \t12 \r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        );
        let expected =
            Head { status: 200, length: Some(12), date: Some(784_111_777), ..Head::default() };
        assert_eq!(head.unwrap(), expected);
    }

    #[test]
    fn a_part_that_goes_to_the_end_and_a_time_to_come_back_are_read() {
        let head = parsed("HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\n\r\n").unwrap();
        assert_eq!(head.part, Some((5, 10)));
        for text in [
            "bytes 5-8/10",
            "bytes 9-5/6",
            "bytes */10",
            "bytes 5-9/*",
            "5-9/10",
            "bytes 0-18446744073709551615/0",
        ] {
            let head = parsed(&format!("HTTP/1.1 206 P\r\nContent-Range: {text}\r\n\r\n"));
            assert_eq!(head.unwrap().part, None, "{text}");
        }
        let after = |text| parsed(&format!("HTTP/1.1 503 S\r\nRetry-After: {text}\r\n\r\n"));
        assert_eq!(after("7").unwrap().retry_after, Some(7));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().retry_after, None);
    }

    #[test]
    fn an_answer_without_a_body_has_none_whatever_it_says() {
        let head = parsed("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert_eq!((head.status, head.length), (204, Some(0)));
        assert_eq!(parsed("HTTP/1.0 503\r\n\r\n").unwrap().length, None);
        assert!(parsed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().chunked);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "",
            "\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 999 No\r\n\r\n",
            "HTTP/1.1 ä00\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n Content-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        ] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
        assert!(parse(b"HTTP/1.1 200 \xff\xfe\r\n\r\n").is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert!(parsed(&many).is_err());
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 12:00:00 GMT", Some(951_825_600)),
            ("Thu, 31 Dec 2026 23:59:60 GMT", Some(1_798_761_600)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 anF 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1869 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sün, 6 Nov 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(date(text), expected, "{text}");
        }
    }

    #[test]
    fn fuzzed_heads_of_answers_are_read_or_refused() {
        let samples: [&[u8]; 2] = [
            b"HTTP/1.1 200 OK\r\ncontent-LENGTH: \t12 \r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
            b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nRetry-After: 3\r\n\r\n",
        ];
        kiln_fuzz::check("init-http", &samples, |bytes| drop(parse(bytes)));
    }
}
