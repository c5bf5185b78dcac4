//! Who may do what: every route, every kind of token, and what tries to come in without one.

use std::net::IpAddr;

use axum::Extension;
use axum::extract::connect_info::ConnectInfo;
use http_body_util::{BodyExt as _, Full};
use hyper::service::Service as _;
use hyper::{HeaderMap, Method, Request};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::access::{Access, Noun};
use super::peer::Peer;
use super::routes::routes;
use super::tests::{MACHINES, Rig, machine};

/// The rules, once more: who adds a route writes here who may use it.
const RULES: &str = "\
get /api/v1/openapi.json anyone
get /api/v1/machines machine:read
post /api/v1/machines machine:write
get /api/v1/machines/{key} machine:read
put /api/v1/machines/{key} machine:write
patch /api/v1/machines/{key} machine:write
delete /api/v1/machines/{key} machine:write
get /api/v1/machines/{key}/explain machine:read
get /api/v1/machines/{key}/facts machine:read
get /api/v1/machines/{key}/settings machine:read
post /api/v1/machines/{key}/merge machine:write
post /api/v1/machines/{key}/split machine:write
get /api/v1/discovery discovery:read
get /api/v1/discovery/{key} discovery:read
delete /api/v1/discovery/{key} discovery:write
post /api/v1/discovery/{key}/approve discovery:write
post /api/v1/discovery/{key}/ignore discovery:write
post /api/v1/discovery/{key}/unignore discovery:write
post /api/v1/discovery/{key}/settle discovery:write
post /api/v1/discovery/{key}/merge discovery:write
get /api/v1/discovery/rules discovery:read
post /api/v1/discovery/rules discovery:write
get /api/v1/discovery/rules/{key} discovery:read
put /api/v1/discovery/rules/{key} discovery:write
delete /api/v1/discovery/rules/{key} discovery:write
post /api/v1/discovery/rules/{key}/test discovery:read
get /api/v1/discovery/expected discovery:read
post /api/v1/discovery/expected discovery:write
delete /api/v1/discovery/expected/{key} discovery:write
get /api/v1/groups group:read
post /api/v1/groups group:write
get /api/v1/groups/{key} group:read
put /api/v1/groups/{key} group:write
patch /api/v1/groups/{key} group:write
delete /api/v1/groups/{key} group:write
get /api/v1/machines/{key}/orders order:read
post /api/v1/machines/{key}/orders order:write
get /api/v1/orders/{id} order:read
get /api/v1/boots boot:read
get /api/v1/boots/{id} boot:read
get /api/v1/boots/{id}/kernel-log boot:read
get /api/v1/boots/{id}/log boot:read
get /api/v1/leases lease:read
get /api/v1/leases/{key} lease:read
post /api/v1/leases lease:write
delete /api/v1/leases/{key} lease:write
post /api/v1/leases6 lease:write
get /api/v1/images image:read
get /api/v1/images/used image:read
get /api/v1/builds build:read
get /api/v1/builds/{image} build:read
post /api/v1/builds/{image} build:write
get /api/v1/builds/{image}/log build:read
get /api/v1/tokens token:read
post /api/v1/tokens token:write
delete /api/v1/tokens/{name} token:write
post /api/v1/login anyone
get /api/v1/users user:read
post /api/v1/users user:write
put /api/v1/users/{name}/password user:write
delete /api/v1/users/{name} user:write
get /api/v1/secrets secret:read
put /api/v1/secrets/{kind}/{owner}/{name} secret:write
delete /api/v1/secrets/{kind}/{owner}/{name} secret:write
post /api/v1/secrets/rotate secret:write
get /api/v1/webhooks webhook:read
post /api/v1/webhooks webhook:write
get /api/v1/webhooks/{name} webhook:read
delete /api/v1/webhooks/{name} webhook:write
post /api/v1/webhooks/{name}/test webhook:write
get /api/v1/webhooks/{name}/log webhook:read
get /api/v1/audit audit:read
get /api/v1/audit/verify audit:read
get /api/v1/events event:read
get /api/v1/inventory/ansible machine:read
get /api/v1/inventory/prometheus machine:read
post /api/v1/inventory/netbox machine:write
post /api/v1/apply machine:write
";

