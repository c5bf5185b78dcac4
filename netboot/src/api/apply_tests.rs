//! What files say, over the socket.

use hyper::Method;
use serde_json::{Value, json};

use super::tests::{MACHINES, Rig, machine};

const APPLY: &str = "/api/v1/apply";
const TRY: &str = "/api/v1/apply?dry_run=true";

#[tokio::test]
async fn files_are_tried_applied_and_found_to_be_applied() {
    let rig = Rig::start().await;
    let n1 = machine("n1", "52:54:00:00:00:01", Some("10.0.0.9"));
    let group = json!({"name": "web", "selector": "*", "settings": {"cmdline": "quiet"}});
    let rule = json!({"name": "rack1", "selector": "arch=x86_64", "action": "ignore"});
    let files = json!({"machines": [n1], "groups": [group], "discovery-rules": [rule]});
    let body = json!({"source": "lab", "prune": true, "files": files});
    let (status, tried) = rig.send(Method::POST, TRY, &body).await;
    assert_eq!((status, &tried["changes"][0]["verb"]), (200, &json!("add")), "{tried}");
    assert_eq!(rig.get(MACHINES).await, (200, json!([])));
    let (status, done) = rig.send(Method::POST, APPLY, &body).await;
    assert_eq!((status, &done["changes"]), (200, &tried["changes"]));
    let (status, same) = rig.send(Method::POST, APPLY, &body).await;
    assert_eq!((status, &same["unchanged"], &same["changes"]), (200, &json!(3), &json!([])));
    // What was seen in a trial is what is done, or nothing.
    let mut stale = json!({"source": "lab", "prune": true, "files": {}});
    stale["unless_after"] = tried["after"].clone();
    let (status, _) = rig.send(Method::POST, APPLY, &stale).await;
    assert_eq!(status, 412);
    let mut changed = body.clone();
    changed["files"]["machines"][0]["cmdline"] = json!("debug");
    changed["files"]["groups"][0]["settings"]["metadata"] = json!({"secrets": {"a": "hunter2"}});
    let (status, answer) = rig.send(Method::POST, APPLY, &changed).await;
    assert_eq!(status, 200, "{answer}");
    let diff = json!([{"field": "/cmdline", "after": "debug"}]);
    assert_eq!(answer["changes"][0]["diff"], diff);
    assert!(!answer.to_string().contains("hunter2"), "{answer}");
    // The machine is served anew without a restart.
    let (_, settings) = rig.get("/api/v1/machines/n1/settings").await;
    let said = |value: &str| settings.to_string().contains(&format!(r#""value":"{value}""#));
    assert!(said("quiet") && said("debug"), "{settings}");
    rig.stop().await;
}

#[tokio::test]
async fn files_that_are_wrong_in_one_place_change_nothing_and_the_place_is_named() {
    let rig = Rig::start().await;
    let good = machine("n1", "52:54:00:00:00:01", None);
    let with = |other: Value| json!({"files": {"machines": [good, other]}});
    let mut unknown = machine("n2", "52:54:00:00:00:02", None);
    unknown["imag"] = json!("web");
    for (body, status, pointer) in [
        (with(machine("n2", "52:54:00:00:00:01", None)), 409, "/files/machines/1"),
        (with(machine("N2", "52:54:00:00:00:02", None)), 400, "/files/machines/1"),
        (with(machine("n2", "x", None)), 400, "/files/machines/1/macs/0"),
        (with(unknown), 400, "/files/machines/1/imag"),
        (json!({"source": "a b", "files": {}}), 400, ""),
    ] {
        let (found, problem) = rig.send(Method::POST, APPLY, &body).await;
        assert_eq!(found, status, "{problem}");
        assert_eq!(problem["pointer"].as_str().unwrap_or_default(), pointer, "{problem}");
    }
    assert_eq!(rig.get(MACHINES).await, (200, json!([])));
    assert_eq!(rig.inventory.last_change().await.unwrap(), 0);
    rig.stop().await;
}
