//! The log of changes has a row for whatever somebody does: every route that is no reading is walked.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::discovery_tests::see;
use super::feed::{self, Cursor, Filter};
use super::openapi;
use super::routes::routes;
use super::scope::Rights;
use super::tests::{MACHINES, Rig, machine};

/// Routes that change nothing although they are no GET, and why each of them has no row.
const WITHOUT_A_ROW: [(&str, &str); 1] =
    [("post /api/v1/discovery/rules/{key}/test", "says what a rule would do, and does nothing")];

/// What is asked of each other route, in an order in which every one of them succeeds, and of which noun its row is.
fn steps() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let machine = |name: &str, last: u8| machine(name, &format!("52:54:00:00:00:0{last}"), None);
    let group = json!({"name": "g1", "selector": "rack=r1"});
    let rule = json!({"name": "rule", "selector": "*", "action": "hold"});
    let other_rule = json!({"name": "rule", "selector": "*", "action": "hold", "priority": 3});
    let user = json!({"name": "eve", "password": "correct horse", "scopes": ["read"]});
    let login = json!({"user": "eve", "password": "correct horse"});
    let other_password = json!({"password": "another horse"});
    let hook = json!({"name": "chat", "url": "http://127.0.0.1:9/", "events": ["user"]});
    let two = ["52:54:00:00:00:01", "52:54:00:00:00:11"];
    let both = json!({"name": "n1", "macs": two, "cmdline": "quiet"});
    let netbox = json!([{"name": "box", "interfaces": [{"mac_address": "52:54:00:00:00:08"}]}]);
    let files = json!({"machines": [{"name": "file", "macs": ["52:54:00:00:00:0f"]}]});
    let end = i64::MAX / 1000;
    let four = json!([{"address": "10.0.0.101", "mac": "52:54:00:00:00:0a", "expires": end}]);
    let six = json!([{"address": "fd00:7::20", "duid": "0004aabb", "iaid": 1, "expires": end}]);
    let g2 = json!({"name": "g1", "selector": "rack=r2"});
    vec![
        ("post /api/v1/machines", "machines", machine("n1", 1), "machine"),
        (
            "post /api/v1/machines/{key}/orders",
            "machines/n1/orders",
            json!({"kind": "reboot"}),
            "order",
        ),
        ("put /api/v1/machines/{key}", "machines/n1", both, "machine"),
        ("patch /api/v1/machines/{key}", "machines/n1", json!({"image": "db"}), "machine"),
        (
            "post /api/v1/machines/{key}/split",
            "machines/n1/split",
            json!({"name": "n2", "macs": [two[1]]}),
            "machine",
        ),
        (
            "post /api/v1/machines/{key}/merge",
            "machines/n1/merge",
            json!({"from": "n2"}),
            "machine",
        ),
        ("post /api/v1/groups", "groups", group, "group"),
        ("put /api/v1/groups/{key}", "groups/g1", g2, "group"),
        ("patch /api/v1/groups/{key}", "groups/g1", json!({"priority": 7}), "group"),
        (
            "post /api/v1/discovery/{key}/ignore",
            "discovery/52:54:00:00:00:21/ignore",
            json!({}),
            "discovery",
        ),
        (
            "post /api/v1/discovery/{key}/unignore",
            "discovery/52:54:00:00:00:21/unignore",
            json!({}),
            "discovery",
        ),
        (
            "post /api/v1/discovery/{key}/settle",
            "discovery/52:54:00:00:00:21/settle",
            json!({}),
            "discovery",
        ),
        (
            "post /api/v1/discovery/{key}/approve",
            "discovery/52:54:00:00:00:21/approve",
            json!({"name": "n3"}),
            "discovery",
        ),
        (
            "post /api/v1/discovery/{key}/merge",
            "discovery/52:54:00:00:00:22/merge",
            json!({"machine": "n3"}),
            "discovery",
        ),
        ("delete /api/v1/discovery/{key}", "discovery/52:54:00:00:00:23", Value::Null, "discovery"),
        ("post /api/v1/discovery/rules", "discovery/rules", rule, "discovery-rule"),
        ("put /api/v1/discovery/rules/{key}", "discovery/rules/rule", other_rule, "discovery-rule"),
        (
            "delete /api/v1/discovery/rules/{key}",
            "discovery/rules/rule",
            Value::Null,
            "discovery-rule",
        ),
        (
            "post /api/v1/discovery/expected",
            "discovery/expected",
            json!({"machines": [{"name": "w1", "serial": "S-1"}]}),
            "expected",
        ),
        (
            "delete /api/v1/discovery/expected/{key}",
            "discovery/expected/w1",
            Value::Null,
            "expected",
        ),
        ("post /api/v1/leases", "leases", four, "lease"),
        ("delete /api/v1/leases/{key}", "leases/10.0.0.101", Value::Null, "lease"),
        ("post /api/v1/leases6", "leases6", six, "lease"),
        ("post /api/v1/builds/{image}", "builds/web", Value::Null, "build"),
        ("post /api/v1/tokens", "tokens", json!({"name": "ci", "scopes": ["read"]}), "token"),
        ("delete /api/v1/tokens/{name}", "tokens/ci", Value::Null, "token"),
        ("post /api/v1/users", "users", user, "user"),
        ("post /api/v1/login", "login", login, "token"),
        ("put /api/v1/users/{name}/password", "users/eve/password", other_password, "user"),
        ("delete /api/v1/users/{name}", "users/eve", Value::Null, "user"),
        ("post /api/v1/secrets/rotate", "secrets/rotate", Value::Null, "secret"),
        (
            "put /api/v1/secrets/{kind}/{owner}/{name}",
            "secrets/machine/n1/p",
            json!({"value": "v"}),
            "secret",
        ),
        (
            "delete /api/v1/secrets/{kind}/{owner}/{name}",
            "secrets/machine/n1/p",
            Value::Null,
            "secret",
        ),
        ("post /api/v1/webhooks", "webhooks", hook, "webhook"),
        ("post /api/v1/webhooks/{name}/test", "webhooks/chat/test", Value::Null, "webhook"),
        ("delete /api/v1/webhooks/{name}", "webhooks/chat", Value::Null, "webhook"),
        ("post /api/v1/inventory/netbox", "inventory/netbox", netbox, "machine"),
        (
            "post /api/v1/apply",
            "apply",
            json!({"source": "lab", "prune": true, "files": files}),
            "machine",
        ),
        ("delete /api/v1/groups/{key}", "groups/g1", Value::Null, "group"),
        ("delete /api/v1/machines/{key}", "machines/n1", Value::Null, "machine"),
    ]
}

