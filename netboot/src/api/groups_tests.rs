//! Groups and states of machines over the socket.

use hyper::Method;
use serde_json::{Value, json};

use super::tests::{Rig, machine};

const GROUPS: &str = "/api/v1/groups";
const N1: &str = "/api/v1/machines/n1";

async fn settings(rig: &Rig) -> Vec<String> {
    let (status, all) = rig.get(&format!("{N1}/settings")).await;
    assert_eq!(status, 200, "{all}");
    let rows = all["settings"].as_array().unwrap().iter();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.map(|row| {
        format!("{}={} by {}", text(row, "setting"), text(row, "value"), text(row, "from"))
    })
    .collect()
}

#[tokio::test]
async fn a_group_gives_its_machines_settings_until_it_is_removed() {
    let rig = Rig::start().await;
    let mut n1 = machine("n1", "52:54:00:00:00:01", None);
    n1["image"] = Value::Null;
    n1["labels"] = json!({"role": "web"});
    assert_eq!(rig.send(Method::POST, "/api/v1/machines", &n1).await.0, 201);
    let web = json!({"name": "web", "selector": "role=web",
        "settings": {"image": "web", "dhcp-options": {"42": "ip:10.0.0.9"}}});
    let (status, added) = rig.send(Method::POST, GROUPS, &web).await;
    assert_eq!((status, &added["machines"], &added["revision"]), (201, &json!(1), &json!(1)));
    assert_eq!(
        settings(&rig).await,
        [
            "image=web by group web",
            "boot=net by default",
            "loader=auto by default",
            "dhcp-options.42=ip:10.0.0.9 by group web",
        ]
    );
    let (_, hosts) = rig.get("/api/v1/inventory/ansible").await;
    assert_eq!(hosts["_meta"]["hostvars"]["n1"]["kiln_image"], "web", "{hosts}");
    let (status, problem) = rig.send(Method::POST, GROUPS, &web).await;
    assert_eq!(status, 409, "{problem}");
    for (bad, part) in [
        (json!({"name": "x", "selector": "role="}), "column 6"),
        (json!({"name": "X", "selector": "*"}), "cannot be the name of a group"),
        (json!({"name": "x", "selector": "*", "settings": {"macs": []}}), "unknown field `macs`"),
        (json!({"name": "x", "selector": "*", "settings": {"unset": ["name"]}}), "is no setting"),
    ] {
        let (status, problem) = rig.send(Method::POST, GROUPS, &bad).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    let one = format!("{GROUPS}/web");
    let other = json!({"name": "web", "selector": "role=db", "priority": 5});
    let (status, changed) = rig.send(Method::PUT, &one, &other).await;
    assert_eq!((status, &changed["machines"], &changed["revision"]), (200, &json!(0), &json!(2)));
    assert_eq!(rig.get(&one).await, (200, changed.clone()));
    assert_eq!(rig.get(GROUPS).await, (200, json!([changed])));
    assert_eq!(settings(&rig).await.len(), 2);
    let (_, explained) = rig.get(&format!("{N1}/explain")).await;
    assert_eq!(explained["settings"].as_array().map(Vec::len), Some(2), "{explained}");
    assert_eq!(rig.send(Method::DELETE, &one, &Value::Null).await.0, 204);
    assert_eq!(rig.send(Method::DELETE, &one, &Value::Null).await.0, 404);
    assert_eq!(rig.get(&one).await.0, 404);
    rig.stop().await;
}

#[tokio::test]
async fn a_locked_machine_is_neither_changed_nor_removed_until_it_is_unlocked() {
    let rig = Rig::start().await;
    let mut n1 = machine("n1", "52:54:00:00:00:01", None);
    n1["flags"] = json!(["locked"]);
    assert_eq!(rig.send(Method::POST, "/api/v1/machines", &n1).await.0, 201);
    let mut other = n1.clone();
    other["cmdline"] = json!("quiet");
    let (status, problem) = rig.send(Method::PUT, N1, &other).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("kiln machine unlock n1"), "{problem}");
    assert_eq!(rig.send(Method::DELETE, N1, &Value::Null).await.0, 409);
    other["flags"] = json!([]);
    assert_eq!(rig.send(Method::PUT, N1, &other).await.0, 409, "one step after the other");
    let mut cordoned = n1.clone();
    cordoned["flags"] = json!(["locked", "cordoned"]);
    assert_eq!(rig.send(Method::PUT, N1, &cordoned).await.0, 200);
    n1["flags"] = json!([]);
    assert_eq!(rig.send(Method::PUT, N1, &n1).await.0, 200);
    assert_eq!(rig.send(Method::PUT, N1, &other).await.0, 200);
    assert_eq!(rig.send(Method::DELETE, N1, &Value::Null).await.0, 204);
    let (status, problem) = {
        n1["flags"] = json!(["broken"]);
        rig.send(Method::POST, "/api/v1/machines", &n1).await
    };
    assert_eq!(status, 400, "{problem}");
    rig.stop().await;
}

#[tokio::test]
async fn two_machines_become_one_and_one_becomes_two() {
    let rig = Rig::start().await;
    let macs = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
    for (name, mac) in [("n1", macs[0]), ("n2", macs[1])] {
        assert_eq!(
            rig.send(Method::POST, "/api/v1/machines", &machine(name, mac, None)).await.0,
            201
        );
    }
    let merge = format!("{N1}/merge");
    assert_eq!(rig.send(Method::POST, &merge, &json!({"from": "n1"})).await.0, 400);
    assert_eq!(rig.send(Method::POST, &merge, &json!({"from": "gone"})).await.0, 404);
    let (status, merged) = rig.send(Method::POST, &merge, &json!({"from": "n2"})).await;
    assert_eq!((status, &merged["macs"]), (200, &json!(macs)), "{merged}");
    assert_eq!(rig.get("/api/v1/machines/n2").await.0, 404);
    let split = format!("{N1}/split");
    let (status, problem) =
        rig.send(Method::POST, &split, &json!({"name": "n2", "macs": macs})).await;
    assert_eq!(status, 400, "{problem}");
    let body = json!({"name": "n2", "macs": [macs[1]]});
    let (status, both) = rig.send(Method::POST, &split, &body).await;
    assert_eq!(status, 200, "{both}");
    assert_eq!((&both[0]["macs"], &both[1]["macs"]), (&json!([macs[0]]), &json!([macs[1]])));
    assert_eq!(both[1].get("image"), None, "it boots nothing yet");
    rig.stop().await;
}
