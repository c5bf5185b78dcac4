//! Requests and reports that were damaged on the way, or on purpose.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tests::Rig;
use crate::dhcp::{Random, rounds};

const REPORT: &str = r#"[{"phase":"init","detail":"a\u0007b","millis":12,"took":3},{"phase":"later","more":[{"x":null}]}]"#;
const HEAD: &str = "GET /script/52-54-00-00-00-01.ipxe?firmware=uefi-x64 HTTP/1.1\r\nhost: x\r\nrange: bytes=0-9\r\n\
                    if-range: \"a\"\r\nauthorization: Bearer 00\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Sends bytes and no more, and returns what comes back.
async fn last_words(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Whoever is refused may be cut off before he has said all.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Does one of the things that happen to bytes.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len().max(1));
    let end = (at + random.below(20)).min(bytes.len());
    match random.below(5) {
        0 if !bytes.is_empty() => bytes[at] = random.byte(),
        1 => bytes.truncate(at),
        2 => {
            bytes.drain(at..end);
        }
        3 => {
            let part = bytes[at..end].repeat(1 + random.below(30));
            bytes.splice(at..at, part);
        }
        _ => {
            let word =
                [&b"["[..], b"{\"a\":", b"\"", b"\0", b"1e999", b"\r\n", b"%2e%2e/", b"\xff"];
            let word = word[random.below(word.len())].repeat(1 + random.below(40));
            bytes.splice(at..at, word);
        }
    }
}

#[tokio::test]
async fn damaged_reports_are_refused_or_nobodys_and_depth_is_bounded() {
    let rig = Rig::start().await;
    let bearer = [("authorization", "Bearer 00")];
    for deep in ["[".repeat(60_000), "{\"phase\":".repeat(7000), format!("[{}", "[".repeat(1000))] {
        let answer = rig.send("POST", "/phone-home/1", &bearer, &deep).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    let mut random = Random::new(0x6a73_6f6e);
    for _ in 0..rounds(200) {
        let mut bytes = REPORT.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            damage(&mut bytes, &mut random);
        }
        let text = String::from_utf8_lossy(&bytes);
        let status = rig.send("POST", "/phone-home/1", &bearer, &text).await.status();
        let expected = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND];
        assert!(expected.contains(&status) || bytes.len() > 64 << 10, "{status} for {text}");
    }
    assert_eq!(rig.get("/livez").await.status(), StatusCode::OK);
    rig.stop().await;
}

#[tokio::test]
async fn damaged_requests_are_answered_or_dropped_and_the_next_is_served() {
    let rig = Rig::start().await;
    let mut random = Random::new(0x6874_7470);
    for _ in 0..rounds(100) {
        let mut bytes = HEAD.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            damage(&mut bytes, &mut random);
        }
        // The end of a head, so that nobody waits for the rest.
        bytes.extend(b"\r\n\r\n");
        let answer = last_words(rig.address(), &bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        let status = answer.split(' ').nth(1).unwrap_or("400");
        assert!(!status.starts_with('5') || status == "505", "{answer} to {bytes:?}");
    }
    assert_eq!(rig.get("/livez").await.status(), StatusCode::OK);
    rig.stop().await;
}
