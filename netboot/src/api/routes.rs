//! Every route, and the router that is made of them.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::access::Access;
use super::peer::Caller;
use super::problem::Fault;
use super::route::{Route, get};
use super::{Control, boots, builds, groups, identity, images, leases, machines, openapi, orders};

/// The document of the API, made once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document(&routes()).to_string());

/// Returns every route. Who adds one says who may use it.
pub(super) fn routes() -> Vec<Route> {
    let own = get("/api/v1/openapi.json", Access::Anyone, "This document", async || {
        ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
    });
    let mut all = vec![own.answers("application/json", json!({"type": "object"}))];
    all.extend(machines::routes());
    all.extend(groups::routes());
    all.extend(identity::routes());
    all.extend(orders::routes());
    all.extend(boots::routes());
    all.extend(leases::routes());
    all.extend(images::routes());
    all.extend(builds::routes());
    all
}

/// Returns the router, every route of which asks [`check`] first.
pub(super) fn router(control: Control) -> Router {
    let control = Arc::new(control);
    let mut router = Router::new();
    for route in routes() {
        let rule = Rule {
            control: control.clone(),
            access: route.access,
            queries: route.queries().map(str::to_owned).collect(),
        };
        let handler = route
            .handler
            .route_layer(DefaultBodyLimit::max(route.most_bytes))
            .route_layer(from_fn_with_state(Arc::new(rule), check));
        router = router.route(route.path, handler);
    }
    router
        .fallback(async || Fault::new(StatusCode::NOT_FOUND, "there is no such path"))
        .method_not_allowed_fallback(other_method)
        .with_state(control)
}

/// What is looked at before a handler runs.
struct Rule {
    control: Arc<Control>,
    access: Access,
    queries: Vec<String>,
}

async fn check(State(rule): State<Arc<Rule>>, mut request: Request, next: Next) -> Response {
    let Some(caller) = Caller::of(&request) else {
        let text = format!("nobody knows who asks, and this needs {}", rule.access);
        return Fault::new(StatusCode::UNAUTHORIZED, text).into_response();
    };
    if let Err(fault) = known_queries(request.uri().query().unwrap_or(""), &rule.queries) {
        return fault.into_response();
    }
    tracing::debug!(
        caller = caller.name, method = %request.method(), path = request.uri().path(),
        endpoints = rule.control.endpoints.len(), "asked"
    );
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // What machines say of themselves is in many answers; no browser is to take it for anything but data.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses words behind the path that mean nothing there: a limit that is misspelt would be none.
fn known_queries(query: &str, known: &[String]) -> Result<(), Fault> {
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let name = part.split('=').next().unwrap_or_default();
        if known.iter().any(|known| known == name) {
            continue;
        }
        let name: String = name.escape_debug().take(40).collect();
        let hint = match known {
            [] => "nothing can be asked for here".to_owned(),
            known => format!("use {}", known.join(", ")),
        };
        return Err(Fault::invalid(format!("unknown `{name}` behind `?`; {hint}")));
    }
    Ok(())
}

/// Says which methods a path has: axum adds them as `Allow`.
async fn other_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods").into_response()
}
