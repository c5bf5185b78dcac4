//! Dry runs of tokens, users, webhooks, secrets, leases, and of machines that become one or two: they say what would be, check
//! what the real run checks, and leave no trace.

use hyper::Method;
use serde_json::{Value, json};

use super::tests::{MACHINES, Rig, machine};

/// All that a dry run could have written to: what lists show, how long the log of changes is, and the files.
async fn traces(rig: &Rig) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["machines", "tokens", "users", "webhooks", "secrets", "leases", "audit/verify"] {
        let (status, body) = rig.get(&format!("/api/v1/{path}")).await;
        assert_eq!(status, 200, "{path}: {body}");
        match path {
            // How far its messages have come is another matter.
            "webhooks" => all.extend(body.as_array().unwrap().iter().map(|it| it["name"].clone())),
            _ => all.push(body),
        }
    }
    let folder = rig.socket.parent().unwrap();
    all.push(json!(std::fs::read(folder.join("secrets.key")).ok()));
    all
}

async fn dry(rig: &Rig, method: Method, path: &str, body: &Value) -> (u16, Value) {
    rig.send(method, &format!("/api/v1/{path}?dry_run=true"), body).await
}

async fn with_two_machines() -> Rig {
    two_machines(Rig::start().await).await
}

async fn two_machines(rig: Rig) -> Rig {
    for number in 1..=2 {
        let mut one = machine(&format!("n{number}"), &format!("52:54:00:00:00:0{number}"), None);
        if number == 1 {
            one["macs"] = json!(["52:54:00:00:00:01", "52:54:00:00:00:11"]);
        }
        assert_eq!(rig.send(Method::POST, MACHINES, &one).await.0, 201);
    }
    rig
}

