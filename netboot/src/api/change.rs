//! What changes of nouns have in common: conditions, and what would be.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiln_inventory::{Document, Stored};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use super::extract::merged;
use super::merge::{FieldChange, differences};
use super::peer::Caller;
use super::{Control, Fault};

/// Whether to do it.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
pub(super) struct Dry {
    /// Only say what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Preview {
    /// `add`, `change`, `remove`, or `nothing` where it is like that already.
    pub would: String,
    /// What it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// Each field that would be another one.
    pub diff: Vec<FieldChange>,
}

impl Preview {
    /// Compares what is there with what would be.
    pub(super) fn of(before: Option<&impl Serialize>, after: Option<&impl Serialize>) -> Self {
        let value = |of: Option<Value>| of.unwrap_or(Value::Null);
        let before = before.and_then(|before| serde_json::to_value(before).ok());
        let after = after.and_then(|after| serde_json::to_value(after).ok());
        let would = match (&before, &after) {
            (None, _) => "add",
            (_, None) => "remove",
            (Some(before), Some(after)) if before == after => "nothing",
            _ => "change",
        };
        let diff = differences(&value(before), &value(after.clone()));
        Self { would: would.to_owned(), after, diff }
    }

    /// Compares documents as the log of changes shows them: what it hides is not told here either.
    pub(super) fn documents<T: Document>(before: Option<&T>, after: Option<&T>) -> Self {
        let shown = |document: &T| {
            let mut value = serde_json::to_value(document).unwrap_or_default();
            T::hide(&mut value);
            value
        };
        Self::of(before.map(shown).as_ref(), after.map(shown).as_ref())
    }
}

impl IntoResponse for Preview {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// How often a change is made anew at most, and after which time.
const MOST_TRIES: u32 = 100;
const AGAIN: Duration = Duration::from_millis(10);

/// What a noun has to be for the request to count (`If-Match`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Anything.
    Any,
    /// One of these revisions.
    Of(Arc<[i64]>),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        Self::read(&parts.headers)
    }
}

impl IfMatch {
    fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        let mut revisions = Vec::new();
        let mut any = true;
        for value in headers.get_all(header::IF_MATCH) {
            any = false;
            let wrong = || Fault::invalid("`If-Match` is `*`, or the ETag of an answer, as \"3\"");
            for tag in value.to_str().map_err(|_| wrong())?.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Self::Any);
                }
                let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                // A tag that is none of ours matches nothing.
                revisions.push(inner.ok_or_else(wrong)?.parse().unwrap_or(-1));
            }
        }
        Ok(if any { Self::Any } else { Self::Of(revisions.into()) })
    }

    /// Returns the revision that has to be there still when the change is made.
    pub(super) fn expected(&self, what: &str, now: i64) -> Result<Option<i64>, Fault> {
        match self {
            Self::Any => Ok(None),
            Self::Of(all) if all.contains(&now) => Ok(Some(now)),
            Self::Of(_) => {
                let text = format!("{what} has revision {now} now; read it anew");
                Err(Fault::new(StatusCode::PRECONDITION_FAILED, text))
            }
        }
    }
}

/// Changes some fields of a noun, and from what is there by then where somebody else was faster, unless the caller has said
/// what has to be there. `found` looks what it is now with its revision, and `made` makes it what it is to be where it
/// still has that one.
pub(super) async fn patch<N, T, F, M>(
    condition: &IfMatch,
    (what, patch): (&str, &Value),
    found: impl Fn() -> F,
    document: impl Fn(&N) -> (i64, &T),
    made: impl Fn(N, T, Option<i64>) -> M,
) -> Result<Response, Fault>
where
    T: Serialize + DeserializeOwned,
    F: Future<Output = Result<N, Fault>>,
    M: Future<Output = Result<Response, Fault>>,
{
    let mut tries = 0;
    loop {
        let now = found().await?;
        let (revision, before) = document(&now);
        condition.expected(what, revision)?;
        let after = merged(before, patch.clone())?;
        let made = made(now, after, Some(revision)).await;
        let was_changed =
            made.as_ref().is_err_and(|fault| fault.status() == StatusCode::PRECONDITION_FAILED);
        tries += 1;
        if !was_changed || *condition != IfMatch::Any || tries > MOST_TRIES {
            return made;
        }
        // Until the other one shows what it has made.
        tokio::time::sleep(AGAIN).await;
    }
}

