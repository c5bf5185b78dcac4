//! Errors as the API tells them: problem details (RFC 9457).

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Media type of [`Problem`].
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the API tells it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// What kind of problem: `urn:kiln:problem:` and a word that stays the same.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// Status of the answer.
    pub status: u16,
    /// What went wrong, in one line, and what to do.
    pub detail: String,
    /// Where in the body, as a JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The id from which on events can be had, where that which was given is beyond the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
}

/// An error on its way to becoming a [`Problem`].
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    detail: String,
    pointer: Option<String>,
    newest: Option<String>,
    retry_after: Option<u64>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let (pointer, newest, retry_after) = (None, None, None);
        Self { status, detail: detail.into(), pointer, newest, retry_after }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(what: &str, key: &str) -> Self {
        let key: String = key.escape_debug().take(80).collect();
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} `{key}`"))
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, crate::cli::chain(error))
    }

    /// Says where in the body it is wrong.
    pub(super) fn at(mut self, pointer: String) -> Self {
        self.pointer = Some(pointer).filter(|pointer| !pointer.is_empty());
        self
    }

    /// Says from where on there are events.
    pub(super) fn newest(mut self, id: String) -> Self {
        self.newest = Some(id);
        self
    }

    /// Says when to come again, in seconds.
    pub(super) const fn again_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn into_problem(self) -> Problem {
        let (word, title) = kind(self.status);
        Problem {
            kind: format!("urn:kiln:problem:{word}"),
            title: title.to_owned(),
            status: self.status.as_u16(),
            // One line, whatever a library has said.
            detail: self.detail.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" "),
            pointer: self.pointer,
            newest: self.newest,
        }
    }
}

/// Returns the word of a kind of problem, and what it is called.
pub(super) const fn kind(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("invalid", "The request is wrong"),
        StatusCode::UNAUTHORIZED => ("not-logged-in", "Nobody knows who asks"),
        StatusCode::FORBIDDEN => ("not-allowed", "Who asks may not do this"),
        StatusCode::NOT_FOUND => ("not-found", "There is no such thing"),
        StatusCode::METHOD_NOT_ALLOWED => ("no-such-method", "This path has other methods"),
        StatusCode::CONFLICT => ("conflict", "Something else is in the way"),
        StatusCode::GONE => ("beyond-newest", "The events end before that"),
        StatusCode::PRECONDITION_FAILED => ("changed", "It is not what it was any more"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "The body is too large"),
        StatusCode::UNPROCESSABLE_ENTITY => ("other-request", "The key is that of another request"),
        StatusCode::REQUEST_TIMEOUT => ("too-slow", "The body did not arrive in time"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("media-type", "The body is of another type"),
        StatusCode::PRECONDITION_REQUIRED => ("no-condition", "A condition is needed"),
        StatusCode::TOO_MANY_REQUESTS => ("too-many", "Too many of these in too short a time"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "Not now"),
        _ => ("internal", "The server failed"),
    }
}

impl From<kiln_inventory::StoreError> for Fault {
    fn from(error: kiln_inventory::StoreError) -> Self {
        let status = match &error {
            kiln_inventory::StoreError::Changed { .. } => StatusCode::PRECONDITION_FAILED,
            error if error.is_conflict() => StatusCode::CONFLICT,
            error if error.is_invalid() => StatusCode::BAD_REQUEST,
            error if error.is_unavailable() => {
                let text = crate::cli::chain(&error);
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, text).again_after(5);
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, crate::cli::chain(&error))
    }
}

impl From<QueryRejection> for Fault {
    fn from(error: QueryRejection) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

impl From<PathRejection> for Fault {
    fn from(error: PathRejection) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

impl From<BytesRejection> for Fault {
    fn from(error: BytesRejection) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let body = serde_json::to_vec(&self.into_problem()).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_of_a_kind_that_programs_can_tell() {
        let fault = Fault::new(StatusCode::CONFLICT, "a\n  b\rc").at("/macs/0".to_owned());
        let problem = serde_json::to_value(fault.into_problem()).unwrap();
        let expected = serde_json::json!({
            "type": "urn:kiln:problem:conflict", "title": "Something else is in the way",
            "status": 409, "detail": "a b c", "pointer": "/macs/0",
        });
        assert_eq!(problem, expected);
    }

    #[test]
    fn a_key_that_is_not_there_is_repeated_without_what_harms_a_terminal() {
        let fault = Fault::not_found("machine", &format!("\u{1b}[2J{}", "x".repeat(500)));
        assert!(fault.detail.len() < 140 && !fault.detail.contains('\u{1b}'), "{}", fault.detail);
    }
}
