//! Requests that may come twice: whoever sends `Idempotency-Key` gets the first answer again for a day, and what he
//! asked for is done once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kiln_types::Digest;
use tokio::time::Instant;

use super::problem::Fault;

/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// The most answers that are kept, and the largest one.
const MOST_ANSWERS: usize = 4096;
const LARGEST: usize = 64 << 10;
/// The longest key.
const LONGEST_KEY: usize = 255;
/// The name of the header.
const HEADER: &str = "idempotency-key";

/// Answers by who asked and his key.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Digest, Entry>,
    /// The oldest first.
    order: VecDeque<(Digest, Instant)>,
}

#[derive(Clone, Debug)]
struct Entry {
    request: Digest,
    /// None while the first request is under way.
    answer: Option<(StatusCode, HeaderMap, Bytes)>,
}

enum Found {
    New,
    UnderWay,
    Another,
    Again(StatusCode, HeaderMap, Bytes),
}

impl Answers {
    /// Lets a request through once for each key.
    pub(super) async fn once(&self, caller: &str, request: Request, next: Next) -> Response {
        let Some(key) = request.headers().get(HEADER) else { return next.run(request).await };
        let sound = !key.is_empty() && key.len() <= LONGEST_KEY;
        let Some(key) = key.to_str().ok().filter(|_| sound).map(str::to_owned) else {
            let text = format!("`Idempotency-Key` has 1 to {LONGEST_KEY} printable letters");
            return Fault::invalid(text).into_response();
        };
        let (parts, body) = request.into_parts();
        // It is in memory already, within the bounds of the route.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let asked = digest(&[parts.method.as_str(), &parts.uri.to_string()], &body);
        let key = digest(&[caller, &key], b"");
        match self.find(key, asked, Instant::now()) {
            Found::New => {}
            Found::UnderWay => {
                let text = "a request with this `Idempotency-Key` is under way";
                return Fault::new(StatusCode::CONFLICT, text).again_after(1).into_response();
            }
            Found::Another => {
                let text = "another request had this `Idempotency-Key`; choose a new one";
                return Fault::invalid(text).into_response();
            }
            Found::Again(status, headers, body) => return (status, headers, body).into_response(),
        }
        // Whoever goes away does not leave the key taken.
        let mut place = Place { answers: self, key: Some(key) };
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        let (parts, body) = response.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer broke")
                .into_response();
        };
        // What failed here, or came too early, may work when it is tried again.
        let passing = matches!(
            parts.status,
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
        if !parts.status.is_server_error() && !passing && body.len() <= LARGEST {
            place.key = None;
            self.keep(key, (parts.status, parts.headers.clone(), body.clone()));
        }
        Response::from_parts(parts, Body::from(body))
    }

    fn find(&self, key: Digest, request: Digest, now: Instant) -> Found {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |kept: &Kept| kept.order.len() >= MOST_ANSWERS;
        while let Some((oldest, since)) = kept.order.front().copied() {
            if now.saturating_duration_since(since) < KEPT && !full(&kept) {
                break;
            }
            kept.order.pop_front();
            kept.by_key.remove(&oldest);
        }
        match kept.by_key.get(&key) {
            None => {
                kept.by_key.insert(key, Entry { request, answer: None });
                kept.order.push_back((key, now));
                Found::New
            }
            Some(entry) if entry.request != request => Found::Another,
            Some(Entry { answer: None, .. }) => Found::UnderWay,
            Some(Entry { answer: Some((status, headers, body)), .. }) => {
                Found::Again(*status, headers.clone(), body.clone())
            }
        }
    }

    fn keep(&self, key: Digest, answer: (StatusCode, HeaderMap, Bytes)) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = kept.by_key.get_mut(&key) {
            entry.answer = Some(answer);
        }
    }

    fn forget(&self, key: Digest) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_key.remove(&key);
        kept.order.retain(|(other, _)| *other != key);
    }
}

/// A key that is given back unless an answer is kept for it.
struct Place<'a> {
    answers: &'a Answers,
    key: Option<Digest>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.answers.forget(key);
        }
    }
}

fn digest(texts: &[&str], bytes: &[u8]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in texts.iter().map(|text| text.as_bytes()).chain([bytes]) {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    Digest::from_bytes(context.finish().as_ref().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_a_day_and_the_number_of_answers_is_bounded() {
        let (answers, now) = (Answers::default(), Instant::now());
        let (key, request) = (digest(&["a"], b""), digest(&["b"], b""));
        assert!(matches!(answers.find(key, request, now), Found::New));
        assert!(matches!(answers.find(key, request, now), Found::UnderWay));
        answers.keep(key, (StatusCode::CREATED, HeaderMap::new(), Bytes::from_static(b"x")));
        assert!(matches!(answers.find(key, request, now), Found::Again(StatusCode::CREATED, ..)));
        assert!(matches!(answers.find(key, key, now), Found::Another));
        assert!(matches!(answers.find(key, request, now + KEPT), Found::New));
        for number in 0..2 * MOST_ANSWERS {
            answers.find(digest(&[&number.to_string()], b""), request, now + KEPT);
        }
        assert!(answers.0.lock().unwrap().by_key.len() <= MOST_ANSWERS);
        assert!(answers.0.lock().unwrap().order.len() <= MOST_ANSWERS);
    }
}
