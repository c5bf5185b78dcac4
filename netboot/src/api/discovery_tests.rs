//! Machines that nobody has added, over the socket.

use hyper::Method;
use kiln_inventory::{Asker, Firmware, Glimpse, Place, Sighting};
use serde_json::{Value, json};

use super::tests::{MACHINES, Rig, machine};

const DISCOVERY: &str = "/api/v1/discovery";
const RULES: &str = "/api/v1/discovery/rules";
const EXPECTED: &str = "/api/v1/discovery/expected";
const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4a3132";

pub(super) async fn see(rig: &Rig, mac: &str, uuid: Option<&str>) {
    let sighting = Sighting {
        mac: mac.parse().unwrap(),
        asker: Asker::Firmware,
        firmware: Some(Firmware::UefiX64),
        uuid: uuid.map(str::to_owned),
    };
    let glimpse = Glimpse { at: 1, times: 1, sighting, place: Place::default() };
    rig.inventory.take_glimpses(&[glimpse], 100).await.unwrap();
}

#[tokio::test]
async fn an_unknown_machine_is_approved_once_and_only_when_it_is_no_dry_run() {
    let rig = Rig::start().await;
    see(&rig, "52:54:00:00:00:09", Some(UUID)).await;
    let (status, rows) = rig.get(DISCOVERY).await;
    assert_eq!(status, 200, "{rows}");
    let row = &rows[0];
    assert_eq!((&row["vendor"], &row["arch"]), (&json!("qemu"), &json!("x86_64")));
    assert_eq!((&row["state"], &row["macs"]), (&json!("waiting"), &json!(["52:54:00:00:00:09"])));
    let one = format!("{DISCOVERY}/52:54:00:00:00:09");
    assert_eq!(rig.get(&one).await, (200, row.clone()));
    assert_eq!(rig.get(&format!("{DISCOVERY}/77")).await.0, 404);
    let approve = format!("{one}/approve");
    let body = json!({"template": "rack1-{n:02}", "labels": {"rack": "r1"}});
    let dry = format!("{approve}?dry_run=true");
    let (status, preview) = rig.send(Method::POST, &dry, &body).await;
    assert_eq!((status, &preview["after"]["name"]), (200, &json!("rack1-01")), "{preview}");
    assert_eq!(rig.get(MACHINES).await.1, json!([]));
    let (status, made) = rig.send(Method::POST, &approve, &body).await;
    assert_eq!((status, &made["name"], &made["uuid"]), (201, &json!("rack1-01"), &json!(UUID)));
    assert_eq!(rig.send(Method::POST, &approve, &body).await.0, 404);
    let (_, audit) = rig.get("/api/v1/audit").await;
    assert!(audit.to_string().contains("\"noun\":\"discovery\""), "{audit}");
    for (bad, part) in [
        (json!({}), "either the `name`"),
        (json!({"name": "a", "template": "b"}), "either the `name`"),
        (json!({"name": "a", "macs": []}), "unknown field"),
        (json!({"template": "{colour}"}), "nothing that is seen"),
    ] {
        see(&rig, "52:54:00:00:00:0a", None).await;
        let path = format!("{DISCOVERY}/52:54:00:00:00:0a/approve");
        let (status, problem) = rig.send(Method::POST, &path, &bad).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_new_card_of_a_known_machine_is_proposed_and_taken_only_when_someone_says_so() {
    let rig = Rig::start().await;
    let mut n1 = machine("n1", "52:54:00:00:00:01", None);
    n1["uuid"] = json!(UUID);
    assert_eq!(rig.send(Method::POST, MACHINES, &n1).await.0, 201);
    see(&rig, "52:54:00:00:00:02", Some(UUID)).await;
    let one = format!("{DISCOVERY}/52:54:00:00:00:02");
    let (_, row) = rig.get(&one).await;
    let like = &row["looks-like"][0];
    assert_eq!((&like["machine"], &like["points"]), (&json!("n1"), &json!(50)), "{row}");
    assert_eq!((&like["new-card"], &like["same"]), (&json!(true), &json!(["UUID"])));
    let (_, explained) = rig.get(&format!("{MACHINES}/52:54:00:00:00:02/explain")).await;
    assert_eq!(explained["looks_like"][0]["machine"], json!("n1"), "{explained}");
    let (_, n1) = rig.get(&format!("{MACHINES}/n1")).await;
    assert_eq!(n1["macs"], json!(["52:54:00:00:00:01"]), "nothing was taken silently");
    let merge = format!("{one}/merge");
    assert_eq!(rig.send(Method::POST, &merge, &json!({"machine": "nobody"})).await.0, 404);
    let (status, merged) = rig.send(Method::POST, &merge, &json!({"machine": "n1"})).await;
    assert_eq!(status, 200, "{merged}");
    assert_eq!(merged["macs"], json!(["52:54:00:00:00:01", "52:54:00:00:00:02"]));
    assert_eq!(rig.get(DISCOVERY).await.1, json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn an_ignored_machine_gets_no_answer_until_it_is_not_ignored_any_more() {
    let rig = Rig::start().await;
    let explain = format!("{MACHINES}/52:54:00:00:00:09/explain");
    let (_, never) = rig.get(&format!("{explain}?firmware=bios")).await;
    assert_eq!(never["seen"], json!(false), "who asks about a firmware has not seen it");
    see(&rig, "52:54:00:00:00:09", None).await;
    let one = format!("{DISCOVERY}/52:54:00:00:00:09");
    let plan = async || rig.get(&explain).await.1["steps"][0]["plan"].clone();
    assert_eq!(plan().await, json!("hold"));
    let (status, row) = rig.send(Method::POST, &format!("{one}/ignore"), &json!({})).await;
    assert_eq!((status, &row["state"], &row["revision"]), (200, &json!("ignored"), &json!(2)));
    assert_eq!(plan().await, json!("ignore"));
    let stale = [("if-match", "\"1\"")];
    let path = format!("{one}/unignore");
    assert_eq!(rig.full(Method::POST, &path, &stale, &json!({})).await.0, 412);
    let (status, row) = rig.send(Method::POST, &path, &json!({})).await;
    assert_eq!((status, &row["state"]), (200, &json!("waiting")));
    assert_eq!(plan().await, json!("hold"));
    assert_eq!(rig.send(Method::DELETE, &one, &Value::Null).await.0, 204);
    assert_eq!(rig.get(&one).await.0, 404);
    rig.stop().await;
}

#[tokio::test]
async fn rules_and_expected_machines_are_nouns_like_others() {
    let rig = Rig::start().await;
    let rule = json!({"name": "rack1", "selector": "vendor=qemu", "action": "approve",
        "machine-name": "rack1-{n:02}"});
    let (status, added) = rig.send(Method::POST, RULES, &rule).await;
    assert_eq!((status, &added["revision"]), (201, &json!(1)), "{added}");
    assert_eq!(rig.send(Method::POST, RULES, &rule).await.0, 409);
    for last in [1, 2] {
        see(&rig, &format!("52:54:00:00:00:0{last}"), None).await;
    }
    let one = format!("{RULES}/rack1");
    let (status, tried) = rig.send(Method::POST, &format!("{one}/test"), &json!({})).await;
    assert_eq!(status, 200, "{tried}");
    assert_eq!(tried["entries"][1]["name"], json!("rack1-02"), "{tried}");
    let bad = json!({"name": "x", "selector": "rack=1", "action": "hold"});
    let (status, problem) = rig.send(Method::POST, RULES, &bad).await;
    assert_eq!(status, 400, "{problem}");
    let other = json!({"name": "rack1", "selector": "*", "action": "hold", "priority": 9});
    let (status, changed) = rig.send(Method::PUT, &one, &other).await;
    assert_eq!((status, &changed["revision"]), (200, &json!(2)));
    assert_eq!(rig.get(RULES).await.1, json!([changed]));
    assert_eq!(rig.send(Method::DELETE, &one, &Value::Null).await.0, 204);
    let n1 = machine("n1", "52:54:00:00:00:21", None);
    assert_eq!(rig.send(Method::POST, MACHINES, &n1).await.0, 201);
    let two =
        json!({"machines": [{"name": "w1", "serial": "S-1"}, {"name": "n1", "serial": "S-2"}]});
    let (status, problem) = rig.send(Method::POST, EXPECTED, &two).await;
    assert_eq!((status, &problem["pointer"]), (409, &json!("/machines/1")), "{problem}");
    assert_eq!(rig.get(EXPECTED).await.1, json!([]), "all of them or none");
    let one = json!({"machines": [{"name": "w1", "serial": "S-1"}]});
    assert_eq!(rig.send(Method::POST, EXPECTED, &one).await.0, 201);
    assert_eq!(rig.send(Method::POST, EXPECTED, &one).await.0, 409);
    assert_eq!(rig.get(EXPECTED).await.1[0]["name"], json!("w1"));
    let path = format!("{EXPECTED}/w1");
    assert_eq!(rig.send(Method::DELETE, &path, &Value::Null).await.0, 204);
    assert_eq!(rig.send(Method::DELETE, &path, &Value::Null).await.0, 404);
    rig.stop().await;
}
