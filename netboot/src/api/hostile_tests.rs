//! What was done to servers like this one, and the test that does it to ours.
//!
//! | input | test |
//! |---|---|
//! | the store of tokens cannot be read, the clock is wrong | `access_tests::what_cannot_be_checked_is_refused` |
//! | headers in which a proxy names a user, with `_` in the place of `-` | `access_tests::headers_of_a_proxy_let_nobody_in` |
//! | fields that are nobody's to set (mass assignment) | `noun_tests::a_patch_changes_what_it_names_and_cannot_name_more_than_settings` |
//! | markup, SQL and terminal escapes in names and values | `noun_tests::markup_and_sql_of_a_machine_are_data`, `cli::table` |
//! | SQL, markup and 10 MB in facts, which machines tell on the boot plane | `http::hostile_tests::sql_markup_and_ten_megabytes_in_facts_change_nothing_else`, `change_tests` of the inventory |
//! | bodies of 10 MB | `access_tests::ten_megabytes_are_refused_before_they_are_read` |
//! | JSON 100 000 levels deep | `noun_tests::a_hundred_thousand_brackets_and_what_is_no_json_are_refused`, `http::damage_tests` |
//! | URLs that lead into the server or its network (SSRF), `file:`, redirects | `webhook_tests`, `webhook::guard`, `webhook::post` |
//! | registries that send a pull of an image to this host or its network | `oci::registry::guard` and its `tests` in the builder |
//! | a MAC that somebody guessed | `http::secret_tests::no_route_tells_a_secret_to_who_knows_a_mac_and_follows_every_link` |
//! | two requests in one, on the boot plane | `http::hostile_tests::one_request_is_never_taken_for_two` |
//! | two requests in one, heads without end, slow bodies on the control plane | here |

use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::{MACHINES, Rig};

/// Sends bytes as they are, and returns what comes back until the other end has enough, or for a second.
async fn raw(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = rig.connect().await;
    // Who is refused may be cut off before he has said all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn one_request_of_the_control_plane_is_never_taken_for_two() {
    let rig = Rig::start().await;
    let inner = "DELETE /api/v1/machines/n1 HTTP/1.1\r\nhost: x\r\nx-inner: 1\r\n\r\n";
    let post = "POST /api/v1/machines HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for fields in [
        format!("content-length: 0\r\ncontent-length: {}\r\n", inner.len()),
        "content-length: +5\r\n".to_owned(),
        "content-length: 5, 6\r\n".to_owned(),
        "content-length: -1\r\n".to_owned(),
        "content-length: 99999999999999999999999\r\n".to_owned(),
        "transfer-encoding: xchunked\r\n".to_owned(),
        "transfer-encoding : chunked\r\n".to_owned(),
        "content-length: 0\r\ntransfer-encoding: chunked\r\n".to_owned(),
        " content-length: 0\r\n".to_owned(),
        "x: a\0b\r\n".to_owned(),
    ] {
        let answer = raw(&rig, format!("{post}{fields}\r\n{inner}").as_bytes()).await;
        assert!(!answer.contains("there is no machine"), "{fields:?}: {answer}");
        assert!(status(&answer) >= 400 || answer.is_empty(), "{fields:?}: {answer}");
    }
    assert_eq!(rig.get(MACHINES).await.0, 200);
    rig.stop().await;
}

#[tokio::test]
async fn heads_without_end_and_slow_bodies_hold_up_nobody_else_on_the_control_plane() {
    let rig = Rig::start().await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "a".repeat(1 << 20);
    for (what, request) in [
        ("many fields", format!("GET {MACHINES} HTTP/1.1\r\nhost: x\r\n{many}\r\n")),
        ("a long field", format!("GET {MACHINES} HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n")),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")),
    ] {
        let answer = raw(&rig, request.as_bytes()).await;
        assert!([0, 400, 414, 431].contains(&status(&answer)), "{what}: {answer:.200}");
    }
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = rig.connect().await;
        let head = format!("POST {MACHINES} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let ask = rig.send(Method::GET, MACHINES, &Value::Null);
    let (status, _) = tokio::time::timeout(Duration::from_secs(60), ask).await.unwrap();
    assert_eq!(status, 200);
    drop(slow);
    // Nobody holds a place for ever either, whoever he is.
    let mut stream = rig.connect().await;
    let head = "POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_is_refused_before_its_body_came_keeps_its_connection() {
    let rig = Rig::start().await;
    let mut stream = rig.connect().await;
    let head = format!(
        "POST {MACHINES}?dry_run=what HTTP/1.1\r\nhost: x\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let next = format!("{{}}GET {MACHINES} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(next.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let codes: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
    assert_eq!(codes, ["400", "200"], "{answers}");
    rig.stop().await;
}
