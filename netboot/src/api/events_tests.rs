//! When the stream of events ends: with the right to it, and where an older backup is restored.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper::{Method, Request};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::peer::Peer;
use super::tests::{MACHINES, Rig, machine};

const PASSWORD: &str = "correct horse battery";

/// What has come of a stream by now.
type Heard = Arc<Mutex<String>>;

/// Follows the events from elsewhere, with a token, until the stream ends. Returns all that came.
async fn follow(rig: &Rig, token: &str) -> (JoinHandle<String>, Heard) {
    let peer = Peer::Remote(IpAddr::from([192, 0, 2, 1]));
    let router = rig.router.clone().layer(Extension(ConnectInfo(peer)));
    let request = Request::get("/api/v1/events?since=0")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let response = TowerToHyperService::new(router).call(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let heard = Heard::default();
    let so_far = heard.clone();
    let stream = tokio::spawn(async move {
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap_or_default();
            heard.lock().unwrap().push_str(std::str::from_utf8(&data).unwrap());
        }
        heard.lock().unwrap().clone()
    });
    (stream, so_far)
}

async fn end(stream: JoinHandle<String>) -> String {
    let all = tokio::time::timeout(Duration::from_secs(60), stream).await;
    all.expect("the stream does not end").unwrap()
}

async fn post(rig: &Rig, path: &str, body: Value) -> Value {
    let (status, made) = rig.send(Method::POST, path, &body).await;
    assert!(matches!(status, 200 | 201), "{status} {made}");
    made
}

#[tokio::test]
async fn the_stream_of_events_ends_with_the_token_and_with_the_session_of_its_reader() {
    let rig = Rig::start().await;
    let made = post(&rig, "/api/v1/tokens", json!({"name": "ci", "scopes": ["event:read"]})).await;
    let user = json!({"name": "eve", "scopes": ["event:read"], "password": PASSWORD});
    post(&rig, "/api/v1/users", user).await;
    let login = post(&rig, "/api/v1/login", json!({"user": "eve", "password": PASSWORD})).await;
    let (by_token, _) = follow(&rig, made["token"].as_str().unwrap()).await;
    let (by_user, _) = follow(&rig, login["token"].as_str().unwrap()).await;
    tokio::time::sleep(super::events::VET * 3).await;
    assert!(!by_token.is_finished() && !by_user.is_finished(), "who may read on does");

    assert_eq!(rig.send(Method::DELETE, "/api/v1/tokens/ci", &Value::Null).await.0, 204);
    let all = end(by_token).await;
    assert!(all.contains("event: cut-off") && all.contains("may have been revoked"), "{all}");
    assert!(!by_user.is_finished());
    let password = json!({"password": format!("{PASSWORD} 2")});
    let (status, answer) = rig.send(Method::PUT, "/api/v1/users/eve/password", &password).await;
    assert!(matches!(status, 200 | 204), "{status} {answer}");
    let all = end(by_user).await;
    assert!(all.contains("event: cut-off") && all.contains("may have been revoked"), "{all}");
    rig.stop().await;
}

#[tokio::test]
async fn who_follows_is_told_that_the_events_end_before_what_he_has_seen() {
    let rig = Rig::start().await;
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    post(&rig, MACHINES, n1).await;
    let token = json!({"name": "ci", "scopes": ["event:read", "machine:read"]});
    let made = post(&rig, "/api/v1/tokens", token).await;
    let mut backup = Vec::new();
    rig.inventory.back_up(&mut backup, &[], &[]).await.unwrap();
    let path = format!("{MACHINES}/n1");
    for cmdline in ["a", "b"] {
        rig.send(Method::PATCH, &path, &json!({"cmdline": cmdline})).await;
    }
    let (stream, heard) = follow(&rig, made["token"].as_str().unwrap()).await;
    let (status, last) = rig.get("/api/v1/events?since=4.0&follow=false").await;
    assert_eq!((status, last), (200, Value::Null));
    let has_read_on = async {
        while !heard.lock().unwrap().contains("id: 4.0\n") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), has_read_on).await.expect("it hears nothing");
    rig.inventory.restore(&mut &backup[..], true).await.unwrap();
    let all = end(stream).await;
    assert!(all.contains("id: 4.0\n"), "{all}");
    assert!(all.contains("event: cut-off") && all.contains("go on from 2.0"), "{all}");
    let (status, problem) = rig.get("/api/v1/events?since=4.0").await;
    assert_eq!((status, &problem["newest"]), (410, &json!("2.0")), "{problem}");
    assert_eq!(problem["type"], "urn:kiln:problem:beyond-newest");
    let (status, problem) = rig.get("/api/v1/events?since=2.1").await;
    assert_eq!((status, &problem["newest"]), (410, &json!("2.0")), "an event of a boot: {problem}");
    assert_eq!(rig.get("/api/v1/events?since=2.0&follow=false").await.0, 200);
    rig.stop().await;
}
