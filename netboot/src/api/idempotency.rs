//! Requests that may come twice: whoever sends `Idempotency-Key` gets the first answer again for a day, and what he
//! asked for is done once. The inventory knows the keys, so that all servers of one do, and each after it starts anew.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kiln_inventory::{Asked, Store, StoreError};
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::problem::Fault;

/// The largest answer that is kept.
const LARGEST: usize = 64 << 10;
/// The longest key.
pub(super) const LONGEST_KEY: usize = 255;
/// The name of the header.
const HEADER: &str = "idempotency-key";

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Once<'a> {
    pub(super) caller: &'a str,
    /// Whether the answer has something secret in it.
    pub(super) is_secret: bool,
}

/// An answer as it is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Once<'_> {
    /// Lets a request through once for each key.
    pub(super) async fn run(self, store: &Store, request: Request, next: Next) -> Response {
        if !request.headers().contains_key(HEADER) {
            return next.run(request).await;
        }
        self.run_once(store, request, next).await.unwrap_or_else(IntoResponse::into_response)
    }

    async fn run_once(
        self,
        store: &Store,
        request: Request,
        next: Next,
    ) -> Result<Response, Fault> {
        let mut keys = request.headers().get_all(HEADER).iter();
        let sound = |key: &&[u8]| {
            (1..=LONGEST_KEY).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic)
        };
        let key = keys.next().map(HeaderValue::as_bytes).filter(sound);
        let (Some(key), None) = (key, keys.next()) else {
            let text =
                format!("`Idempotency-Key` has 1 to {LONGEST_KEY} letters, digits and signs");
            return Err(Fault::invalid(text));
        };
        let key = digest(&[self.caller.as_bytes(), key]);
        let (parts, body) = request.into_parts();
        // It is in memory already, within the bounds of the route.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let uri = parts.uri.to_string();
        let asked = digest(&[parts.method.as_str().as_bytes(), uri.as_bytes(), &body]);
        let (store, is_secret) = (store.clone(), self.is_secret);
        let request = Request::from_parts(parts, Body::from(body));
        // It comes to its end whoever goes away meanwhile: that is what he comes again for.
        let done = tokio::spawn(async move {
            match known(&store, &key, &asked).await? {
                Some(answer) => Ok(answer),
                None => answered(&store, key, next.run(request), is_secret).await,
            }
        });
        done.await.map_err(|error| Fault::internal(&error))?
    }
}

/// Returns what a request gets that came before; nothing where it is the first with its key, which it has claimed then.
async fn known(store: &Store, key: &Digest, asked: &Digest) -> Result<Option<Response>, Fault> {
    let conflict = |text| Err(Fault::new(StatusCode::CONFLICT, text));
    match store.claim_answer(key, asked).await? {
        Asked::New => Ok(None),
        Asked::Another => {
            let text = "another request had this `Idempotency-Key`; choose a new one";
            Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
        Asked::UnderWay => {
            let text = "a request with this `Idempotency-Key` is under way";
            Err(Fault::new(StatusCode::CONFLICT, text).again_after(1))
        }
        Asked::Lost => conflict(
            "a request with this `Idempotency-Key` was begun by a server that has stopped; look whether it was done, \
             and choose a new key",
        ),
        Asked::Done(None) => conflict(
            "this was done when it was asked for first; what was answered is not kept because it is secret or long",
        ),
        Asked::Done(Some(text)) => {
            let kept: Kept =
                serde_json::from_str(&text).map_err(|error| Fault::internal(&error))?;
            kept.response().map(Some)
        }
    }
}

/// What becomes of a key after its request.
enum Note {
    /// Who comes again may try it again.
    Free,
    /// It was done; with the answer where that is kept.
    Done(Option<String>),
}

impl Note {
    async fn write(&self, store: &Store, key: &Digest) -> Result<(), StoreError> {
        match self {
            Self::Free => store.give_answer_back(key).await,
            Self::Done(answer) => store.keep_answer(key, answer.as_deref()).await,
        }
    }
}

/// Waits for an answer, and keeps it for who comes again.
async fn answered(
    store: &Store,
    key: Digest,
    answer: impl Future<Output = Response>,
    is_secret: bool,
) -> Result<Response, Fault> {
    let (parts, body) = answer.await.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|error| Fault::internal(&error))?;
    // What failed here, or came too early, may work when it is tried again.
    let passing = matches!(
        parts.status,
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
    );
    let note = if parts.status.is_server_error() || passing {
        Note::Free
    } else {
        let tells = !is_secret || !parts.status.is_success();
        let kept = tells.then(|| Kept::of(&parts, &body)).flatten();
        Note::Done(kept.and_then(|kept| serde_json::to_string(&kept).ok()))
    };
    if let Err(error) = note.write(store, &key).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "an answer cannot be kept for who asks again; it is tried again");
        let store = store.clone();
        tokio::spawn(async move {
            for seconds in AGAIN {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                if note.write(&store, &key).await.is_ok() {
                    break;
                }
            }
        });
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Seconds after which it is tried again to keep an answer: a database that is away is back in a while, or what was claimed ends by itself.
const AGAIN: [u64; 5] = [1, 4, 20, 60, 300];

impl Kept {
    /// Returns an answer as it is kept, where it is short enough and a text.
    fn of(parts: &axum::http::response::Parts, body: &Bytes) -> Option<Self> {
        let body = std::str::from_utf8(body).ok().filter(|body| body.len() <= LARGEST)?;
        let headers = parts.headers.iter();
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        Some(Self {
            status: parts.status.as_u16(),
            headers: headers.filter_map(header).collect(),
            body: body.to_owned(),
        })
    }

    fn response(self) -> Result<Response, Fault> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Body::from(self.body)).map_err(|error| Fault::internal(&error))
    }
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    Digest::from_bytes(context.finish().as_ref().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_kept_is_the_same_again_unless_it_is_too_long_or_no_text() {
        let answer = |body: &[u8]| {
            let answer = Response::builder().status(201).header("etag", "\"1\"");
            answer.body(Bytes::copy_from_slice(body)).unwrap().into_parts()
        };
        let (parts, body) = answer(b"{\"a\": 1}");
        let again = Kept::of(&parts, &body).unwrap().response().unwrap();
        assert_eq!(
            (again.status(), &again.headers()["etag"]),
            (parts.status, &parts.headers["etag"])
        );
        for body in [vec![b' '; LARGEST + 1], vec![0xff]] {
            let (parts, body) = answer(&body);
            assert_eq!(Kept::of(&parts, &body), None);
        }
    }

    #[test]
    fn the_same_words_of_another_caller_or_cut_elsewhere_are_another_key() {
        let all = [digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]), digest(&[b"abc"])];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }
}
