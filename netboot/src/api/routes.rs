//! Every route, and the router that is made of them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::access::Access;
use super::idempotency::Once;
use super::peer::{Caller, Peer};
use super::problem::Fault;
use super::route::{Route, get};
use super::scope::{Denied, Scope};
use super::{
    Control, apply, audit, boots, builds, discovery, discovery_rules, events, exports, groups,
    identity, images, leases, machines, netbox, openapi, orders, secrets, take_over, tokens, users,
    webhooks,
};
use crate::boots::now_ms;

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
    all.extend(discovery::routes());
    all.extend(discovery_rules::routes());
    all.extend(orders::routes());
    all.extend(boots::routes());
    all.extend(leases::routes());
    all.extend(take_over::routes());
    all.extend(images::routes());
    all.extend(builds::routes());
    all.extend(tokens::routes());
    all.extend(users::routes());
    all.extend(secrets::routes());
    all.extend(webhooks::routes());
    all.extend(audit::routes());
    all.extend(events::routes());
    all.extend(exports::routes());
    all.extend(netbox::routes());
    all.extend(apply::routes());
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
            most_bytes: route.most_bytes,
            is_secret: route.is_secret,
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

/// How long a body may take, and how many bytes in a millisecond it may take longer for.
const BODY_TIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });
const SLOWEST: u64 = 64;

/// What is looked at before a handler runs.
struct Rule {
    control: Arc<Control>,
    access: Access,
    queries: Vec<String>,
    most_bytes: usize,
    is_secret: bool,
}

async fn check(State(rule): State<Arc<Rule>>, request: Request, next: Next) -> Response {
    let mut response = match admit(&rule, request).await {
        // What strangers are told is kept for none of them: they would push out what others are to hear again.
        Ok((caller, request))
            if request.method() == Method::POST && rule.access != Access::Anyone =>
        {
            let asked = Once { caller: &caller.name, is_secret: rule.is_secret };
            asked.run(&rule.control.inventory, request, next).await
        }
        Ok((_, request)) => next.run(request).await,
        Err(fault) => fault.into_response(),
    };
    let headers = response.headers_mut();
    // What machines say of themselves is in many answers; no browser is to take it for anything but data.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert_with(|| HeaderValue::from_static("no-store"));
    response
}

/// Finds out who asks and whether he may. Only the connection and the token count; headers that a proxy in front of
/// other servers would set mean nothing here.
async fn admit(rule: &Rule, mut request: Request) -> Result<(Caller, Request), Fault> {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let Some(ConnectInfo(peer)) = peer.cloned() else {
        return Err(Fault::new(StatusCode::UNAUTHORIZED, "nobody knows where this comes from"));
    };
    let control = &rule.control;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = if rule.access == Access::Anyone {
        Caller::nobody()
    } else {
        let known =
            control.gate.caller(&control.inventory, &peer, request.headers(), now_ms()).await;
        match known {
            Ok(caller) => caller,
            Err(fault) => {
                if fault.status() == StatusCode::UNAUTHORIZED {
                    audit::denied(control, &peer.to_string(), &method, &path, fault.detail()).await;
                }
                return Err(fault);
            }
        }
    };
    if let Err(denied) = caller.rights.check(rule.access) {
        let needed = Scope::least(rule.access).unwrap_or(Scope::Admin);
        let text = match denied {
            Denied::Scope => {
                format!("this needs the scope `{needed}`, which `{}` has not", caller.name)
            }
            Denied::Selector => {
                format!(
                    "`{}` is for some machines only, and this is not about machines",
                    caller.name
                )
            }
        };
        audit::denied(control, &caller.name, &method, &path, &text).await;
        return Err(Fault::new(StatusCode::FORBIDDEN, text));
    }
    request.extensions_mut().insert(caller.clone());
    let request = whole(request, rule.most_bytes).await?;
    known_queries(request.uri().query().unwrap_or(""), &rule.queries)?;
    Ok((caller, request))
}

/// Reads all of a body. A connection on which a part of one is still to come when the answer is sent has to be closed,
/// which a client can only tell from a server that went away.
async fn whole(request: Request, most_bytes: usize) -> Result<Request, Fault> {
    let (parts, body) = request.into_parts();
    let time = BODY_TIME + Duration::from_millis(most_bytes as u64 / SLOWEST);
    let body = tokio::time::timeout(time, to_bytes(body, most_bytes)).await.map_err(|_| {
        let text = format!("the body was not there after {} seconds", time.as_secs());
        Fault::new(StatusCode::REQUEST_TIMEOUT, text)
    })?;
    let body = body.map_err(|_| {
        let text = "the body is longer than what is read here, or broke off";
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    Ok(Request::from_parts(parts, Body::from(body)))
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