fn fields(preview: &Value) -> Vec<&str> {
    let all = preview["diff"].as_array().unwrap().iter();
    all.map(|change| change["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_would_be_added_is_shown_without_what_is_secret_and_nothing_is_written() {
    let rig = with_two_machines().await;
    let before = traces(&rig).await;
    let token = json!({"name": "ci", "scopes": ["read"], "lifetime": 0});
    let user = json!({"name": "eve", "scopes": ["read"], "password": "PASSWORDpassword"});
    let hook = json!({"name": "chat", "url": "http://127.0.0.1:9/x"});
    let secret = json!({"value": "PASSWORDsecret"});
    for (method, path, body, shown) in [
        (Method::POST, "tokens", token, "/scopes"),
        (Method::POST, "users", user, "/scopes"),
        (Method::POST, "webhooks", hook, "/url"),
        (Method::PUT, "secrets/machine/n1/p", secret, "/owner"),
    ] {
        let (status, preview) = dry(&rig, method, path, &body).await;
        assert_eq!((status, &preview["would"]), (200, &json!("add")), "{path}: {preview}");
        assert!(fields(&preview).contains(&shown), "{path}: {preview}");
        let text = preview.to_string();
        for secret in ["PASSWORD", "sha256", "kiln_", "whsec_", "argon2", "sealed"] {
            assert!(!text.contains(secret), "{path}: {text}");
        }
        assert_eq!(traces(&rig).await, before, "{path}");
    }
    let (_, preview) = dry(&rig, Method::POST, "secrets/rotate", &Value::Null).await;
    assert_eq!(preview["after"], json!({"key": "(a new key)", "secrets": 0}), "{preview}");
    assert_eq!(traces(&rig).await, before);
    rig.stop().await;
}

#[tokio::test]
async fn what_would_change_or_go_is_shown_with_what_goes_with_it() {
    let rig = with_two_machines().await;
    let user = json!({"name": "eve", "scopes": ["read"], "password": "PASSWORDpassword"});
    let login = json!({"user": "eve", "password": "PASSWORDpassword"});
    let said = json!({"metadata": {"secrets": {"q": "geheim"}}});
    for (method, path, body, expected) in [
        (Method::POST, "tokens", json!({"name": "ci", "scopes": ["read"]}), 201),
        (Method::POST, "users", user, 201),
        (Method::POST, "login", login.clone(), 200),
        (Method::POST, "login", login, 200),
        (Method::POST, "webhooks", json!({"name": "chat", "url": "http://127.0.0.1:9/x"}), 201),
        (Method::PUT, "secrets/machine/n1/p", json!({"value": "geheim"}), 204),
        (Method::PATCH, "machines/n2", said, 200),
    ] {
        let (status, body) = rig.send(method, &format!("/api/v1/{path}"), &body).await;
        assert_eq!(status, expected, "{path}: {body}");
    }
    let before = traces(&rig).await;
    let key = rig.get("/api/v1/secrets").await.1[0]["key"].clone();
    let other = json!({"password": "another-password"});
    let secret = json!({"value": "geheimnis"});
    for (method, path, body, would, diff) in [
        (
            Method::DELETE,
            "tokens/ci",
            Value::Null,
            "remove",
            json!({"field": "/name", "before": "ci"}),
        ),
        (
            Method::DELETE,
            "users/eve",
            Value::Null,
            "remove",
            json!({"field": "/sessions", "before": 2}),
        ),
        (
            Method::PUT,
            "users/eve/password",
            other,
            "change",
            json!({"field": "/sessions", "before": 2, "after": 0}),
        ),
        (
            Method::DELETE,
            "webhooks/chat",
            Value::Null,
            "remove",
            json!({"field": "/name", "before": "chat"}),
        ),
        (
            Method::DELETE,
            "secrets/machine/n1/p",
            Value::Null,
            "remove",
            json!({"field": "/owner", "before": "n1"}),
        ),
        (
            Method::POST,
            "secrets/rotate",
            Value::Null,
            "change",
            json!({"field": "/key", "before": key, "after": "(a new key)"}),
        ),
        (
            Method::POST,
            "secrets/rotate",
            Value::Null,
            "change",
            json!({"field": "/secrets", "after": 3}),
        ),
    ] {
        let (status, preview) = dry(&rig, method, path, &body).await;
        assert_eq!((status, &preview["would"]), (200, &json!(would)), "{path}: {preview}");
        assert!(preview["diff"].as_array().unwrap().contains(&diff), "{path}: {preview}");
        assert!(!preview.to_string().contains("another-password"), "{preview}");
        assert_eq!(traces(&rig).await, before, "{path}");
    }
    let (_, preview) = dry(&rig, Method::PUT, "secrets/machine/n1/p", &secret).await;
    assert_eq!((&preview["would"], fields(&preview)), (&json!("change"), vec!["/changed"]));
    let (_, preview) =
        dry(&rig, Method::PUT, "users/eve/password", &json!({"password": "x".repeat(10)})).await;
    assert_eq!(fields(&preview), ["/password", "/sessions"], "{preview}");
    let (status, preview) = dry(&rig, Method::DELETE, "leases/10.0.0.7", &Value::Null).await;
    assert_eq!((status, fields(&preview)), (200, vec!["/expires"]), "{preview}");
    assert_eq!(traces(&rig).await, before);
    rig.stop().await;
}

#[tokio::test]
async fn machines_that_would_become_one_or_two_are_both_shown() {
    let rig = with_two_machines().await;
    let before = traces(&rig).await;
    let (status, merged) =
        dry(&rig, Method::POST, "machines/n1/merge", &json!({"from": "n2"})).await;
    assert_eq!((status, &merged["would"]), (200, &json!("change")), "{merged}");
    assert_eq!(fields(&merged), ["/n1/macs", "/n2"], "{merged}");
    assert_eq!(merged["after"]["n1"]["macs"].as_array().unwrap().len(), 3);
    let part = json!({"name": "n3", "macs": ["52:54:00:00:00:11"]});
    let (status, split) = dry(&rig, Method::POST, "machines/n1/split", &part).await;
    assert_eq!((status, fields(&split)), (200, vec!["/n1/macs", "/n3"]), "{split}");
    assert_eq!(traces(&rig).await, before);
    rig.stop().await;
}

#[tokio::test]
async fn a_dry_run_is_refused_where_the_real_run_is() {
    let rig = with_two_machines().await;
    let lock = json!({"flags": ["locked"]});
    assert_eq!(rig.send(Method::PATCH, "/api/v1/machines/n2", &lock).await.0, 200);
    for name in ["ci", "chat"] {
        let token = json!({"name": name, "scopes": ["read"]});
        assert_eq!(rig.send(Method::POST, "/api/v1/tokens", &token).await.0, 201);
    }
    let before = traces(&rig).await;
    let user = |name: &str, password: &str| json!({"name": name, "scopes": ["read"], "password": password});
    for (method, path, body) in [
        (Method::POST, "tokens", json!({"name": "ci", "scopes": ["read"]})),
        (Method::POST, "tokens", json!({"name": "-", "scopes": ["read"]})),
        (Method::POST, "tokens", json!({"name": "x", "scopes": []})),
        (Method::DELETE, "tokens/none", Value::Null),
        (Method::POST, "users", user("eve", "short")),
        (Method::POST, "users", user("!", "PASSWORDpassword")),
        (Method::PUT, "users/none/password", json!({"password": "PASSWORDpassword"})),
        (Method::DELETE, "users/none", Value::Null),
        (
            Method::POST,
            "webhooks",
            json!({"name": "x", "url": "http://127.0.0.1/", "events": ["?"]}),
        ),
        (Method::DELETE, "webhooks/none", Value::Null),
        (Method::PUT, "secrets/machine/none/p", json!({"value": "x"})),
        (Method::PUT, "secrets/machine/n1/..", json!({"value": "x"})),
        (Method::PUT, "secrets/machine/n1/p", json!({"value": "x", "encoding": "hex"})),
        (Method::PUT, "secrets/machine/n1/p", json!({"value": "x".repeat(70_000)})),
        (Method::DELETE, "secrets/machine/n1/none", Value::Null),
        (Method::POST, "machines/n1/merge", json!({"from": "n1"})),
        (Method::POST, "machines/n1/merge", json!({"from": "n2"})),
        (Method::POST, "machines/n1/merge", json!({"from": "n9"})),
        (Method::POST, "machines/n1/split", json!({"name": "n2", "macs": ["52:54:00:00:00:11"]})),
        (Method::POST, "machines/n1/split", json!({"name": "n3", "macs": ["52:54:00:00:00:99"]})),
        (Method::DELETE, "leases/10.0.0.9", Value::Null),
    ] {
        let (status, tried) = dry(&rig, method.clone(), path, &body).await;
        let real = rig.send(method.clone(), &format!("/api/v1/{path}"), &body).await;
        assert!(status >= 400, "{method} {path}: {tried}");
        assert_eq!((status, tried), real, "{method} {path}");
    }
    assert_eq!(traces(&rig).await, before);
    rig.stop().await;
}

#[tokio::test]
async fn leases_of_ipv6_of_another_server_are_taken_over_where_kiln_gives_the_address() {
    let rig = two_machines(Rig::with_ipv6().await).await;
    let kept = json!({"address6": "fd00:7::50"});
    assert_eq!(rig.send(Method::PATCH, "/api/v1/machines/n2", &kept).await.0, 200);
    let end = i64::MAX / 1000;
    let lease = |address: &str, iaid: u32| json!({"address": address, "duid": "0004aabb", "iaid": iaid, "expires": end});
    let all = json!([lease("fd00:7::20", 1), lease("fd00:8::20", 2), lease("fd00:7::50", 3)]);
    for path in ["/api/v1/leases6?dry_run=true", "/api/v1/leases6", "/api/v1/leases6"] {
        let (status, done) = rig.send(Method::POST, path, &all).await;
        assert_eq!((status, &done["taken"]), (200, &json!(1)), "{path}: {done}");
        let skipped = json!([
            {"address": "fd00:8::20", "why": "no pool of this server has the address"},
            {"address": "fd00:7::50", "why": "the address is reserved for machine `n2`"},
        ]);
        assert_eq!(done["skipped"], skipped, "{path}");
    }
    let other = json!([{"address": "fd00:7::20", "duid": "0004cc", "iaid": 1, "expires": end}]);
    let (_, done) = rig.send(Method::POST, "/api/v1/leases6", &other).await;
    assert_eq!(done["skipped"][0]["why"], "0004aabb has the address", "{done}");
    for wrong in [
        json!([{"address": "10.0.0.1", "duid": "0004cc", "iaid": 1, "expires": end}]),
        json!([{"address": "fd00:7::21", "duid": "zz", "iaid": 1, "expires": end}]),
        json!([{"address": "fd00:7::21", "duid": "0004cc", "iaid": -1, "expires": end}]),
        json!([{"address": "fd00:7::21", "duid": "0004cc", "iaid": 1, "expires": end, "x": 1}]),
    ] {
        assert_eq!(rig.send(Method::POST, "/api/v1/leases6", &wrong).await.0, 400, "{wrong}");
    }
    rig.stop().await;
}