/// An answer with the revision of what it shows as its ETag.
#[derive(Debug)]
pub(super) struct Tagged<T>(pub(super) i64, pub(super) T);

impl<T: IntoResponse> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.0)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// What was done, or where it is only asked for, what would be.
pub(super) type Done<T> = Result<ControlFlow<Preview, Stored<T>>, Fault>;

/// Finds a document by its name.
pub(super) async fn named<T: Document>(
    control: &Control,
    what: &str,
    name: &str,
) -> Result<Stored<T>, Fault> {
    let found = control.inventory.named::<T>(name).await?;
    found.ok_or_else(|| Fault::not_found(what, name))
}

/// Adds a document.
pub(super) async fn add<T: Document>(
    control: &Control,
    caller: &Caller,
    dry: Dry,
    document: &T,
) -> Done<T> {
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let added = edit.add(document).await?;
    if dry.dry_run {
        return Ok(ControlFlow::Break(Preview::documents(None, Some(&added.document))));
    }
    edit.commit().await?;
    Ok(ControlFlow::Continue(added))
}

/// Changes a document to another one, where it still has the revision that is expected.
pub(super) async fn put<T: Document>(
    control: &Control,
    caller: &Caller,
    dry: Dry,
    (now, expected): (&Stored<T>, Option<i64>),
    document: &T,
) -> Done<T> {
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let changed = edit.change(now.id, document, expected).await?;
    let changed = changed.ok_or_else(|| Fault::not_found(T::NOUN, now.document.name()))?;
    if dry.dry_run {
        let preview = Preview::documents(Some(&now.document), Some(&changed.document));
        return Ok(ControlFlow::Break(preview));
    }
    edit.commit().await?;
    Ok(ControlFlow::Continue(changed))
}

/// Removes a document, where it still has the revision that is expected.
pub(super) async fn remove<T: Document>(
    control: &Control,
    caller: &Caller,
    dry: Dry,
    (now, expected): (Stored<T>, Option<i64>),
) -> Done<T> {
    if dry.dry_run {
        return Ok(ControlFlow::Break(Preview::documents(Some(&now.document), None)));
    }
    control.inventory.acting(&caller.name).remove::<T>(now.id, expected).await?;
    Ok(ControlFlow::Continue(now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_names_revisions() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, value.parse().unwrap());
            }
            IfMatch::read(&headers)
        };
        assert_eq!(read(&[]).unwrap(), IfMatch::Any);
        assert_eq!(read(&["*"]).unwrap(), IfMatch::Any);
        let some = read(&["\"3\", \"5\"", "\"x\""]).unwrap();
        assert_eq!(some.expected("it", 5).unwrap(), Some(5));
        assert_eq!(some.expected("it", 4).unwrap_err().status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(IfMatch::Any.expected("it", 4).unwrap(), None);
        assert!(read(&["3"]).is_err() && read(&["W/\"3\""]).is_err());
    }

    #[test]
    fn a_preview_says_what_would_be() {
        let (a, b) = (json!({"x": 1}), json!({"x": 2}));
        let nothing: Option<&Value> = None;
        assert_eq!(Preview::of(nothing, Some(&a)).would, "add");
        assert_eq!(Preview::of(Some(&a), nothing).would, "remove");
        assert_eq!(Preview::of(Some(&a), Some(&a)).would, "nothing");
        let change = Preview::of(Some(&a), Some(&b));
        assert_eq!((change.would.as_str(), change.diff.len()), ("change", 1));
    }
}
