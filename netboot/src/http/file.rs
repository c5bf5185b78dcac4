//! One immutable file, as HTTP wants it: HEAD like GET, one range, ETag, exact length.

use std::io;
use std::path::Path;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use kiln_types::Digest;
use tokio::io::AsyncSeekExt as _;

use super::body::{Body, Done};

/// Where the bytes are.
pub(super) enum Content<'a> {
    Memory(Bytes),
    Disk(&'a Path, u64),
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

/// Answers a GET or HEAD. `done` is called when the last byte of the file was sent.
pub(super) async fn answer(
    ask: &Ask<'_>,
    content: Content<'_>,
    digest: &Digest,
    kind: &'static str,
    done: Option<Done>,
) -> io::Result<Response<Body>> {
    let size = match &content {
        Content::Memory(bytes) => bytes.len() as u64,
        Content::Disk(_, size) => *size,
    };
    let etag = format!("\"{}\"", digest.hex());
    let text = |name| ask.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let names_it = |list: &str| list == "*" || list.split(',').any(|tag| tag.trim() == etag);
    let mut response = Response::new(Body::bytes(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if text(header::IF_MATCH).is_some_and(|list| !names_it(list)) {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return Ok(response);
    }
    if text(header::IF_NONE_MATCH).is_some_and(names_it) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let range = text(header::RANGE)
        .filter(|_| text(header::IF_RANGE).is_none_or(|condition| condition == etag));
    let (first, len) = match part(range, size) {
        Part::Whole => (0, size),
        Part::Range { first, last } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {first}-{last}/{size}");
            insert(&mut response, header::CONTENT_RANGE, &value);
            (first, last - first + 1)
        }
        Part::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    insert(&mut response, header::CONTENT_LENGTH, &len.to_string());
    if ask.method == Method::HEAD {
        return Ok(response);
    }
    let body = match content {
        Content::Memory(bytes) => {
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
            Body::bytes(bytes.slice(at(first)..at(first + len)))
        }
        Content::Disk(path, _) => {
            let mut file = tokio::fs::File::open(path).await?;
            if first > 0 {
                file.seek(io::SeekFrom::Start(first)).await?;
            }
            Body::file(file, len)
        }
    };
    *response.body_mut() = match done {
        Some(done) if first + len == size => body.when_done(done),
        _ => body,
    };
    Ok(response)
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
}
