//! What stands in the headers of requests and answers.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::access::Access;
use super::super::idempotency::LONGEST_KEY;
use super::super::route::Route;

/// The tags that `If-Match` names.
const TAGS: &str = r#"^(\*|"[!#-+\-.-~]*"( ?, ?"[!#-+\-.-~]*")*)$"#;

/// Returns the headers that a request of a route may have, as parameters.
pub(super) fn of_request(route: &Route) -> Vec<Value> {
    let mut all = Vec::new();
    if route.condition {
        all.push(header(
            "If-Match",
            "Only if this is its ETag still; `*` is any",
            &json!({"type": "string", "pattern": TAGS}),
        ));
    }
    if route.may_come_twice() {
        all.push(header(
            "Idempotency-Key",
            "The same request with the same key is done once, and gets the first answer again for a day",
            &json!({"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"}),
        ));
    }
    all.extend(
        route.headers.iter().map(|(name, what)| header(name, what, &json!({"type": "string"}))),
    );
    all
}

fn header(name: &str, what: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "header", "required": false, "description": what, "schema": schema})
}

/// Returns the headers of an answer when all went well.
pub(super) fn of_answer(route: &Route, status: StatusCode) -> Map<String, Value> {
    let mut all = Map::new();
    // A dry run has the same status where that is 200, and shows nothing that has a revision.
    let tried = status == StatusCode::OK && route.preview.is_some();
    if route.tagged && status == route.status {
        all.insert("ETag".to_owned(), told("Its revision, for `If-Match`", "string", !tried));
    }
    let pages = |name: &str| route.queries().any(|query| query == name);
    if pages("limit") && pages("after") {
        all.insert(
            "Link".to_owned(),
            told("Where the list goes on, with `rel=\"next\"`, where it does", "string", false),
        );
    }
    all
}

/// Returns the headers of an answer when something went wrong.
pub(super) fn of_problem(status: StatusCode) -> Map<String, Value> {
    let mut all = Map::new();
    match status {
        StatusCode::UNAUTHORIZED => {
            let what = told("How to say who asks", "string", true);
            all.insert("WWW-Authenticate".to_owned(), what);
        }
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let what =
                told("After how many seconds to come again, where that is known", "integer", false);
            all.insert("Retry-After".to_owned(), what);
        }
        _ => {}
    }
    all
}

fn told(what: &str, kind: &str, required: bool) -> Value {
    json!({"description": what, "required": required, "schema": {"type": kind}})
}

impl Route {
    /// Returns whether it does once what comes twice with the same key.
    pub(in super::super) fn may_come_twice(&self) -> bool {
        self.method == "post" && self.access != Access::Anyone
    }

    /// Returns the answers that say what went wrong.
    pub(super) fn refusals(&self) -> impl Iterator<Item = StatusCode> {
        let guarded = self.access != Access::Anyone;
        let changes = guarded && self.method != "get";
        let body = self.body.is_some();
        [
            (StatusCode::BAD_REQUEST, true),
            (StatusCode::UNAUTHORIZED, guarded || body),
            (StatusCode::FORBIDDEN, guarded),
            (StatusCode::NOT_FOUND, self.path.contains('{')),
            (StatusCode::REQUEST_TIMEOUT, true),
            (StatusCode::CONFLICT, changes),
            (StatusCode::PRECONDITION_FAILED, self.condition),
            (StatusCode::PAYLOAD_TOO_LARGE, true),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, body),
            (StatusCode::UNPROCESSABLE_ENTITY, self.may_come_twice()),
            (StatusCode::TOO_MANY_REQUESTS, guarded || body),
            (StatusCode::INTERNAL_SERVER_ERROR, guarded || body),
            (StatusCode::SERVICE_UNAVAILABLE, guarded || body),
        ]
        .into_iter()
        .filter_map(|(status, may)| may.then_some(status))
        .chain(self.others.iter().copied())
    }
}
