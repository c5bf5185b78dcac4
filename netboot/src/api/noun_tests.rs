//! Machines by the API: conditions, patches, dry runs, parts of lists, requests that come twice, and hostile input.

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::tests::{MACHINES, Rig, machine};

const N1: &str = "/api/v1/machines/n1";

async fn with_n1() -> Rig {
    let rig = Rig::start().await;
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    let (status, added) = rig.send(Method::POST, MACHINES, &n1).await;
    assert_eq!((status, &added["revision"]), (201, &json!(1)), "{added}");
    rig
}

#[tokio::test]
async fn a_change_can_name_the_revision_that_it_expects() {
    let rig = with_n1().await;
    let (_, _, headers) = rig.full(Method::GET, N1, &[], &Value::Null).await;
    assert_eq!(headers["etag"], "\"1\"");
    let patch = json!({"cmdline": "quiet"});
    let (status, changed, headers) =
        rig.full(Method::PATCH, N1, &[("if-match", "\"1\"")], &patch).await;
    assert_eq!(
        (status, &changed["revision"], &changed["cmdline"]),
        (200, &json!(2), &json!("quiet"))
    );
    assert_eq!(headers["etag"], "\"2\"");
    let late = json!({"cmdline": "debug"});
    for method in [Method::PATCH, Method::DELETE] {
        let (status, problem, _) = rig.full(method, N1, &[("if-match", "\"1\"")], &late).await;
        assert_eq!(
            (status, &problem["type"]),
            (412, &json!("urn:kiln:problem:changed")),
            "{problem}"
        );
    }
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    assert_eq!(rig.full(Method::PUT, N1, &[("if-match", "\"9\"")], &n1).await.0, 412);
    assert_eq!(rig.full(Method::PUT, N1, &[("if-match", "what")], &n1).await.0, 400);
    assert_eq!(rig.full(Method::PUT, N1, &[("if-match", "*")], &n1).await.0, 200);
    // Nothing changes, and so does the revision.
    let (_, same, _) = rig.full(Method::PUT, N1, &[], &n1).await;
    assert_eq!(same["revision"], 3);
    assert_eq!(rig.full(Method::HEAD, N1, &[], &Value::Null).await.0, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_cannot_name_more_than_settings() {
    let rig = with_n1().await;
    for bad in [
        json!({"id": 7}),
        json!({"revision": 99}),
        json!({"created_by": "root", "admin": true}),
        json!({"name": null}),
        json!({"macs": ["x"]}),
        json!([{"op": "replace", "path": "/id", "value": 7}]),
        json!("n1"),
        json!(null),
    ] {
        let (status, problem) = rig.send(Method::PATCH, N1, &bad).await;
        assert_eq!(status, 400, "{bad}: {problem}");
    }
    let mut whole = machine("n1", "52:54:00:00:00:01", None);
    whole["id"] = json!(7);
    for (method, path) in [(Method::PUT, N1), (Method::POST, MACHINES)] {
        let (status, problem) = rig.send(method, path, &whole).await;
        assert!(status == 400 && problem.to_string().contains("unknown field `id`"), "{problem}");
    }
    let hidden = json!({"name": "t", "scopes": ["read"], "sha256": "00", "user": "root"});
    assert_eq!(rig.send(Method::POST, "/api/v1/tokens", &hidden).await.0, 400);
    let (_, machine) = rig.get(N1).await;
    assert_eq!(machine["revision"], 1, "nothing has changed: {machine}");
    let patch = json!({"labels": {"rack": "r1"}, "image": null});
    let (status, changed) = rig.send(Method::PATCH, N1, &patch).await;
    assert_eq!(
        (status, &changed["labels"]["rack"], changed.get("image")),
        (200, &json!("r1"), None)
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let rig = with_n1().await;
    let n2 = machine("n2", "52:54:00:00:00:02", None);
    let (status, preview) = rig.send(Method::POST, &format!("{MACHINES}?dry_run=true"), &n2).await;
    assert_eq!((status, &preview["would"]), (200, &json!("add")), "{preview}");
    let taken = machine("n1", "52:54:00:00:00:02", None);
    assert_eq!(rig.send(Method::POST, &format!("{MACHINES}?dry_run=true"), &taken).await.0, 409);
    let patch = json!({"cmdline": "quiet"});
    let (_, preview) = rig.send(Method::PATCH, &format!("{N1}?dry_run=true"), &patch).await;
    let diff = json!([{"field": "/cmdline", "after": "quiet"}]);
    assert_eq!((&preview["would"], &preview["diff"]), (&json!("change"), &diff));
    let (_, preview) = rig.send(Method::DELETE, &format!("{N1}?dry_run=true"), &Value::Null).await;
    assert_eq!(preview["would"], "remove");
    let (_, all) = rig.get(MACHINES).await;
    assert_eq!((all.as_array().unwrap().len(), &all[0]["revision"]), (1, &json!(1)));
    assert_eq!(rig.send(Method::DELETE, &format!("{N1}?dry_run=maybe"), &Value::Null).await.0, 400);
    rig.stop().await;
}

#[tokio::test]
async fn a_long_list_comes_in_parts_with_the_fields_and_machines_that_are_wanted() {
    let rig = Rig::start().await;
    for number in 1..=5 {
        let mut one = machine(&format!("n{number}"), &format!("52:54:00:00:01:0{number}"), None);
        one["labels"] = json!({"rack": if number < 4 { "r1" } else { "r2" }});
        assert_eq!(rig.send(Method::POST, MACHINES, &one).await.0, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut path = format!("{MACHINES}?limit=2&fields=name,labels.rack");
    let mut parts = Vec::new();
    loop {
        let (status, part, headers) = rig.full(Method::GET, &path, &[], &Value::Null).await;
        assert_eq!(status, 200, "{part}");
        assert_eq!(
            part[0],
            json!({"name": part[0]["name"], "labels": {"rack": part[0]["labels"]["rack"]}})
        );
        parts.push(names(&part));
        let Some(link) = headers.get("link") else { break };
        let link = link.to_str().unwrap();
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(parts, [vec!["n1", "n2"], vec!["n3", "n4"], vec!["n5"]]);
    for (query, expected) in [
        ("selector=rack%3Dr2", vec!["n4", "n5"]),
        ("name=n%5B2-4%5D", vec!["n2", "n3", "n4"]),
        ("name=n%5B2-4%5D&selector=rack%3Dr2", vec!["n4"]),
        ("selector=!rack", vec![]),
    ] {
        let (status, list) = rig.get(&format!("{MACHINES}?{query}")).await;
        assert_eq!(
            (status, names(&list)),
            (200, expected.iter().map(|n| (*n).to_owned()).collect()),
            "{query}"
        );
    }
    for wrong in
        ["limit=0", "limit=-1", "limit=x", "after=x", "selector=(", "name=n%5B", "limit=1&limit=2"]
    {
        let (status, problem) = rig.get(&format!("{MACHINES}?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {problem}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_comes_twice_is_done_once() {
    let rig = Rig::start().await;
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    let key = [("idempotency-key", "5f2c")];
    let (status, first, _) = rig.full(Method::POST, MACHINES, &key, &n1).await;
    assert_eq!(status, 201, "{first}");
    let (status, again, headers) = rig.full(Method::POST, MACHINES, &key, &n1).await;
    assert_eq!((status, &again), (201, &first));
    assert_eq!(headers["etag"], "\"1\"");
    let other = machine("n2", "52:54:00:00:00:02", None);
    let (status, problem, _) = rig.full(Method::POST, MACHINES, &key, &other).await;
    assert_eq!((status, &problem["type"]), (422, &json!("urn:kiln:problem:other-request")));
    assert_eq!(rig.full(Method::POST, MACHINES, &[], &n1).await.0, 409);
    for wrong in ["", "a b", "ä"] {
        let key = [("idempotency-key", wrong)];
        assert_eq!(rig.full(Method::POST, MACHINES, &key, &n1).await.0, 400, "{wrong}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn of_requests_that_come_at_once_with_one_key_one_is_done() {
    let rig = Rig::start().await;
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    let key = [("idempotency-key", "at-once")];
    let all = (0..8).map(|_| rig.full(Method::POST, MACHINES, &key, &n1));
    let answers = futures_util::future::join_all(all).await;
    let count = |wanted| answers.iter().filter(|(status, ..)| *status == wanted).count();
    assert_eq!(count(201) + count(409), 8, "{answers:?}");
    assert!(count(201) >= 1);
    for (_, answer, headers) in answers.iter().filter(|(status, ..)| *status == 409) {
        assert!(answer["detail"].as_str().unwrap().contains("under way"), "{answer}");
        assert_eq!(headers["retry-after"], "1");
    }
    let (_, changes) = rig.get("/api/v1/audit").await;
    assert_eq!(changes.as_array().unwrap().len(), 1, "it is done once: {changes}");
    rig.stop().await;
}

#[tokio::test]
async fn a_secret_that_was_answered_once_is_not_kept_for_who_asks_again() {
    let rig = Rig::start().await;
    let new = json!({"name": "ci", "scopes": ["read"]});
    let key = [("idempotency-key", "5f2c")];
    let (status, made, _) = rig.full(Method::POST, "/api/v1/tokens", &key, &new).await;
    assert_eq!(status, 201, "{made}");
    let (status, problem, _) = rig.full(Method::POST, "/api/v1/tokens", &key, &new).await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("this was done"), "{problem}");
    let (_, all) = rig.get("/api/v1/tokens").await;
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    let mut backup = Vec::new();
    rig.inventory.back_up(&mut backup, &[], &[]).await.unwrap();
    let token = made["token"].as_str().unwrap();
    assert!(!String::from_utf8(backup).unwrap().contains(token));
    rig.stop().await;
}

#[tokio::test]
async fn a_hundred_thousand_brackets_and_what_is_no_json_are_refused() {
    let rig = with_n1().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, problem, _) = rig.raw(Method::POST, MACHINES, &[], deep).await;
    assert_eq!(status, 400, "{problem}");
    let text = [("content-type", "text/html")];
    assert_eq!(rig.raw(Method::POST, MACHINES, &text, "{}".into()).await.0, 415);
    rig.stop().await;
}

#[tokio::test]
async fn markup_and_sql_of_a_machine_are_data() {
    let rig = with_n1().await;
    let (_, n1) = rig.get(N1).await;
    let id = kiln_inventory::MachineId(n1["id"].as_i64().unwrap());
    let nasty = "<script>alert(1)</script>'; DROP TABLE machines; --\u{1b}[2J";
    let facts = json!({"system": {"vendor": nasty, "serial": nasty}}).to_string();
    let told = kiln_inventory::StoredFacts { boot: kiln_inventory::BootId(1), at: 1, facts };
    rig.inventory.set_facts(id, &told).await.unwrap();
    let path = format!("{N1}/facts");
    let (status, shown, headers) = rig.full(Method::GET, &path, &[], &Value::Null).await;
    assert_eq!((status, &shown["facts"]["system"]["vendor"]), (200, &json!(nasty)));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    // The same as a key, a name and a filter.
    for path in ["/api/v1/machines/%3Cscript%3E", "/api/v1/leases/';DROP%20TABLE%20machines;--"] {
        let (status, problem, headers) = rig.full(Method::GET, path, &[], &Value::Null).await;
        assert_eq!(
            (status, headers["content-type"].to_str().unwrap()),
            (404, "application/problem+json")
        );
        assert_eq!(headers["x-content-type-options"], "nosniff", "{problem}");
    }
    assert_eq!(rig.get(MACHINES).await.1.as_array().unwrap().len(), 1);
    rig.stop().await;
}

/// Reads from a stream until a text has come, and returns all.
async fn until(stream: &mut tokio::net::UnixStream, text: &str) -> String {
    let mut all = String::new();
    let mut part = [0; 4096];
    let read = async {
        while !all.contains(text) {
            let length = stream.read(&mut part).await.unwrap();
            assert!(length > 0, "the stream ended: {all}");
            all.push_str(std::str::from_utf8(&part[..length]).unwrap());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), read).await.expect("it does not come");
    all
}

#[tokio::test]
async fn what_happens_is_followed_from_any_event_on_and_the_stream_ends_with_the_server() {
    let rig = with_n1().await;
    let mut all = rig.follow("?since=0").await;
    let begin = until(&mut all, "\"add\"").await;
    assert!(begin.contains("text/event-stream") && begin.contains("id: 1.0\n"), "{begin}");
    let mut tokens = rig.follow("?noun=token&since=0").await;
    let mut later = rig.follow("").await;
    until(&mut later, "\r\n\r\n").await;
    rig.send(Method::PATCH, N1, &json!({"cmdline": "quiet"})).await;
    let change = until(&mut all, "\"change\"").await;
    assert!(change.contains("id: 2.0\n") && change.contains("event: machine\n"), "{change}");
    let change = until(&mut later, "\"change\"").await;
    assert!(!change.contains("\"add\""), "{change}");
    let token = json!({"name": "t", "scopes": ["read"]});
    assert_eq!(rig.send(Method::POST, "/api/v1/tokens", &token).await.0, 201);
    let token = until(&mut tokens, "\"add\"").await;
    assert!(token.contains("id: 3.0\n") && !token.contains("machine"), "{token}");
    assert!(!token.contains("sha256"), "{token}");
    let (status, problem) = rig.get("/api/v1/events?since=x").await;
    assert_eq!(status, 400, "{problem}");
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(60), rig.stop());
    stopped.await.expect("who follows events does not keep the server from ending");
}

#[tokio::test]
async fn a_list_of_netbox_is_shown_first_and_taken_over_as_a_whole() {
    let rig = with_n1().await;
    let list = json!({"count": 3, "results": [
        {"name": "n1", "rack": {"slug": "r1"}, "interfaces": []},
        {"name": "N2.example.org", "interfaces": [
            {"mac_address": "52:54:00:00:00:02"},
            {"mac_address": "52:54:00:00:00:99", "mgmt_only": true},
        ]},
        {"name": null},
        {"name": "n5.a.example.org", "interfaces": [{"mac_address": "52:54:00:00:00:05"}]},
        {"name": "n5.b.example.org", "interfaces": [{"mac_address": "52:54:00:00:00:06"}]},
    ]});
    let path = "/api/v1/inventory/netbox";
    let (status, tried) = rig.send(Method::POST, &format!("{path}?dry_run=true"), &list).await;
    assert_eq!((status, &tried["dry_run"]), (200, &json!(true)), "{tried}");
    let diff = json!([{"field": "/labels", "after": {"rack": "r1"}}]);
    assert_eq!((&tried["changes"][0]["name"], &tried["changes"][0]["diff"]), (&json!("n1"), &diff));
    assert_eq!(tried["skipped"][0]["why"], "it has no name");
    let skipped: Vec<_> = tried["skipped"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(skipped, ["", "n5.a.example.org", "n5.b.example.org"], "{tried}");
    assert_eq!(rig.get(MACHINES).await.1.as_array().unwrap().len(), 1);
    // One that is in the way of another keeps all of them out.
    let clash = json!([
        {"name": "n3", "interfaces": [{"mac_address": "52:54:00:00:00:03"}]},
        {"name": "n4", "interfaces": [{"mac_address": "52:54:00:00:00:01"}]},
    ]);
    assert_eq!(rig.send(Method::POST, path, &clash).await.0, 409);
    assert_eq!(rig.get(MACHINES).await.1.as_array().unwrap().len(), 1);
    let (status, done) = rig.send(Method::POST, path, &list).await;
    assert_eq!((status, done["changes"].as_array().unwrap().len()), (200, 2), "{done}");
    let (_, again) = rig.send(Method::POST, path, &list).await;
    assert_eq!((&again["changes"], &again["unchanged"]), (&json!([]), &json!(2)));
    let (_, all) = rig.get("/api/v1/inventory/ansible").await;
    assert_eq!(all["rack_r1"]["hosts"], json!(["n1"]), "{all}");
    // A second page of the same list, and one that no machine can be.
    let page = json!({"results": [
        {"name": "n2.other.example", "interfaces": [{"mac_address": "52:54:00:00:00:07"}]},
        {"name": "n6", "rack": {"slug": "x".repeat(300)},
            "interfaces": [{"mac_address": "52:54:00:00:00:08"}]},
        {"name": "n7", "interfaces": [{"mac_address": "52:54:00:00:00:09"}]},
    ]});
    let (status, done) = rig.send(Method::POST, path, &page).await;
    assert_eq!((status, &done["changes"][0]["name"]), (200, &json!("n7")), "{done}");
    let why = |number: usize| done["skipped"][number]["why"].as_str().unwrap();
    assert!(why(0).starts_with("there is a machine `n2` already"), "{done}");
    assert!(why(1).contains("longer than 256 bytes"), "{done}");
    assert_eq!(rig.get(&format!("{MACHINES}/n2")).await.1["macs"], json!(["52:54:00:00:00:02"]));
    rig.stop().await;
}

#[tokio::test]
async fn every_change_is_in_the_log_with_who_made_it() {
    let rig = with_n1().await;
    rig.send(Method::PATCH, N1, &json!({"cmdline": "quiet"})).await;
    rig.send(Method::DELETE, N1, &Value::Null).await;
    let (status, log) = rig.get("/api/v1/audit?noun=machine&name=n1").await;
    let verbs: Vec<_> = log.as_array().unwrap().iter().map(|row| row["verb"].clone()).collect();
    assert_eq!(
        (status, verbs),
        (200, vec![json!("add"), json!("change"), json!("remove")]),
        "{log}"
    );
    assert!(log[0]["actor"].as_str().unwrap().starts_with("uid "), "{log}");
    assert_eq!(
        (&log[1]["before"]["cmdline"], &log[1]["after"]["cmdline"]),
        (&Value::Null, &json!("quiet"))
    );
    let (status, found) = rig.get("/api/v1/audit/verify").await;
    assert_eq!((status, &found["changes"], found.get("broken")), (200, &json!(3), None), "{found}");
    let (_, page, headers) =
        rig.full(Method::GET, "/api/v1/audit?limit=2", &[], &Value::Null).await;
    assert_eq!(page.as_array().unwrap().len(), 2);
    assert!(headers["link"].to_str().unwrap().contains("after=2"));
    rig.stop().await;
}

#[tokio::test]
async fn a_secret_is_set_listed_by_name_and_removed_and_no_answer_has_it() {
    let rig = Rig::start().await;
    let new = machine("n1", "52:54:00:00:00:01", None);
    rig.send(Method::POST, MACHINES, &new).await;
    let group = json!({"name": "db", "selector": "role=db"});
    rig.send(Method::POST, "/api/v1/groups", &group).await;
    let one = "/api/v1/secrets/machine/n1/password";
    for (path, value) in [
        (one, "geheim-eins"),
        (one, "geheim-zwei"),
        ("/api/v1/secrets/group/db/key", "geheim-drei"),
    ] {
        let (status, body) = rig.send(Method::PUT, path, &json!({"value": value})).await;
        assert_eq!((status, body), (204, Value::Null), "{path}");
    }
    let (status, rows) = rig.get("/api/v1/secrets").await;
    assert_eq!((status, rows.as_array().unwrap().len()), (200, 2), "{rows}");
    assert_eq!((&rows[0]["owner"], &rows[0]["name"]), (&json!("n1"), &json!("password")));
    assert_eq!((&rows[1]["kind"], &rows[1]["owner"]), (&json!("group"), &json!("db")));
    // Those of metadata are shown as they are sealed, which stands for them wherever it is sent back.
    let n1 = "/api/v1/machines/n1";
    let said = json!({"metadata": {"role": "db", "secrets": {"p": "geheim-vier"}}});
    let dry = format!("{n1}?dry_run=true");
    let (status, preview) = rig.send(Method::PATCH, &dry, &said).await;
    assert!(status == 200 && !preview.to_string().contains("geheim"), "{preview}");
    let (status, shown) = rig.send(Method::PATCH, n1, &said).await;
    let sealed = shown["metadata"]["secrets"]["p"].clone();
    assert!(status == 200 && sealed.as_str().unwrap().starts_with("sealed:"), "{shown}");
    let (_, other) = rig.send(Method::PATCH, n1, &json!({"metadata": {"role": "web"}})).await;
    assert_eq!(other["metadata"], json!({"role": "web", "secrets": {"p": sealed}}));
    let mut whole = other.clone();
    whole.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "revision");
    let (status, same) = rig.send(Method::PUT, n1, &whole).await;
    assert_eq!((status, &same), (200, &other));
    let stolen = json!({"metadata": {"secrets": {"q": sealed}}});
    let (status, problem) = rig.send(Method::PATCH, n1, &stolen).await;
    assert!(
        status == 400 && problem["detail"].as_str().unwrap().contains("send the secret itself")
    );
    let (status, rotated) = rig.send(Method::POST, "/api/v1/secrets/rotate", &Value::Null).await;
    assert_eq!((status, &rotated["secrets"]), (200, &json!(3)));
    let (_, renewed) = rig.get(n1).await;
    assert_ne!(renewed["metadata"]["secrets"]["p"], sealed);
    for (path, body, expected) in [
        ("/api/v1/secrets/machine/n2/x", json!({"value": "x"}), 404),
        ("/api/v1/secrets/rack/n1/x", json!({"value": "x"}), 404),
        ("/api/v1/secrets/machine/n1/..%2fx", json!({"value": "x"}), 400),
        ("/api/v1/secrets/machine/n1/%1b[2J", json!({"value": "x"}), 400),
        ("/api/v1/secrets/machine/n1/x", json!({"value": "x", "encoding": "hex"}), 400),
        ("/api/v1/secrets/machine/n1/x", json!({"value": "x", "owner": 7}), 400),
        ("/api/v1/secrets/machine/n1/x", json!({"value": "x".repeat(70_000)}), 400),
        ("/api/v1/secrets/machine/n1/x", json!({"value": "x".repeat(700_000)}), 413),
    ] {
        let (status, problem) = rig.send(Method::PUT, path, &body).await;
        assert_eq!(status, expected, "{path}: {problem}");
    }
    // Nothing that the API tells has any of them.
    for route in super::routes::routes().iter().filter(|route| route.method == "get") {
        let path = route.path.replace("{key}", "n1").replace("{id}", "1").replace("{image}", "web");
        if path == "/api/v1/events" {
            continue;
        }
        let (_, body) = rig.get(&path).await;
        assert!(!body.to_string().contains("geheim"), "{path}: {body}");
    }
    for expected in [204, 404] {
        assert_eq!(rig.send(Method::DELETE, one, &Value::Null).await.0, expected);
    }
    rig.stop().await;
}

#[tokio::test]
async fn of_many_who_change_one_machine_at_once_none_is_forgotten() {
    let rig = with_n1().await;
    let one = |number: usize| {
        let rig = &rig;
        async move {
            let patch = json!({"labels": {format!("l{number}"): "x"}});
            rig.send(Method::PATCH, N1, &patch).await
        }
    };
    let made = futures_util::future::join_all((0..12).map(one)).await;
    assert!(made.iter().all(|(status, _)| *status == 200), "{made:?}");
    let (_, now) = rig.get(N1).await;
    assert_eq!(now["labels"].as_object().unwrap().len(), 12, "{now}");
    rig.stop().await;
}
