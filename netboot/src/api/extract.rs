//! Reads requests: bodies within bounds, queries without words that nobody knows.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::merge::merge;
use super::problem::Fault;

/// The longest body that is read, where a route says nothing else.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// A body in JSON.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        is_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await?;
        read(&bytes).map(Self)
    }
}

/// What is asked for behind the path.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// The part of the path that names what is meant.
#[derive(Debug)]
pub(super) struct Key(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let Path(key) = Path::from_request_parts(parts, state).await?;
        Ok(Self(key))
    }
}

/// The parts of the path that name what is meant, where there are several.
#[derive(Debug)]
pub(super) struct Keys<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Keys<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let Path(keys) = Path::from_request_parts(parts, state).await?;
        Ok(Self(keys))
    }
}

/// Refuses a body that says that it is something else.
fn is_json(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = kind.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    let essence = essence.to_ascii_lowercase();
    let json = essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"));
    if json {
        return Ok(());
    }
    let text = "the body has to be application/json";
    Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

/// Reads JSON. What is nested too deep is refused before anything is made of it, at serde_json's own bound.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| Fault::invalid(error.inner().to_string()).at(pointer(error.path())))?;
    reader.end().map_err(|error| Fault::invalid(error.to_string()))?;
    Ok(value)
}

/// Lays the fields of a patch over what is there, and reads what comes of it.
pub(super) fn merged<T: Serialize + DeserializeOwned>(now: &T, patch: Value) -> Result<T, Fault> {
    if !patch.is_object() {
        return Err(Fault::invalid("a patch is an object with the fields that change"));
    }
    let mut whole = serde_json::to_value(now).map_err(|error| Fault::internal(&error))?;
    merge(&mut whole, patch);
    serde_path_to_error::deserialize(whole)
        .map_err(|error| Fault::invalid(error.inner().to_string()).at(pointer(error.path())))
}

/// Writes a place in a body as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |text, segment| match segment {
        Segment::Seq { index } => format!("{text}/{index}"),
        Segment::Map { key } => format!("{text}/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => text,
    })
}

#[cfg(test)]
mod tests {
    use kiln_inventory::NewMachine;

    use super::*;

    fn problem(text: &[u8]) -> super::super::Problem {
        read::<NewMachine>(text).unwrap_err().into_problem()
    }

    #[test]
    fn a_wrong_body_is_refused_with_the_place() {
        let wrong = problem(br#"{"name": "n1", "macs": ["52:54:00:00:00:01", "x"]}"#);
        assert_eq!((wrong.status, wrong.pointer.as_deref()), (400, Some("/macs/1")), "{wrong:?}");
        let wrong = problem(br#"{"name": "n1", "macs": [], "id": 7}"#);
        assert!(wrong.detail.contains("unknown field `id`"), "{wrong:?}");
        assert!(problem(br#"{"name": "n1", "macs": []} {}"#).detail.contains("trailing"));
    }

    #[test]
    fn a_hundred_thousand_brackets_are_an_error_and_no_crash() {
        for (open, close) in [("[", "]"), ("{\"metadata\":", "}")] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            assert_eq!(problem(deep.as_bytes()).status, 400);
            let value = read::<Value>(deep.as_bytes()).unwrap_err().into_problem();
            assert!(value.detail.contains("recursion limit"), "{value:?}");
        }
    }

    #[test]
    fn only_json_is_taken_for_json() {
        let says = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            is_json(&headers).is_ok()
        };
        assert!(says("application/json") && says("Application/JSON; charset=utf-8"));
        assert!(says("application/merge-patch+json"));
        assert!(!says("text/plain") && !says("application/x-www-form-urlencoded") && !says(""));
        assert!(is_json(&HeaderMap::new()).is_ok());
    }
}
