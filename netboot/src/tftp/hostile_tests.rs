//! What no honest client sends, and what it gets.

use super::tests::{Client, Shelf, serve};
use super::*;

/// Whether the server still does its work.
async fn still_serves(shelf: &Shelf, server: &Server) {
    let before = shelf.ends(0).await.len();
    let mut client = Client::new(server).await;
    let file = client.fetch("ipxe/a", "blksize|1468|", |_| false).await;
    assert_eq!(file, Ok(vec![7; 3000]));
    shelf.ends(before + 1).await;
}

/// Sends packets to the port of requests, each from a port of its own, and returns what comes first for each: its code
/// where that is an error.
async fn codes(server: &Server, packets: &[&[u8]]) -> Vec<Option<u16>> {
    let mut codes = Vec::new();
    for packet in packets {
        let mut client = Client::new(server).await;
        client.ask(packet).await;
        let answer = client.hear(Duration::from_secs(5)).await.unwrap();
        let code = u16::from_be_bytes([answer[2], answer[3]]);
        codes.push((answer[1] == 5).then_some(code));
    }
    codes
}

#[tokio::test]
async fn a_request_to_write_is_refused() {
    let (shelf, server) = serve(Config::default());
    assert_eq!(codes(&server, &[b"\0\x02ipxe/a\0octet\0"]).await, [Some(2)]);
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_name_of_64_kilobytes_an_empty_one_and_missing_ends_are_refused() {
    let (shelf, server) = serve(Config::default());
    let long = [b"\0\x01".to_vec(), vec![b'a'; 60_000], b"\0octet\0".to_vec()].concat();
    let packets = [
        &long[..],
        b"\0\x01\0octet\0",
        b"\0\x01",
        b"\0\x01ipxe/a",
        b"\0\x01ipxe/a\0",
        b"\0\x01ipxe/a\0octet",
    ];
    let expected = [Some(4), Some(1), Some(4), Some(4), Some(4), Some(4)];
    assert_eq!(codes(&server, &packets).await, expected);
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn no_name_leads_out_of_what_is_served() {
    let (shelf, server) = serve(Config::default());
    for name in [
        &b"../etc/passwd"[..],
        b"/etc/passwd",
        b"..\\..\\etc\\passwd",
        b"ipxe/../../a",
        b"..%2f..%2fetc%2fpasswd",
        b"%252e%252e/etc/passwd",
        b"..\xc0\xaf..\xc0\xafetc/passwd",
        b"C:\\windows\\win.ini",
        b"\\\\server\\share",
        b"//etc//passwd",
        b"ipxe/a.",
        b"ipxe/a\xffb",
    ] {
        let packet = [b"\0\x01", name, b"\0octet\0"].concat();
        assert_eq!(codes(&server, &[&packet]).await, [Some(1)], "{name:?}");
    }
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn options_without_sense_are_left_out_of_the_answer() {
    let (shelf, server) = serve(Config::default());
    for value in ["", "0", "7", "-1", "+9", "0x200", "1e3", "99999999999999999999999", "\u{661}"] {
        let mut client = Client::new(&server).await;
        let options =
            format!("blksize|{value}|timeout|999{value}|windowsize|-{value}|utimeout|{value}|");
        client.read(b"ipxe/a", &options).await;
        let answer = client.next().await;
        assert_eq!((answer[1], answer.len()), (3, 516), "{value:?}");
        client.send(b"\0\x05\0\0\0").await;
    }
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_hundred_options_have_one_short_answer() {
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    let options = "blksize|1468|blksize|9|tsize|0|multicast||x|y|".repeat(20);
    client.read(b"ipxe/a", &options).await;
    assert_eq!(client.next().await, b"\0\x06blksize\x001468\0tsize\x003000\0");
    client.send(b"\0\x05\0\x08\0").await;
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn packets_of_a_transfer_at_the_port_of_requests_have_no_answer() {
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    for packet in [
        &b""[..],
        b"\0",
        b"\0\x03\0\x01x",
        b"\0\x04\0\x01",
        b"\0\x05\0\0no\0",
        b"\0\x06",
        b"\xff\xff\xff",
    ] {
        client.ask(packet).await;
    }
    still_serves(&shelf, &server).await;
    assert_eq!(client.hear(Duration::from_millis(50)).await, None);
    assert_eq!(server.stats().counts().malformed, 7);
    server.shutdown().await;
}

#[tokio::test]
async fn a_packet_from_another_port_is_told_so_and_the_transfer_goes_on() {
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.read(b"ipxe/a", "blksize|1468|").await;
    client.next().await;
    let mut stranger = Client::new(&server).await;
    stranger.peer = client.peer;
    stranger.send(b"\0\x05\0\0stop\0").await;
    assert_eq!(stranger.next().await[..4], [0, 5, 0, 5]);
    client.ack(0).await;
    assert_eq!(client.next().await[..4], [0, 3, 0, 1]);
    client.send(b"\0\x05\0\0\0").await;
    shelf.ends(1).await;
    server.shutdown().await;
}

#[tokio::test]
async fn words_of_a_client_cannot_draw_on_a_terminal_or_make_lines_in_a_log() {
    let (shelf, server) = serve(Config::default());
    let mut client = Client::new(&server).await;
    client.read(b"ipxe/a", "").await;
    client.next().await;
    client.ack(1).await;
    client.next().await;
    let text = [b"\0\x05\0\0a\nb\x1b[31m\xff\xe2\x80\xae".to_vec(), vec![b'x'; 9000]].concat();
    client.send(&text).await;
    let ends = shelf.ends(1).await;
    let End::GaveUp { text, .. } = &ends[0].1 else { panic!("{ends:?}") };
    assert!(text.starts_with("a?b?[31m\u{fffd}?x") && text.chars().count() == 120, "{text}");
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn one_client_gets_its_share_of_transfers_and_others_go_on() {
    let limits = Limits { per_client: 4, transfers: 6, ..Limits::default() };
    let (shelf, server) = serve(Config { limits, ..Config::default() });
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut client = Client::new(&server).await;
        client.read(b"large", "").await;
        client.next().await;
        greedy.push(client);
    }
    let mut fifth = Client::new(&server).await;
    fifth.read(b"large", "").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.stats().counts().refused == 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fifth.hear(Duration::from_millis(20)).await, None);
    for client in &greedy {
        client.send(b"\0\x05\0\0\0").await;
    }
    shelf.ends(4).await;
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn ten_thousand_requests_of_clients_that_go_away_leave_nothing_behind() {
    let (shelf, server) = serve(Config::default());
    for round in 0..500 {
        let mut client = Client::new(&server).await;
        for _ in 0..20 {
            client.read(b"ipxe/a", if round % 2 == 0 { "tsize|0|" } else { "" }).await;
        }
        client.next().await;
        client.send(b"\0\x05\0\x08\0").await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while server.stats().counts().active > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", server.stats().counts());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    still_serves(&shelf, &server).await;
    server.shutdown().await;
}
