//! Lists: all of them come in parts and with the fields that are wanted.

use hyper::Method;
use serde_json::{Value, json};

use super::openapi::document;
use super::routes::routes;
use super::tests::{MACHINES, Rig, machine};

/// Lists that have no parts, and why.
const WHOLE: &[(&str, &str)] = &[
    ("/api/v1/boots/{id}/log", "the lines of one boot, whose number is bounded"),
    ("/api/v1/images/used", "what is left out would be taken for unused"),
    ("/api/v1/inventory/prometheus", "Prometheus says what it is"),
    ("/api/v1/webhooks/{name}/log", "the last fifty, which are in memory"),
];

#[test]
fn every_list_comes_in_parts_unless_it_is_said_why_not() {
    let document = document(&routes());
    let mut whole = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let operation = &methods["get"];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if schema["type"] != "array" {
            continue;
        }
        let takes = |name: &str| {
            let mut all = operation["parameters"].as_array().unwrap().iter();
            all.any(|parameter| parameter["name"] == name && parameter["in"] == "query")
        };
        if !["limit", "after", "fields"].into_iter().all(takes) {
            whole.push(path.as_str());
        }
    }
    whole.sort_unstable();
    assert_eq!(whole, WHOLE.iter().map(|(path, _)| *path).collect::<Vec<_>>());
}

/// Follows a list from part to part.
async fn parts(rig: &Rig, mut path: String) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let (status, part, headers) = rig.full(Method::GET, &path, &[], &Value::Null).await;
        assert_eq!(status, 200, "{path}: {part}");
        let items = part.as_array().unwrap();
        assert!(items.len() <= 2, "{path}: {part}");
        all.extend(items.iter().cloned());
        let Some(link) = headers.get("link") else { return all };
        let link = link.to_str().unwrap();
        path = link[1..link.find('>').unwrap()].to_owned();
    }
}

#[tokio::test]
async fn what_comes_in_parts_is_the_whole_list() {
    let rig = Rig::start().await;
    let numbered = |number: i32| {
        let name = format!("x{number}");
        let expected = json!({"name": name, "serial": format!("S-{number}"), "labels": {}});
        let user = json!({"name": name, "password": "long enough", "scopes": ["read"]});
        // The strongest is the last one that is added, and comes first in the whole list.
        let group = json!({"name": name, "selector": "a=b", "priority": number});
        let rule = json!({"name": name, "selector": "*", "action": "hold", "priority": number});
        // A machine that is expected has no name of one that is there.
        let there = machine(&format!("m{number}"), &format!("52:54:00:00:01:0{number}"), None);
        [
            (MACHINES, there),
            ("/api/v1/groups", group),
            ("/api/v1/discovery/rules", rule),
            ("/api/v1/discovery/expected", json!({"machines": [expected]})),
            ("/api/v1/tokens", json!({"name": name, "scopes": ["read"]})),
            ("/api/v1/users", user),
            ("/api/v1/webhooks", json!({"name": name, "url": "http://127.0.0.1:9/"})),
        ]
    };
    for number in 1..=5 {
        for (list, new) in numbered(number) {
            let (status, added) = rig.send(Method::POST, list, &new).await;
            assert_eq!(status, 201, "{list} {added}");
        }
        let path = format!("/api/v1/secrets/machine/m{number}/password");
        let (status, set) = rig.send(Method::PUT, &path, &json!({"value": "x"})).await;
        assert_eq!(status, 204, "{set}");
    }
    for list in numbered(1).map(|(list, _)| list).into_iter().chain(["/api/v1/secrets"]) {
        let (status, whole) = rig.get(list).await;
        assert_eq!((status, whole.as_array().map(Vec::len)), (200, Some(5)), "{list} {whole}");
        let mut whole = whole.as_array().unwrap().clone();
        let mut together = parts(&rig, format!("{list}?limit=2")).await;
        for all in [&mut whole, &mut together] {
            // How far the messages of webhooks have come is another matter.
            all.iter_mut().filter_map(Value::as_object_mut).for_each(|one| {
                one.retain(|field, _| field != "position" && field != "failing_since");
            });
            all.sort_by_key(ToString::to_string);
        }
        assert_eq!(together, whole, "{list}");
        let (wanted, other) = match list {
            "/api/v1/groups" => ("group.name", "machines"),
            "/api/v1/discovery/rules" => ("rule.name", "revision"),
            _ => ("name", "id"),
        };
        let chosen = parts(&rig, format!("{list}?limit=2&fields={wanted}")).await;
        assert_eq!(chosen.len(), 5, "{list}");
        for one in &chosen {
            let pointer = format!("/{}", wanted.replace('.', "/"));
            assert!(one.pointer(&pointer).is_some() && one.get(other).is_none(), "{one}");
        }
        let (status, problem) = rig.get(&format!("{list}?fields=nothing")).await;
        assert_eq!(status, 400, "{list} {problem}");
    }
    let (_, groups) = rig.get("/api/v1/groups").await;
    assert_eq!(groups[0]["group"]["name"], "x5", "all of them come by their strength");
    for (path, whole) in [
        ("/api/v1/builds?limit=1&fields=image", json!([])),
        ("/api/v1/images?limit=1&fields=images", json!({"images": {}})),
    ] {
        assert_eq!(rig.get(path).await, (200, whole), "{path}");
    }
    rig.stop().await;
}
