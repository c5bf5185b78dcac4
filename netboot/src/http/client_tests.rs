//! Clients as there are: old and new, fast and slow, with encryption and without.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tests::{KERNEL, LARGE, Rig, large, raw};
use crate::settings::TransferSettings;

/// Reads one answer with its body of known length from a connection that stays open.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, body)
}

#[tokio::test]
async fn a_file_goes_by_the_kernel_in_parts_and_every_byte_is_in_its_place() {
    let rig = Rig::start().await;
    let (path, bytes) = (format!("/blob/{}/large.cpio.zst", rig.large.hex()), large());
    let mut stream = TcpStream::connect(rig.address()).await.unwrap();
    // One connection, as loaders keep it: files and answers from memory after each other, some asked for at once.
    for (first, last) in
        [(0, LARGE - 1), (1, LARGE - 1), (2_097_151, 2_097_152), (LARGE - 1, LARGE)]
    {
        let get = format!("GET {path} HTTP/1.1\r\nhost: x\r\nrange: bytes={first}-{last}\r\n\r\n");
        let small = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(format!("{get}{small}{get}").as_bytes()).await.unwrap();
        let (head, body) = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 206 "), "{head}");
        assert!(body == bytes[first..LARGE.min(last + 1)], "{first}-{last}");
        assert_eq!(answer(&mut stream).await.1, b"ok\n");
        assert!(answer(&mut stream).await.1 == bytes[first..LARGE.min(last + 1)]);
    }
    drop(stream);
    rig.stop().await;
}

#[tokio::test]
async fn clients_of_http_1_0_get_one_answer_or_keep_their_connection_when_they_ask() {
    let rig = Rig::start().await;
    let path = format!("/blob/{}/vmlinuz", rig.kernel.hex());
    let text = raw(rig.address(), format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(text.contains("content-length: 9\r\n") && text.ends_with("MZ kernel"), "{text}");
    let mut stream = TcpStream::connect(rig.address()).await.unwrap();
    for _ in 0..2 {
        let request = format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await.1, KERNEL);
    }
    drop(stream);
    rig.stop().await;
}

#[tokio::test]
async fn the_same_is_served_encrypted_and_its_scripts_go_on_encrypted() {
    let rig = Rig::start().await;
    let (server, authority) = rig.encrypted().await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let path = format!("/blob/{}/large.cpio.zst", rig.large.hex());
    let get = format!("GET {path} HTTP/1.1\r\nhost: x\r\nrange: bytes=5-\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.1 == large()[5..]);
    let script = "GET /script/52-54-00-00-00-01.ipxe HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(script.as_bytes()).await.unwrap();
    let script = String::from_utf8(answer(&mut stream).await.1).unwrap();
    assert!(script.contains(&format!("https://{}/blob/", server.local_addr())), "{script}");
    assert!(!script.contains(" http://"), "{script}");
    drop(stream);
    server.shutdown().await;
    rig.stop().await;
}

#[tokio::test]
async fn who_comes_while_others_are_served_is_told_to_come_back_and_gets_it_then() {
    let rig = Rig::start_with(TransferSettings { at_once: Some(1), ..Default::default() }).await;
    let path = format!("/blob/{}/large.cpio.zst", rig.large.hex());
    assert_eq!(rig.get("/turn/1").await.status(), 404);
    let pace = rig.plane.transfers.turn([10, 0, 0, 9].into(), 64 << 20).await.unwrap();
    let wait = rig.get("/turn/1").await;
    assert_eq!(wait.body(), kiln_ipxe::WAIT_SCRIPT);
    let refused = rig.get(&path).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    // What is small or only asked about waits for nobody.
    assert_eq!(rig.send("HEAD", &path, &[], "").await.status(), 200);
    let part = rig.send("GET", &path, &[("range", "bytes=0-99")], "").await;
    assert_eq!(part.status(), 206);
    drop(pace);
    assert!(rig.get(&path).await.body().as_ref() == large());
    assert_eq!(rig.get("/turn/1").await.status(), 404, "its place was given back");
    rig.stop().await;
}

#[tokio::test]
async fn an_idle_connection_costs_little_memory() {
    const COUNT: usize = 400;
    let rig = Rig::start().await;
    let resident = || -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let mut idle = Vec::new();
    rig.get("/livez").await;
    let before = resident();
    for _ in 0..COUNT {
        let mut stream = TcpStream::connect(rig.address()).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(answer(&mut stream).await.1, b"ok\n");
        idle.push(stream);
    }
    let each = resident().saturating_sub(before) / COUNT;
    println!("{each} bytes for each idle connection");
    // Other tests of this process run beside it.
    assert!(each < 128 << 10, "{each} bytes");
    drop(idle);
    rig.stop().await;
}

#[tokio::test]
async fn a_transfer_that_is_under_way_ends_when_the_server_is_told_to_stop() {
    let rig = Rig::start().await;
    let path = format!("/blob/{}/large.cpio.zst", rig.large.hex());
    let mut stream = TcpStream::connect(rig.address()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let first = stream.read_u8().await.unwrap();
    assert_eq!(first, b'H');
    let address = rig.address();
    let stopping = tokio::spawn(rig.stop());
    // Nobody else is let in.
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(&large()[LARGE - 1000..]));
    stopping.await.unwrap();
}