/// A stranger on the network; each test is another one, because failures are counted.
pub(super) struct Stranger<'a>(&'a Rig, IpAddr);

impl<'a> Stranger<'a> {
    pub(super) fn of(rig: &'a Rig, last: u8) -> Self {
        Self(rig, [192, 0, 2, last].into())
    }

    async fn ask(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value, HeaderMap) {
        let peer = Peer::Remote(self.1);
        let router = self.0.router.clone().layer(Extension(ConnectInfo(peer)));
        let method: Method = method.to_ascii_uppercase().parse().unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        // The stream of events has no end.
        if parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            return (parts.status.as_u16(), Value::Null, parts.headers);
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (parts.status.as_u16(), body, parts.headers)
    }

    pub(super) async fn with(
        &self,
        token: &str,
        (method, path): (&str, &str),
        body: &Value,
    ) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let (status, body, _) = self.ask((method, path), &[("authorization", &bearer)], body).await;
        (status, body)
    }
}

pub(super) async fn token(rig: &Rig, name: &str, scopes: &[&str], more: Value) -> String {
    let mut new = json!({"name": name, "scopes": scopes});
    new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, made) = rig.send(Method::POST, "/api/v1/tokens", &new).await;
    assert_eq!(status, 201, "{made}");
    made["token"].as_str().unwrap().to_owned()
}

fn filled(path: &str) -> String {
    path.replace("{key}", "n1")
        .replace("{id}", "1")
        .replace("{image}", "web")
        .replace("{name}", "x")
}

#[test]
fn every_route_has_the_rule_that_is_written_down() {
    let mut found: Vec<String> = routes()
        .iter()
        .map(|route| format!("{} {} {}", route.method, route.path, route.access))
        .collect();
    let mut expected: Vec<String> = RULES.lines().map(str::to_owned).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "a route has no rule in RULES, or another one");
}

