//! Leases of both families, over the socket.

use hyper::Method;
use serde_json::{Value, json};

use super::tests::{MACHINES, Rig, machine};

const LEASES: &str = "/api/v1/leases";

#[tokio::test]
async fn leases_are_listed_found_and_ended() {
    let rig = Rig::start().await;
    let (status, list) = rig.send(Method::GET, "/api/v1/leases", &Value::Null).await;
    assert_eq!((status, list[0]["address"].as_str()), (200, Some("10.0.0.7")));
    for key in ["10.0.0.7", "52:54:00:00:00:07"] {
        let (status, one) =
            rig.send(Method::GET, &format!("/api/v1/leases/{key}"), &Value::Null).await;
        assert_eq!((status, one["hostname"].as_str()), (200, Some("n7")), "{key}");
    }
    let delete = || rig.send(Method::DELETE, "/api/v1/leases/10.0.0.7", &Value::Null);
    assert_eq!(delete().await.0, 204);
    assert_eq!(delete().await.0, 409);
    let (status, _) = rig.send(Method::GET, "/api/v1/leases/10.0.0.8", &Value::Null).await;
    assert_eq!(status, 404);
    rig.stop().await;
}

/// A rig with machine n1 in rack r1, which has 10.0.0.7 and two addresses of IPv6, and one address of nobody.
async fn with_leases() -> Rig {
    let rig = Rig::with_ipv6().await;
    let mut n1 = machine("n1", "52:54:00:00:00:07", None);
    n1["labels"] = json!({"rack": "r1"});
    assert_eq!(rig.send(Method::POST, MACHINES, &n1).await.0, 201);
    let end = i64::MAX / 1000;
    let all = json!([
        {"address": "fd00:7::30", "duid": "0004cc01", "iaid": 9, "expires": end},
        {"address": "fd00:7::21", "duid": "0004aa01", "iaid": 2, "mac": "52:54:00:00:00:07", "expires": end - 5},
        {"address": "fd00:7::20", "duid": "0004aa01", "iaid": 1, "mac": "52:54:00:00:00:07", "expires": end},
    ]);
    let (status, taken) = rig.send(Method::POST, "/api/v1/leases6", &all).await;
    assert_eq!((status, &taken["taken"]), (200, &json!(3)), "{taken}");
    rig
}

fn addresses(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|row| row["address"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn leases_of_both_families_are_one_list_in_parts_by_address() {
    let rig = with_leases().await;
    let all = ["10.0.0.7", "fd00:7::20", "fd00:7::21", "fd00:7::30"];
    let (_, list) = rig.get(LEASES).await;
    assert_eq!(addresses(&list), all);
    let six = json!({"address": "fd00:7::20", "duid": "0004aa01", "iaid": 1, "mac": "52:54:00:00:00:07",
        "expires": i64::MAX / 1000, "hostname": null, "machine": "n1"});
    assert_eq!(list[1], six);
    assert_eq!((list[0].get("duid"), &list[0]["hostname"]), (None, &json!("n7")));
    assert_eq!((list[3].get("mac"), list[3].get("machine")), (None, None));
    for (query, expected) in [
        ("name=n1", &all[..3]),
        ("selector=rack%3Dr1", &all[..3]),
        ("selector=!rack", &[]),
        ("after=10.0.0.7", &all[1..]),
        ("after=10.0.0.8&limit=2", &all[1..3]),
        ("after=fd00:7::21", &all[3..]),
        ("after=ffff::", &[]),
    ] {
        let (status, list) = rig.get(&format!("{LEASES}?{query}")).await;
        assert_eq!((status, &addresses(&list)[..]), (200, expected), "{query}");
    }
    // As a client goes through it.
    let (mut found, mut path) = (Vec::new(), format!("{LEASES}?limit=1&fields=address,mac"));
    loop {
        let (status, list, headers) = rig.full(Method::GET, &path, &[], &Value::Null).await;
        assert_eq!((status, list.as_array().unwrap().len()), (200, 1), "{path}: {list}");
        assert_eq!(list[0].get("expires"), None);
        found.push(list[0]["address"].as_str().unwrap().to_owned());
        let Some(link) = headers.get("link") else { break };
        path = link.to_str().unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(found, all);
    for wrong in ["after=7", "after=10.0.0.7.", "fields=lease", "limit=0"] {
        assert_eq!(rig.get(&format!("{LEASES}?{wrong}")).await.0, 400, "{wrong}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_lease_of_ipv6_is_shown_and_ended_and_of_several_none_but_by_its_address() {
    let rig = with_leases().await;
    for (key, expected) in [
        ("fd00:7::21", "fd00:7::21"),
        ("fd00:7:0::21", "fd00:7::21"),
        ("n1", "10.0.0.7"),
        ("52:54:00:00:00:07", "10.0.0.7"),
        ("0004aa01", "fd00:7::20"),
        ("0004cc01", "fd00:7::30"),
    ] {
        let (status, one) = rig.get(&format!("{LEASES}/{key}")).await;
        assert_eq!((status, &one["address"]), (200, &json!(expected)), "{key}");
    }
    let end =
        async |key: &str| rig.send(Method::DELETE, &format!("{LEASES}/{key}"), &Value::Null).await;
    for query in ["?dry_run=true", ""] {
        let (status, problem) = end(&format!("n1{query}")).await;
        let text = problem["detail"].as_str().unwrap();
        assert!(status == 409 && text.contains("10.0.0.7, fd00:7::20, fd00:7::21;"), "{text}");
    }
    let (status, preview) = end("fd00:7::20?dry_run=true").await;
    assert_eq!((status, &preview["diff"][0]["field"]), (200, &json!("/expires")), "{preview}");
    assert_eq!(end("fd00:7::20").await.0, 204);
    assert_eq!(end("fd00:7::20").await.0, 409, "it has ended already");
    assert_eq!(end("10.0.0.7").await.0, 204);
    // One is left, so that the machine tells which.
    assert_eq!(rig.get(&format!("{LEASES}/n1")).await.1["address"], "fd00:7::21");
    assert_eq!(end("n1").await.0, 204);
    assert_eq!((end("n1").await.0, end("n2").await.0), (409, 404));
    let (_, list) = rig.get(LEASES).await;
    assert_eq!(addresses(&list).len(), 4, "who had the addresses is remembered");
    // And others may have them.
    let other =
        json!([{"address": "fd00:7::20", "duid": "0004dd", "iaid": 1, "expires": i64::MAX / 1000}]);
    let (_, taken) = rig.send(Method::POST, "/api/v1/leases6", &other).await;
    assert_eq!(taken["taken"], 1, "{taken}");
    rig.stop().await;
}
