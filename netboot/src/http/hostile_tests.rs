//! What intruders, scanners and broken programs send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::metadata_tests::told;
use super::tests::{LARGE, Rig, large, raw};

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn no_path_leads_out_of_what_is_served_however_it_is_written() {
    let rig = Rig::start().await;
    let hex = rig.kernel.hex();
    for path in [
        "/loader/../inventory.db",
        "/loader/..%2finventory.db",
        "/loader/%2e%2e/%2e%2e/etc/passwd",
        "/loader/%252e%252e%252finventory.db",
        "/loader/..\\inventory.db",
        "/loader/..%5cinventory.db",
        "/loader/C:/Windows/win.ini",
        "/loader/%00",
        "/loader/ipxe-amd64.efi%00.txt",
        "/loader/ipxe-amd64.efi.",
        "/loader/%c0%ae%c0%ae/inventory.db",
        "/loader/%zz",
        "/loader/%",
        "/loader//etc/passwd",
        "//etc/passwd",
        "/blob/../../../etc/passwd/x",
        &format!("/blob/{hex}/../../loader"),
        &format!("/blob/{}/x", hex.to_uppercase().replace(|c: char| c.is_ascii_digit(), "%30")),
        "/blob/sha256:../x",
        "/machine/1/../../script",
        "/script/..%2f..%2fetc%2fpasswd.ipxe",
        "/script/52-54-00-00-00-01.ipxe%00.txt",
        "file:///etc/passwd",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = raw(rig.address(), request.as_bytes()).await;
        assert!([400, 403, 404].contains(&status(&answer)), "{path}: {answer}");
        assert!(!answer.contains("root:") && !answer.contains("SQLite"), "{path}: {answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn one_request_is_never_taken_for_two() {
    let rig = Rig::start().await;
    let inner = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = "POST /phone-home/1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer 00\r\n";
    for fields in [
        format!("content-length: 0\r\ncontent-length: {}\r\n", inner.len()),
        "content-length: +5\r\n".to_owned(),
        "content-length: 5, 6\r\n".to_owned(),
        "content-length: 0x10\r\n".to_owned(),
        "content-length: -1\r\n".to_owned(),
        "content-length: 99999999999999999999999\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding: xchunked\r\n".to_owned(),
        "transfer-encoding : chunked\r\n".to_owned(),
        "content-length: 0\r\ntransfer-encoding: chunked\r\n".to_owned(),
        " content-length: 0\r\n".to_owned(),
        "x: a\0b\r\n".to_owned(),
    ] {
        let request = format!("{post}{fields}\r\n{inner}");
        let answer = raw(rig.address(), request.as_bytes()).await;
        assert!(!answer.contains("\r\n\r\nok\n"), "{fields:?}: {answer}");
        assert!(status(&answer) >= 400 || answer.is_empty(), "{fields:?}: {answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn heads_without_end_are_refused_before_they_cost_memory() {
    let rig = Rig::start().await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "a".repeat(100 << 10);
    for (what, request) in [
        ("many fields", format!("GET /livez HTTP/1.1\r\nhost: x\r\n{many}\r\n")),
        ("a long field", format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n")),
        ("a long name", format!("GET /livez HTTP/1.1\r\n{long}: x\r\n\r\n")),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")),
        ("no end", format!("GET /livez HTTP/1.1\r\n{}", "x: y\r\n".repeat(30_000))),
    ] {
        let answer = raw(rig.address(), request.as_bytes()).await;
        assert!([0, 400, 414, 431].contains(&status(&answer)), "{what}: {answer}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_head_that_comes_a_byte_at_a_time_is_not_waited_for() {
    let rig = Rig::start().await;
    for begin in ["", "G", "GET /livez HTTP/1.1\r\nhost: x\r\nx: "] {
        let mut stream = TcpStream::connect(rig.address()).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let started = Instant::now();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let waited = started.elapsed().as_secs();
        assert!((1..=20).contains(&waited), "{begin:?}: {waited} s");
    }
    assert_eq!(rig.get("/livez").await.status(), 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_thousand_ranges_cost_no_more_than_one_file() {
    let rig = Rig::start().await;
    let path = format!("/blob/{}/large.cpio.zst", rig.large.hex());
    let bomb = format!("bytes={}", (0..1300).map(|n| format!("{n}-,")).collect::<String>());
    for range in [bomb.as_str(), "bytes=0-1,2-3", "bytes=-", "bytes=1-0", "bytes=0-1,x"] {
        let answer = rig.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((answer.status().as_u16(), answer.body().len()), (200, LARGE), "{range:.20}");
    }
    for (range, expected) in [
        ("bytes=0-18446744073709551615", 206),
        ("bytes=0-99999999999999999999999999", 200),
        ("bytes=18446744073709551615-18446744073709551615", 416),
        ("bytes=-18446744073709551615", 206),
    ] {
        let answer = rig.send("GET", &path, &[("range", range)], "").await;
        assert_eq!(answer.status().as_u16(), expected, "{range}");
        assert!(expected == 416 || answer.body().as_ref() == large(), "{range}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn each_port_refuses_what_belongs_to_the_other() {
    let rig = Rig::start().await;
    let (server, _) = rig.encrypted().await;
    // The beginning of a TLS handshake, and noise.
    for noise in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0; 600], &[0xff; 70_000]]
    {
        let answer = raw(rig.address(), noise).await;
        assert!([0, 400, 431].contains(&status(&answer)), "{answer}");
    }
    let answer = raw(server.local_addr(), b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https://"), "{answer}");
    for noise in
        [&b"\x16\x03\x01\xff\xff"[..], b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff", &[0; 9]]
    {
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 100, "at most an alert");
    }
    assert_eq!(rig.get("/livez").await.status(), 200);
    server.shutdown().await;
    rig.stop().await;
}

/// What a machine says of itself is data, whatever it looks like, and never more than a machine is made of
/// (CVE-2019-10141).
#[tokio::test]
async fn sql_markup_and_ten_megabytes_in_facts_change_nothing_else() {
    let rig = Rig::start().await;
    let segment = told(&rig).await;
    let path = format!("/agent/{}/facts", segment["boot"]);
    let bearer = format!("Bearer {}", segment["token"].as_str().unwrap());
    let own = &[("authorization", bearer.as_str())][..];
    let before = rig.inventory.machines().await.unwrap();
    let large = format!(r#"{{"kernel":"{}"}}"#, "x".repeat(10 << 20));
    for path in [path.clone(), path.replace("/facts", "/kernel-log")] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {bearer}\r\n"
        );
        for length in [
            format!("content-length: {}\r\n\r\n", large.len()),
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", large.len()),
        ] {
            let mut stream = TcpStream::connect(rig.address()).await.unwrap();
            // Who is refused may be cut off before he has said all.
            let _ = stream.write_all(format!("{head}{length}{large}").as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!([0, 413].contains(&status(&answer)), "{path} {length}: {answer}");
        }
    }
    for wrong in [
        r#"{"system":"'; DROP TABLE machines; --"}"#,
        r#"{"disks":{"$where":"1"}}"#,
        r#"{"memory":{"total":"1 OR 1=1"}}"#,
        r#"{"memory":{"total":1e400}}"#,
    ] {
        let answer = rig.send("POST", &path, own, wrong).await;
        assert_eq!(answer.status().as_u16(), 400, "{wrong}");
    }
    for (said, kept) in [
        ("'; DROP TABLE machines; --", "'; DROP TABLE machines; --"),
        ("$1 ? :name %s\0\\", "$1 ? :name %s\\"),
        ("<script>alert(1)</script>{{ 7*7 }}", "<script>alert(1)</script>{{ 7*7 }}"),
        ("\u{202e}gnp.exe \u{1b}[2J", "gnp.exe [2J"),
    ] {
        let facts = serde_json::json!({
            "system": {"vendor": said, "serial": said},
            "kernel": said,
            "'; --": said,
        });
        let answer = rig.send("POST", &path, own, &facts.to_string()).await;
        assert_eq!(answer.status().as_u16(), 204, "{said}");
        let found = rig.inventory.facts(before[0].id).await.unwrap().unwrap().facts;
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["kernel"].as_str(), Some(kept), "{said}");
        assert_eq!(found["system"]["serial"].as_str(), Some(kept), "{said}");
        assert_eq!(found.get("'; --"), None);
    }
    assert_eq!(rig.inventory.machines().await.unwrap(), before);
    assert_eq!(rig.get("/livez").await.status(), 200);
    rig.stop().await;
}