#[tokio::test]
async fn every_route_lets_in_who_has_its_scope_and_nobody_else() {
    let rig = Rig::start().await;
    let admin = token(&rig, "admin", &["admin"], json!({})).await;
    let mut tokens = Vec::new();
    for scope in ["read", "write", "audit:read"] {
        tokens.push((
            scope.to_owned(),
            token(&rig, scope.replace(':', "-").as_str(), &[scope], json!({})).await,
        ));
    }
    for noun in Noun::ALL.into_iter().filter(|noun| !noun.is_guarded()) {
        for verb in ["read", "write"] {
            let scope = format!("{noun}:{verb}");
            let made = token(&rig, &format!("{noun}-{verb}"), &[&scope], json!({})).await;
            tokens.push((scope, made));
        }
    }
    for (index, route) in routes().into_iter().enumerate() {
        let path = filled(route.path);
        let what = (route.method, path.as_str());
        let stranger = Stranger::of(&rig, u8::try_from(index).unwrap());
        let (status, problem, headers) = stranger.ask(what, &[], &Value::Null).await;
        if route.access == Access::Anyone {
            assert!(!matches!(status, 401 | 403), "{what:?} {problem}");
            continue;
        }
        assert_eq!(status, 401, "{what:?} {problem}");
        assert_eq!(headers["www-authenticate"], "Bearer");
        let (status, _) =
            stranger.with(&format!("kiln_{}", "0".repeat(64)), what, &Value::Null).await;
        assert_eq!(status, 401, "{what:?}");
        let (Access::Read(noun) | Access::Write(noun)) = route.access else { unreachable!() };
        let reads = matches!(route.access, Access::Read(_));
        for (scope, token) in &tokens {
            let own = match scope.as_str() {
                "read" => reads && !noun.is_guarded(),
                "write" => !noun.is_guarded(),
                scope => {
                    *scope == format!("{noun}:write") || reads && *scope == format!("{noun}:read")
                }
            };
            let (status, problem) = stranger.with(token, what, &json!({})).await;
            assert_eq!(status == 403, !own, "{what:?} {scope}: {status} {problem}");
            assert_ne!(status, 401, "{what:?} {scope}");
        }
        // What the handler makes of an empty body is its own business.
        let (status, problem) = stranger.with(&admin, what, &json!({})).await;
        assert!(!matches!(status, 401 | 403), "{what:?}: {status} {problem}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_token_for_some_machines_shows_and_changes_no_others() {
    let rig = Rig::start().await;
    let labelled = |name: &str, mac: &str, rack: &str| {
        let mut machine = machine(name, mac, None);
        machine["labels"] = json!({"rack": rack});
        machine
    };
    for (name, mac, rack) in [("n1", "52:54:00:00:00:01", "r1"), ("n2", "52:54:00:00:00:07", "r2")]
    {
        let (status, added) = rig.send(Method::POST, MACHINES, &labelled(name, mac, rack)).await;
        assert_eq!(status, 201, "{added}");
    }
    let own = token(&rig, "own", &["admin"], json!({"selector": "rack=r1"})).await;
    let stranger = Stranger::of(&rig, 1);
    let (status, list) = stranger.with(&own, ("get", MACHINES), &Value::Null).await;
    assert_eq!((status, list.as_array().unwrap().len(), &list[0]["name"]), (200, 1, &json!("n1")));
    // The lease of the rig is of n2.
    let (_, leases) = stranger.with(&own, ("get", "/api/v1/leases"), &Value::Null).await;
    assert_eq!(leases, json!([]));
    for route in routes() {
        let (Access::Read(noun) | Access::Write(noun)) = route.access else { continue };
        let path = route.path.replace("{key}", "n2").replace("{id}", "1");
        let path = filled(&path);
        let mut body = Value::Null;
        if route.body.is_some() {
            body = labelled("n2", "52:54:00:00:00:07", "r2");
        }
        let (status, answer) = stranger.with(&own, (route.method, &path), &body).await;
        let one = route.path.contains('{');
        let good = match (noun.is_of_machines(), one) {
            (false, _) => status == 403,
            (true, true) => status == 404 || status == 400,
            (true, false) if status == 200 => !answer.to_string().contains("n2"),
            (true, false) => status == 403 || status == 400,
        };
        assert!(good, "{} {path}: {status} {answer}", route.method);
    }
    // Out of its reach it can put none, and take none into it.
    let out = stranger
        .with(&own, ("patch", "/api/v1/machines/n1"), &json!({"labels": {"rack": "r2"}}))
        .await;
    assert_eq!(out.0, 403, "{out:?}");
    let fine = stranger
        .with(&own, ("patch", "/api/v1/machines/n1"), &json!({"labels": {"role": "db"}}))
        .await;
    assert_eq!((fine.0, &fine.1["labels"]["rack"]), (200, &json!("r1")));
    let both = json!({"macs": ["52:54:00:00:00:01", "52:54:00:00:00:02"]});
    assert_eq!(stranger.with(&own, ("patch", "/api/v1/machines/n1"), &both).await.0, 200);
    let half = json!({"name": "x", "macs": ["52:54:00:00:00:02"]});
    let split = stranger.with(&own, ("post", "/api/v1/machines/n1/split"), &half).await;
    assert_eq!(split.0, 403, "the other half would have no labels: {split:?}");
    assert_eq!(rig.get("/api/v1/machines/x").await.0, 404);
    let (_, other) = rig.get("/api/v1/machines/n2").await;
    assert_eq!(other["revision"], 1, "{other}");
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_checked_is_refused() {
    let rig = Rig::start().await;
    let stranger = Stranger::of(&rig, 1);
    // No token was ever made.
    let unknown = format!("kiln_{}", "a".repeat(64));
    assert_eq!(stranger.with(&unknown, ("get", MACHINES), &Value::Null).await.0, 401);
    let good = token(&rig, "good", &["read"], json!({})).await;
    assert_eq!(stranger.with(&good, ("get", MACHINES), &Value::Null).await.0, 200);
    // It ended, or the clock says that it was not made yet.
    for (name, created, expires) in
        [("old", 1, Some(2)), ("future", crate::boots::now_ms() + 3_600_000, None::<i64>)]
    {
        let token = format!("kiln_{:0>64}", name.len());
        let doc = super::tokens::TokenDoc {
            name: name.to_owned(),
            sha256: super::gate::sha256(&token),
            scopes: vec!["admin".parse().unwrap()],
            selector: None,
            created,
            created_by: String::new(),
            expires,
            user: None,
        };
        rig.inventory.add(&doc).await.unwrap();
        let (status, problem) = stranger.with(&token, ("get", MACHINES), &Value::Null).await;
        assert_eq!(status, 401, "{name} {problem}");
    }
    // One that is revoked is good for nothing at once.
    assert_eq!(rig.send(Method::DELETE, "/api/v1/tokens/good", &Value::Null).await.0, 204);
    assert_eq!(stranger.with(&good, ("get", MACHINES), &Value::Null).await.0, 401);
    let kept = token(&rig, "kept", &["admin"], json!({})).await;
    rig.inventory.close().await;
    let (status, problem) = stranger.with(&kept, ("get", MACHINES), &Value::Null).await;
    assert_eq!((status, problem["type"].as_str()), (503, Some("urn:kiln:problem:unavailable")));
    rig.stop().await;
}

#[tokio::test]
async fn headers_of_a_proxy_let_nobody_in() {
    let rig = Rig::start().await;
    let good = token(&rig, "good", &["read"], json!({})).await;
    let good = format!("Bearer {good}");
    let good = good.as_str();
    for (index, headers) in [
        &[("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")][..],
        &[("forwarded", "for=127.0.0.1;proto=https")],
        &[("x-forwarded-user", "root"), ("x_forwarded_user", "root"), ("x-remote-user", "root")],
        &[("remote_user", "admin"), ("remote-user", "admin"), ("ssl_client_s_dn", "CN=root")],
        &[("x-forwarded-access-token", good), ("proxy-authorization", good)],
        &[("x-authorization", good), ("cookie", "token=kiln_0")],
        &[("authorization", good), ("authorization", "Bearer kiln_other")],
        &[("authorization", "Basic cm9vdDpyb290")],
        &[("x-http-method-override", "DELETE")],
    ]
    .into_iter()
    .enumerate()
    {
        let stranger = Stranger::of(&rig, u8::try_from(index).unwrap());
        let (status, problem, _) = stranger.ask(("get", MACHINES), headers, &Value::Null).await;
        assert_eq!(status, 401, "{headers:?} {problem}");
    }
    // Another method than the one of the request is not asked for by a header.
    let stranger = Stranger::of(&rig, 99);
    let headers = [("authorization", good), ("x-http-method-override", "DELETE")];
    let (status, _, _) = stranger.ask(("get", MACHINES), &headers, &Value::Null).await;
    assert_eq!(status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn who_guesses_waits_and_is_written_down_but_not_without_bound() {
    let rig = Rig::start().await;
    let good = token(&rig, "good", &["machine:read"], json!({})).await;
    let stranger = Stranger::of(&rig, 1);
    let wrong = format!("kiln_{}", "b".repeat(64));
    for _ in 0..10 {
        assert_eq!(stranger.with(&wrong, ("get", MACHINES), &Value::Null).await.0, 401);
    }
    assert_eq!(stranger.with(&good, ("get", MACHINES), &Value::Null).await.0, 429);
    let other = Stranger::of(&rig, 2);
    for _ in 0..50 {
        let (status, _) = other.with(&good, ("post", MACHINES), &json!({})).await;
        assert_eq!(status, 403);
    }
    let (_, denied) = rig.get("/api/v1/audit?noun=access").await;
    let denied = denied.as_array().unwrap();
    // More are in the log of the server only.
    assert_eq!(denied.len(), 30);
    assert_eq!((&denied[0]["verb"], &denied[0]["actor"]), (&json!("deny"), &json!("192.0.2.1")));
    assert_eq!(denied[29]["actor"], "token good");
    // Hashes are in the rows too, and have four of any letter now and then.
    let told = |row: &Value| row.to_string().contains(&wrong[5..]);
    assert!(!denied.iter().any(told), "no token is written down");
    rig.stop().await;
}

#[tokio::test]
async fn a_user_logs_in_with_a_password_until_it_changes() {
    let rig = Rig::start().await;
    let user = json!({"name": "eve", "password": "correct horse", "scopes": ["machine:read"]});
    let (status, added) = rig.send(Method::POST, "/api/v1/users", &user).await;
    assert_eq!((status, added.get("password")), (201, None), "{added}");
    let short = json!({"name": "bob", "password": "short", "scopes": ["read"]});
    assert_eq!(rig.send(Method::POST, "/api/v1/users", &short).await.0, 400);
    let stranger = Stranger::of(&rig, 1);
    let login = |user: &str, password: &str| json!({"user": user, "password": password});
    let path = ("post", "/api/v1/login");
    for wrong in [login("eve", "wrong horse"), login("nobody", "correct horse"), login("eve", "")] {
        let (status, problem, _) = stranger.ask(path, &[], &wrong).await;
        assert_eq!(status, 401, "{problem}");
    }
    let (status, session, _) = stranger.ask(path, &[], &login("eve", "correct horse")).await;
    assert_eq!(status, 200, "{session}");
    let session = session["token"].as_str().unwrap();
    assert_eq!(stranger.with(session, ("get", MACHINES), &Value::Null).await.0, 200);
    assert_eq!(stranger.with(session, ("get", "/api/v1/users"), &Value::Null).await.0, 403);
    let password = "/api/v1/users/eve/password";
    let changed = rig.send(Method::PUT, password, &json!({"password": "another horse"})).await;
    assert_eq!(changed.0, 204, "{changed:?}");
    assert_eq!(stranger.with(session, ("get", MACHINES), &Value::Null).await.0, 401);
    let (_, log) = rig.get("/api/v1/audit").await;
    let log = log.to_string();
    assert!(
        !log.contains("horse") && !log.contains("argon2") && !log.contains("\"sha256\""),
        "{log}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn ten_megabytes_are_refused_before_they_are_read() {
    let rig = Rig::start().await;
    let admin = token(&rig, "admin", &["admin"], json!({})).await;
    let mut large = machine("n2", "52:54:00:00:00:02", None);
    large["metadata"] = json!({"text": "x".repeat(10 << 20)});
    let stranger = Stranger::of(&rig, 1);
    for path in [MACHINES, "/api/v1/tokens", "/api/v1/users", "/api/v1/login"] {
        let (status, problem) = stranger.with(&admin, ("post", path), &large).await;
        assert_eq!(
            (status, &problem["type"]),
            (413, &json!("urn:kiln:problem:too-large")),
            "{path}"
        );
    }
    rig.stop().await;
}

#[tokio::test]
async fn passwords_that_are_tried_at_once_are_no_more_than_those_tried_one_after_the_other() {
    let rig = Rig::start().await;
    let eve = json!({"name": "eve", "password": "correct horse", "scopes": ["read"]});
    assert_eq!(rig.send(Method::POST, "/api/v1/users", &eve).await.0, 201);
    let stranger = Stranger::of(&rig, 9);
    let path = ("post", "/api/v1/login");
    let right = json!({"user": "eve", "password": "correct horse"});
    for _ in 0..12 {
        assert_eq!(stranger.ask(path, &[], &right).await.0, 200, "who is right is not counted");
    }
    let wrong = json!({"user": "eve", "password": "wrong horse"});
    let tries = (0..30).map(|_| stranger.ask(path, &[("idempotency-key", "")], &wrong));
    let statuses = futures_util::future::join_all(tries).await;
    let count = |wanted| statuses.iter().filter(|(status, ..)| *status == wanted).count();
    assert_eq!((count(401), count(429)), (10, 20), "and a key of nobody's is not looked at");
    rig.stop().await;
}
