//! The agent of a running machine over loopback.

use hyper::StatusCode;
use kiln_inventory::{BootId, Command, NewOrder, Order, OrderState, Outcome, Phase};
use kiln_types::Digest;

use super::tests::{Answer, KERNEL, Rig};

impl Rig {
    /// Lets the machine boot until its system reports, and returns its boot and its token.
    async fn up(&self) -> (BootId, String) {
        let script = self.get("/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64").await;
        let script = String::from_utf8(script.body().to_vec()).unwrap();
        let machine = script.split_whitespace().find(|word| word.contains("/machine/")).unwrap();
        let told = self.told(&machine[machine.find("/machine/").unwrap()..]).await;
        let boot = told["boot"].as_i64().unwrap();
        let token = told["token"].as_str().unwrap().to_owned();
        let report = r#"[{"phase":"healthy","millis":2000}]"#;
        let home = format!("/phone-home/{boot}");
        let answer = self.as_machine("POST", &home, &token, report).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        (BootId(boot), token)
    }

    /// Fetches the segment of a machine and returns what it tells the system.
    async fn told(&self, path: &str) -> serde_json::Value {
        let segment = self.get(path).await;
        let text = String::from_utf8_lossy(segment.body()).into_owned();
        serde_json::from_str(&text[text.find('{').unwrap()..=text.find('}').unwrap()]).unwrap()
    }

    async fn as_machine(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(method, path, &[("authorization", &bearer)], body).await
    }

    async fn order(&self, boot: BootId, command: Command) -> Order {
        let machine = self.inventory.machines().await.unwrap()[0].id;
        let asked = crate::boots::now_ms();
        let new = NewOrder {
            machine,
            machine_name: "n1".to_owned(),
            boot,
            command,
            asked,
            asked_by: "uid 0".to_owned(),
            expires: asked + 60_000,
        };
        self.orders.give(&new).await.unwrap()
    }
}

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn a_machine_fetches_its_orders_and_says_what_became_of_them() {
    let rig = Rig::start().await;
    let (boot, token) = rig.up().await;
    let path = format!("/agent/{boot}/orders");
    for (path, token, expected) in [
        (path.as_str(), "00", StatusCode::FORBIDDEN),
        ("/agent/99/orders", token.as_str(), StatusCode::NOT_FOUND),
        ("/agent/x/orders", &token, StatusCode::NOT_FOUND),
        (&format!("{path}?after=x"), &token, StatusCode::BAD_REQUEST),
        (&path, &token, StatusCode::NO_CONTENT),
    ] {
        let answer = rig.as_machine("GET", path, token, "").await;
        assert_eq!(answer.status(), expected, "{path}");
    }
    assert_eq!(rig.get_from([127, 0, 0, 2], &path).await, StatusCode::FORBIDDEN);

    let logs = Command::Logs { name: "web".to_owned(), lines: 5 };
    let waits = format!("{path}?after=0&wait=30");
    let (order, handed) =
        tokio::join!(rig.order(boot, logs), rig.as_machine("GET", &waits, &token, ""));
    let expected = serde_json::json!([{"id": order.id, "kind": "logs", "name": "web", "lines": 5}]);
    assert_eq!(json(&handed), expected);
    let answer = format!("{path}/{}", order.id);
    let long = format!(r#"{{"state":"done","answer":"{}"}}"#, "x".repeat(700 << 10));
    for (path, body, expected) in [
        (answer.as_str(), "{}", StatusCode::BAD_REQUEST),
        (&answer, r#"{"state":"queued"}"#, StatusCode::BAD_REQUEST),
        (&answer, &long, StatusCode::PAYLOAD_TOO_LARGE),
        (&format!("{path}/99"), r#"{"state":"done"}"#, StatusCode::NOT_FOUND),
        (&answer, r#"{"state":"done","answer":"a line\n"}"#, StatusCode::NO_CONTENT),
    ] {
        let answer = rig.as_machine("POST", path, &token, body).await;
        assert_eq!(answer.status(), expected, "{path}");
    }
    let after = format!("{path}?after={}", order.id);
    let none = rig.as_machine("GET", &after, &token, "").await;
    assert_eq!(none.status(), StatusCode::NO_CONTENT);
    let (inventory, _dir) = rig.stop().await;
    let order = inventory.order(order.id).await.unwrap().unwrap();
    assert_eq!((order.state, order.answer.as_str()), (OrderState::Done, "a line\n"));
}

#[tokio::test]
async fn an_order_to_start_a_version_brings_all_that_the_system_needs_for_it() {
    let rig = Rig::start().await;
    let (boot, token) = rig.up().await;
    let version = rig.version;
    let kexec = |version| Command::Kexec { image: "web".parse().unwrap(), version };
    let gone = rig.order(boot, kexec(Digest::from_bytes([9; 32]))).await;
    let order = rig.order(boot, kexec(version)).await;
    let path = format!("/agent/{boot}/orders");
    let handed = json(&rig.as_machine("GET", &path, &token, "").await);
    assert_eq!(handed.as_array().unwrap().len(), 1, "{handed}");
    let handed = &handed[0];
    assert_eq!(handed["cmdline"], "quiet");
    let manifest = rig.get(&format!("/blob/{}/manifest", version.hex())).await;
    assert_eq!(handed["manifest_size"].as_u64().unwrap(), manifest.body().len() as u64);
    assert_eq!(kiln_builder::hash::sha256(manifest.body()), version);
    let next = handed["boot"].as_i64().unwrap();
    let kernel = format!("/blob/{}/vmlinuz?boot={next}", rig.kernel.hex());
    assert_eq!(rig.get(&kernel).await.body().as_ref(), KERNEL);
    let told = rig.told(handed["segment"].as_str().unwrap()).await;
    assert_eq!(told["boot"].as_i64(), Some(next));
    let done = format!("{path}/{}", order.id);
    rig.as_machine("POST", &done, &token, r#"{"state":"done"}"#).await;
    let home = format!("/phone-home/{next}");
    let report = r#"[{"phase":"healthy","millis":2000}]"#;
    let answer = rig.as_machine("POST", &home, told["token"].as_str().unwrap(), report).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let old = rig.as_machine("GET", &path, &token, "").await;
    assert_eq!(old.status(), StatusCode::NOT_FOUND, "that boot is over");
    let (inventory, _dir) = rig.stop().await;
    let failed = inventory.order(gone.id).await.unwrap().unwrap();
    assert!(failed.answer.ends_with("is no longer served"), "{}", failed.answer);
    let (boot, events) = inventory.boot(BootId(next)).await.unwrap().unwrap();
    assert_eq!(boot.outcome, Outcome::Healthy);
    let phases: Vec<Phase> = events.iter().map(|event| event.phase).collect();
    assert_eq!(phases, [Phase::Kexec, Phase::Kernel, Phase::Segment, Phase::Healthy]);
}