/// Returns the rows after one.
async fn rows(rig: &Rig, after: &Value) -> Vec<Value> {
    let (status, rows) = rig.get(&format!("/api/v1/audit?after={after}")).await;
    assert_eq!(status, 200, "{rows}");
    rows.as_array().unwrap().clone()
}

async fn ready() -> Rig {
    let rig = Rig::with_everything().await;
    for last in [1, 2, 3] {
        see(&rig, &format!("52:54:00:00:00:2{last}"), None).await;
    }
    for _ in 0..600 {
        if rig.get("/api/v1/builds/web").await.0 == 200 {
            return rig;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the folder of specifications is not read");
}

#[tokio::test]
async fn every_route_that_is_no_reading_is_in_the_log_of_changes_with_who_asked() {
    let rig = ready().await;
    let mut known: Vec<String> =
        WITHOUT_A_ROW.iter().map(|(route, _)| (*route).to_owned()).collect();
    let mut last = json!(0);
    for row in rows(&rig, &last).await {
        last = row["id"].clone();
    }
    for (route, path, body, noun) in steps() {
        known.push(route.to_owned());
        let method: Method = route.split(' ').next().unwrap().to_uppercase().parse().unwrap();
        let path = format!("/api/v1/{path}");
        let (status, answer) = rig.send(method, &path, &body).await;
        assert!((200..300).contains(&status), "{route}: {status} {answer}");
        let new = rows(&rig, &last).await;
        let own = new.iter().find(|row| row["noun"] == noun);
        let own = own.unwrap_or_else(|| panic!("{route}: no row of `{noun}` in {new:?}"));
        let who = own["actor"].as_str().unwrap();
        let expected = if route.ends_with("/login") { "user eve" } else { "uid " };
        assert!(who.starts_with(expected), "{route}: {who}");
        assert!(!own["name"].as_str().unwrap().is_empty(), "{route}: {own}");
        last = new.last().unwrap()["id"].clone();
        if route == "post /api/v1/machines" {
            rig.boot("n1", [10, 0, 0, 100].into()).await;
        }
    }
    let document = openapi::document(&routes());
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys().filter(|method| *method != "get");
        all.extend(methods.map(|method| format!("{method} {path}")));
    }
    all.sort();
    known.sort();
    assert_eq!(all, known, "a route has neither a step here nor a reason to have no row");
    let (_, verified) = rig.get("/api/v1/audit/verify").await;
    assert_eq!(verified.get("broken"), None, "{verified}");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_done_to_leases_and_builds_is_told_with_what_was_asked() {
    let rig = ready().await;
    let n7 = machine("n7", "52:54:00:00:00:07", None);
    assert_eq!(rig.send(Method::POST, MACHINES, &n7).await.0, 201);
    let end = i64::MAX / 1000;
    let lease = |last: u8| {
        let (address, mac) = (format!("10.0.0.{last}"), format!("52:54:00:00:01:{last:02x}"));
        json!({"address": address, "mac": mac, "expires": end})
    };
    // The second one is in no pool.
    let all = json!([lease(101), lease(50), lease(100)]);
    let (status, taken) = rig.send(Method::POST, "/api/v1/leases", &all).await;
    assert_eq!((status, &taken["taken"]), (200, &json!(2)), "{taken}");
    assert_eq!(rig.send(Method::DELETE, "/api/v1/leases/n7", &Value::Null).await.0, 204);
    assert_eq!(rig.send(Method::DELETE, "/api/v1/leases/n7", &Value::Null).await.0, 409);
    let arm = "/api/v1/builds/web?arch=arm64";
    assert_eq!(rig.send(Method::POST, arm, &Value::Null).await.0, 202);
    assert_eq!(rig.send(Method::POST, "/api/v1/builds/none", &Value::Null).await.0, 404);
    let (_, rows) = rig.get("/api/v1/audit?noun=lease").await;
    let (taken, ended) = (&rows[0], &rows[1]);
    assert_eq!(
        (&taken["verb"], &taken["after"]["taken"], &taken["after"]["skipped"]),
        (&json!("add"), &json!(2), &json!(1))
    );
    assert_eq!(taken["after"]["addresses"], json!(["10.0.0.100-10.0.0.101"]));
    assert_eq!((&ended["verb"], &ended["name"]), (&json!("remove"), &json!("10.0.0.7")));
    assert_eq!(ended["before"]["machine"], "n7", "{ended}");
    assert_eq!(rows.as_array().unwrap().len(), 2, "what had ended before is no row");
    let (_, builds) = rig.get("/api/v1/audit?noun=build").await;
    let expected = json!({"arch": "arm64"});
    assert_eq!((&builds[0]["name"], &builds[0]["after"]), (&json!("web"), &expected), "{builds}");
    assert_eq!(builds.as_array().unwrap().len(), 1, "{builds}");
    rig.stop().await;
}

#[tokio::test]
async fn who_may_see_some_machines_hears_of_orders_and_leases_of_these() {
    let rig = Rig::start().await;
    for (name, last, rack) in [("n1", 1, "r1"), ("n7", 7, "r2")] {
        let mut new = machine(name, &format!("52:54:00:00:00:0{last}"), None);
        new["labels"] = json!({"rack": rack});
        assert_eq!(rig.send(Method::POST, MACHINES, &new).await.0, 201);
        rig.boot(name, [10, 0, 0, last].into()).await;
        let orders = format!("{MACHINES}/{name}/orders");
        let (status, given) = rig.send(Method::POST, &orders, &json!({"kind": "reboot"})).await;
        assert_eq!(status, 201, "{given}");
    }
    assert_eq!(rig.send(Method::DELETE, "/api/v1/leases/n7", &Value::Null).await.0, 204);
    let heard = async |selector: &str| {
        let machines = Some(std::sync::Arc::new(selector.parse().unwrap()));
        let scopes = ["read".parse().unwrap()].as_slice().into();
        let rights = Rights::Some { scopes, machines };
        let nouns = feed::nouns("order,lease").unwrap();
        let filter = Filter { rights, nouns, name: None, selector: None };
        let (events, _) =
            feed::read(&rig.inventory, &filter, &mut Cursor::default()).await.unwrap();
        let word = |event: feed::Event| format!("{} {} {}", event.noun, event.name, event.what);
        events.into_iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(heard("rack=r1").await, ["order n1 add"]);
    assert_eq!(heard("rack=r2").await, ["order n7 add", "lease 10.0.0.7 remove"]);
    assert!(heard("rack=r3").await.is_empty());
    rig.stop().await;
}
