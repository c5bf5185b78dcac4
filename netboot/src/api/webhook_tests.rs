//! Webhooks: what is told, in which order, to whom; and what the other end may do wrong.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::tests::{MACHINES, Rig, machine};

const HOOKS: &str = "/api/v1/webhooks";

/// A program that is told.
struct Receiver(TcpListener);

struct Heard {
    head: String,
    body: Value,
    text: String,
}

impl Receiver {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        (Self(listener), url)
    }

    /// Waits for a message, and answers it.
    async fn hear(&self, answer: &str) -> Heard {
        let heard = async {
            let (mut stream, _) = self.0.accept().await.unwrap();
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut chunk).await.unwrap();
                bytes.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, text)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.to_lowercase();
                let length = length.split("content-length: ").nth(1).unwrap();
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                if text.len() == length {
                    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let body = serde_json::from_str(text).unwrap();
                    return Heard { head: head.to_lowercase(), body, text: text.to_owned() };
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap()
    }
}

async fn state(rig: &Rig) -> Value {
    rig.get("/api/v1/webhooks/chat").await.1
}

#[tokio::test]
async fn a_webhook_is_told_what_it_wants_in_order_signed_and_again_until_it_arrives() {
    let rig = Rig::start().await;
    let (receiver, url) = Receiver::start().await;
    let new = json!({"name": "chat", "url": url, "events": ["machine:add"], "selector": "rack=r1"});
    let (status, made) = rig.send(Method::POST, HOOKS, &new).await;
    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap();
    for (name, mac, rack) in [("n1", "01", "r1"), ("n2", "02", "r2"), ("n3", "03", "r1")] {
        let mut new = machine(name, &format!("52:54:00:00:00:{mac}"), None);
        new["labels"] = json!({"rack": rack});
        assert_eq!(rig.send(Method::POST, MACHINES, &new).await.0, 201);
    }
    // What fails is sent again, and what leads elsewhere is a failure.
    for answer in ["500 No", "302 Found\r\nlocation: http://127.0.0.1:1/x", "204 No Content"] {
        let heard = receiver.hear(answer).await;
        assert_eq!(heard.body["event"]["name"], "n1", "{}", heard.text);
        assert!(heard.head.starts_with("post /hook?x=1 http/1.1"), "{}", heard.head);
        let signed = heard.head.split("kiln-signature: t=").nth(1).unwrap();
        let seconds: i64 = signed.split(',').next().unwrap().parse().unwrap();
        let made = crate::webhook::signature(secret.as_bytes(), seconds, heard.text.as_bytes());
        assert!(heard.head.contains(&format!("kiln-signature: {made}")), "{}", heard.head);
        let id = heard.body["id"].as_str().unwrap();
        assert!(heard.head.contains(&format!("kiln-event-id: {id}")));
    }
    let heard = receiver.hear("200 OK").await;
    assert_eq!(heard.body["event"]["name"], "n3", "n2 is elsewhere");
    for _ in 0..600 {
        let log = rig.get("/api/v1/webhooks/chat/log").await.1;
        if log.as_array().unwrap().len() == 4 {
            let states: Vec<_> = log.as_array().unwrap().iter().map(|it| &it["status"]).collect();
            assert_eq!(states, [200, 204, 302, 500]);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Only once is the secret shown.
    for path in [HOOKS, "/api/v1/webhooks/chat", "/api/v1/secrets", "/api/v1/audit"] {
        assert!(!rig.get(path).await.1.to_string().contains(secret), "{path}");
    }
    assert_eq!(rig.send(Method::DELETE, "/api/v1/webhooks/chat", &Value::Null).await.0, 204);
    assert!(rig.inventory.recall("webhook/1").await.unwrap().is_none());
    rig.stop().await;
}

#[tokio::test]
async fn a_webhook_that_has_come_further_than_the_events_goes_back_to_their_end() {
    let rig = Rig::start().await;
    let (receiver, url) = Receiver::start().await;
    let new = json!({"name": "chat", "url": url, "events": ["machine"]});
    assert_eq!(rig.send(Method::POST, HOOKS, &new).await.0, 201);
    let position = async || {
        let (revision, text) = rig.inventory.recall("webhook/1").await.unwrap().unwrap();
        (revision, serde_json::from_str::<Value>(&text).unwrap())
    };
    loop {
        let (revision, mut ahead) = position().await;
        ahead["cursor"] = json!("99.99");
        let text = ahead.to_string();
        if rig.inventory.remember("webhook/1", Some(revision), &text).await.unwrap().is_some() {
            break;
        }
    }
    let back = async {
        while position().await.1["cursor"] == "99.99" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("it hears nothing any more");
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    assert_eq!(rig.send(Method::POST, MACHINES, &n1).await.0, 201);
    assert_eq!(receiver.hear("200 OK").await.body["event"]["name"], "n1");
    rig.stop().await;
}

#[tokio::test]
async fn one_that_is_gone_is_let_alone_until_a_test_arrives() {
    let rig = Rig::start().await;
    let (receiver, url) = Receiver::start().await;
    let new = json!({"name": "chat", "url": url});
    assert_eq!(rig.send(Method::POST, HOOKS, &new).await.0, 201);
    // Of itself it is told first.
    assert_eq!(receiver.hear("410 Gone").await.body["event"]["noun"], "webhook");
    for _ in 0..600 {
        if state(&rig).await["disabled"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(state(&rig).await["disabled"].as_str().unwrap().contains("410"));
    let counts = crate::api::webhook_states(&rig.inventory).await.unwrap();
    assert_eq!(counts, [("delivering", 0), ("failing", 0), ("disabled", 1)]);
    let test = rig.send(Method::POST, "/api/v1/webhooks/chat/test", &Value::Null);
    let (heard, (status, sent)) = tokio::join!(receiver.hear("200 OK"), test);
    assert_eq!((status, &sent["status"], &heard.body["id"]), (200, &json!(200), &json!("test")));
    assert!(state(&rig).await["disabled"].is_null());
    let counts = crate::api::webhook_states(&rig.inventory).await.unwrap();
    assert_eq!(counts[0], ("delivering", 1));
    assert_eq!(receiver.hear("200 OK").await.body["event"]["noun"], "webhook", "nothing is lost");
    rig.stop().await;
}

#[tokio::test]
async fn a_webhook_that_leads_where_it_may_not_is_refused() {
    let rig = Rig::start().await;
    for (new, expected) in [
        (json!({"name": "a", "url": "ftp://a/"}), "/url"),
        (json!({"name": "a", "url": "file:///etc/passwd"}), "/url"),
        (json!({"name": "a", "url": "https://u:p@a/"}), "/url"),
        (json!({"name": "a b", "url": "https://a/"}), "/name"),
        (json!({"name": "a", "url": "https://a/", "events": ["x"]}), "/events"),
        (json!({"name": "a", "url": "https://a/", "events": ["machine:<b>"]}), "/events"),
    ] {
        let (status, problem) = rig.send(Method::POST, HOOKS, &new).await;
        assert_eq!((status, &problem["pointer"]), (400, &json!(expected)), "{problem}");
    }
    // This rig allows 127.0.0.0/8 and nothing else.
    for url in [
        "http://169.254.169.254/latest",
        "http://[::1]:1/",
        "http://10.0.0.1/",
        "http://0.0.0.0:1/",
    ] {
        let new = json!({"name": "chat", "url": url, "events": ["user"]});
        assert_eq!(rig.send(Method::POST, HOOKS, &new).await.0, 201);
        let (status, sent) =
            rig.send(Method::POST, "/api/v1/webhooks/chat/test", &Value::Null).await;
        assert_eq!(status, 200);
        assert!(sent["error"].as_str().unwrap().starts_with("nothing is sent to "), "{sent}");
        rig.send(Method::DELETE, "/api/v1/webhooks/chat", &Value::Null).await;
    }
    rig.stop().await;
}
