//! Headers: what the document names is what routes look at and answer.

use std::collections::HashMap;

use hyper::Method;
use serde_json::{Value, json};

use super::routes::routes;
use super::tests::{MACHINES, Rig, machine};

const GROUPS: &str = "/api/v1/groups";
const RULES: &str = "/api/v1/discovery/rules";

/// Fills an inventory with one thing of each kind that has a revision.
async fn seed(rig: &Rig) {
    for (list, new) in [
        (MACHINES, machine("n1", "52:54:00:00:00:01", None)),
        (GROUPS, json!({"name": "n1", "selector": "a=b"})),
        (RULES, json!({"name": "n1", "selector": "*", "action": "hold"})),
        ("/api/v1/webhooks", json!({"name": "n1", "url": "http://127.0.0.1:9/"})),
    ] {
        let (status, added) = rig.send(Method::POST, list, &new).await;
        assert_eq!(status, 201, "{list} {added}");
    }
}

fn filled(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    for part in &mut parts {
        if part.starts_with('{') {
            *part = "n1";
        }
    }
    parts.join("/")
}

#[tokio::test]
async fn the_document_names_the_headers_that_routes_look_at() {
    for route in routes().into_iter().filter(|route| route.method != "get") {
        let rig = Rig::start().await;
        seed(&rig).await;
        let method: Method = route.method.to_ascii_uppercase().parse().unwrap();
        let path = filled(&route.path.replace("/discovery/{key}", "/discovery/1"));
        let what = format!("{method} {path}");
        for (header, wrong, looks) in
            [("if-match", "3", route.condition), ("idempotency-key", "", route.may_come_twice())]
        {
            let headers = [(header, wrong)];
            let (_, answer, _) = rig.full(method.clone(), &path, &headers, &json!({})).await;
            let text = answer["detail"].as_str().unwrap_or_default().to_ascii_lowercase();
            assert_eq!(text.contains(&format!("`{header}`")), looks, "{what}: {answer}");
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_document_names_the_answers_that_have_a_revision() {
    let rig = Rig::start().await;
    seed(&rig).await;
    let tagged: HashMap<(&str, &str), bool> =
        routes().iter().map(|route| ((route.method, route.path), route.tagged)).collect();
    let group = json!({"name": "g2", "selector": "a=b"});
    let rule = json!({"name": "r2", "selector": "*", "action": "hold"});
    let nothing = Value::Null;
    let of = |name: &str, document: &Value| {
        let mut document = document.clone();
        document["name"] = json!(name);
        document
    };
    for (method, path, body) in [
        ("get", "/api/v1/machines/{key}", nothing.clone()),
        ("get", "/api/v1/machines/{key}/settings", nothing.clone()),
        ("post", MACHINES, machine("n2", "52:54:00:00:00:02", None)),
        ("put", "/api/v1/machines/{key}", machine("n1", "52:54:00:00:00:01", None)),
        ("patch", "/api/v1/machines/{key}", json!({"cmdline": "quiet"})),
        ("get", "/api/v1/groups/{key}", nothing.clone()),
        ("post", GROUPS, group.clone()),
        ("put", "/api/v1/groups/{key}", of("n1", &group)),
        ("patch", "/api/v1/groups/{key}", json!({"priority": 7})),
        ("get", "/api/v1/discovery/rules/{key}", nothing.clone()),
        ("post", RULES, rule.clone()),
        ("put", "/api/v1/discovery/rules/{key}", of("n1", &rule)),
        ("get", "/api/v1/webhooks/{name}", nothing.clone()),
        ("delete", "/api/v1/machines/{key}", nothing),
    ] {
        let verb: Method = method.to_ascii_uppercase().parse().unwrap();
        let (status, answer, headers) = rig.full(verb, &filled(path), &[], &body).await;
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        assert_eq!(headers.contains_key("etag"), tagged[&(method, path)], "{method} {path}");
    }
    rig.stop().await;
}
