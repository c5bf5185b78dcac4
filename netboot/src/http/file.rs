//! One immutable file, as HTTP wants it: HEAD like GET, one range, ETag, exact length.

use std::io;
use std::path::Path;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use kiln_builder::Store;
use kiln_builder::output::Plan;
use kiln_types::Digest;

use super::body::{Body, Done};
use super::transfers::Pace;
use super::wire::Pieces;
use crate::pieces::Pieces as Planned;

/// Where the bytes are.
pub(super) enum Content<'a> {
    Memory(Bytes),
    Disk { path: &'a Path, pieces: Option<Pieces>, pace: Option<Pace> },
    Planned { store: &'a Store, plan: &'a Plan, pace: Option<Pace> },
}

/// What a request wants of a file.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
}

/// Part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range { first: u64, last: u64 },
    Unsatisfiable,
}

/// The answer to a GET or HEAD, all but the bytes.
pub(super) struct Answer {
    head: Response<Body>,
    size: u64,
    /// Which bytes are to follow.
    body: Option<(u64, u64)>,
}

impl Answer {
    /// Makes it.
    pub(super) fn new(ask: &Ask<'_>, size: u64, digest: &Digest, kind: &'static str) -> Self {
        let etag = format!("\"{}\"", digest.hex());
        let mut head = Response::new(Body::bytes(Bytes::new()));
        let headers = head.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        insert(&mut head, header::ETAG, &etag);
        if let Some(status) = precondition(ask, &etag) {
            *head.status_mut() = status;
            return Self { head, size, body: None };
        }
        // RFC 9110 §14.2: for GET alone.
        let range = text(ask, header::RANGE)
            .filter(|_| *ask.method == Method::GET)
            .filter(|_| text(ask, header::IF_RANGE).is_none_or(|condition| condition == etag));
        let (first, len) = match part(range, size) {
            Part::Whole => (0, size),
            Part::Range { first, last } => {
                *head.status_mut() = StatusCode::PARTIAL_CONTENT;
                let value = format!("bytes {first}-{last}/{size}");
                insert(&mut head, header::CONTENT_RANGE, &value);
                (first, last - first + 1)
            }
            Part::Unsatisfiable => {
                *head.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                insert(&mut head, header::CONTENT_RANGE, &format!("bytes */{size}"));
                return Self { head, size, body: None };
            }
        };
        insert(&mut head, header::CONTENT_LENGTH, &len.to_string());
        let body = (*ask.method != Method::HEAD).then_some((first, len));
        Self { head, size, body }
    }

    /// Returns how many bytes are to follow, if any are.
    pub(super) fn len(&self) -> Option<u64> {
        self.body.map(|(_, len)| len)
    }

    /// Puts the bytes to it. `done` is called when the last byte of the file was
    /// sent, or not sent.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be opened.
    pub(super) async fn with(
        self,
        content: Content<'_>,
        done: Option<Done>,
    ) -> io::Result<Response<Body>> {
        let Self { mut head, size, body } = self;
        let Some((first, len)) = body else { return Ok(head) };
        let body = match content {
            Content::Memory(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                Body::bytes(bytes.slice(at(first)..at(first + len)))
            }
            Content::Disk { path, pieces, pace } => {
                let file = tokio::fs::File::open(path).await?.into_std().await;
                let body = Body::file(file, first, len, pieces);
                match pace {
                    Some(pace) => body.paced(pace),
                    None => body,
                }
            }
            Content::Planned { store, plan, pace } => {
                let part = plan.slice(first..first + len);
                let body = Body::planned(Planned::new(store.clone(), &part), len);
                match pace {
                    Some(pace) => body.paced(pace),
                    None => body,
                }
            }
        };
        *head.body_mut() = match done {
            Some(done) if first + len == size => body.when_done(done),
            _ => body,
        };
        Ok(head)
    }
}

fn text<'a>(ask: &Ask<'a>, name: header::HeaderName) -> Option<&'a str> {
    ask.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns what a request is answered with that wants another file than this, or one that it does not have yet
/// (RFC 9110 §13). There are no dates: what has another content has another address.
fn precondition(ask: &Ask<'_>, etag: &str) -> Option<StatusCode> {
    let names = |list: &str, is: fn(&str) -> &str| {
        list.trim() == "*" || list.split(',').any(|tag| is(tag.trim()) == etag)
    };
    if text(ask, header::IF_MATCH).is_some_and(|list| !names(list, |tag| tag)) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    let weak: fn(&str) -> &str = |tag| tag.strip_prefix("W/").unwrap_or(tag);
    text(ask, header::IF_NONE_MATCH)
        .is_some_and(|list| names(list, weak))
        .then_some(StatusCode::NOT_MODIFIED)
}

fn insert(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Reads a Range field (RFC 9110 §14.2). Several ranges, other units and nonsense count as none.
fn part(range: Option<&str>, size: u64) -> Part {
    let Some((first, last)) = range
        .and_then(|text| text.strip_prefix("bytes="))
        .filter(|spec| !spec.contains(','))
        .and_then(|spec| spec.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Part::Whole,
        (Ok(first), _) if first >= size => Part::Unsatisfiable,
        (Ok(first), Ok(last)) => Part::Range { first, last: last.min(size - 1) },
        (Ok(first), Err(_)) if last.is_empty() => Part::Range { first, last: size - 1 },
        (Err(_), Ok(0)) if first.is_empty() => Part::Unsatisfiable,
        (Err(_), Ok(_)) if first.is_empty() && size == 0 => Part::Unsatisfiable,
        (Err(_), Ok(suffix)) if first.is_empty() => {
            Part::Range { first: size.saturating_sub(suffix), last: size - 1 }
        }
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let range = |first, last| Part::Range { first, last };
        for (text, expected) in [
            ("bytes=0-0", range(0, 0)),
            ("bytes=5-", range(5, 9)),
            ("bytes=-3", range(7, 9)),
            ("bytes=-30", range(0, 9)),
            ("bytes=2-99", range(2, 9)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=a-b", Part::Whole),
        ] {
            assert_eq!(part(Some(text), 10), expected, "{text}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(part(Some("bytes=0-"), 0), Part::Unsatisfiable);
        assert_eq!(part(Some("bytes=-1"), 0), Part::Unsatisfiable);
    }

    #[test]
    fn fuzzed_ranges_and_conditions_never_lead_out_of_the_file() {
        let samples: [&[u8]; 6] =
            [b"bytes=0-0", b"bytes=5-", b"bytes=-3", b"bytes=0-1,3-4", b"\"0707\", W/\"a\"", b"*"];
        let digest = Digest::from_bytes([7; 32]);
        kiln_fuzz::check("http-range", &samples, |bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
            for size in [0, 1, 10, u64::MAX] {
                match part(value.to_str().ok(), size) {
                    Part::Range { first, last } => assert!(first <= last && last < size),
                    Part::Whole | Part::Unsatisfiable => {}
                }
                for name in
                    [header::RANGE, header::IF_RANGE, header::IF_MATCH, header::IF_NONE_MATCH]
                {
                    let mut headers = HeaderMap::new();
                    headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-"));
                    headers.insert(name, value.clone());
                    let ask = Ask { method: &Method::GET, headers: &headers };
                    let answer = Answer::new(&ask, size, &digest, "text/plain");
                    assert!(answer.len().is_none_or(|len| len <= size));
                }
            }
        });
    }
}
