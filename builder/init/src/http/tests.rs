//! The client against servers that do not mean well.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::head::end_of_head;
use super::*;

const QUICK: Limits = Limits {
    connect: Duration::from_secs(5),
    silence: Duration::from_millis(300),
    total: Duration::from_secs(20),
};

/// Answers one connection with these bytes, a piece at a time with a pause behind each, and returns the request.
fn server(pieces: Vec<Vec<u8>>, pause: Duration) -> (Server, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let task = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while end_of_head(&request).is_none() {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => request.extend_from_slice(&buffer[..count]),
            }
        }
        for piece in pieces {
            if stream.write_all(&piece).is_err() {
                break;
            }
            thread::sleep(pause);
        }
        String::from_utf8(request).unwrap()
    });
    (address.into(), task)
}

fn at_once(answer: &[u8]) -> (Server, JoinHandle<String>) {
    server(vec![answer.to_vec()], Duration::ZERO)
}

fn asked(answer: &[u8]) -> Result<Answer, HttpError> {
    ask(&at_once(answer).0, &Request::get("/x"), QUICK, 100)
}

fn fetched(answer: &[u8], length: u64) -> Result<Vec<u8>, HttpError> {
    let mut into = Vec::new();
    fetch(&at_once(answer).0, &Request::get("/x"), QUICK, length, &mut into).map(|_| into)
}

#[test]
fn a_request_carries_its_token_and_body() {
    let (address, task) = at_once(b"HTTP/1.1 204 No Content\r\n\r\n");
    let answer = ask(&address, &Request::post("/a/1", "s3cret", b"[1]"), QUICK, 0).unwrap();
    assert_eq!(answer.status, 204);
    let request = task.join().unwrap();
    assert!(request.starts_with("POST /a/1 HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
    assert!(request.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{request}");
    assert!(request.contains("\r\nContent-Length: 3\r\n"), "{request}");
    assert!(request.contains("\r\nKiln-Uptime: "), "{request}");
}

#[test]
fn a_request_cannot_smuggle_a_second_one() {
    let address = "127.0.0.1:1".parse().unwrap();
    for (path, token) in [("x", "t"), ("/a b", "t"), ("/a\r\nB: c", "t"), ("/a", "t\r\nB: c")] {
        let request = Request::post(path, token, b"");
        assert!(matches!(written(address, &request), Err(HttpError::Request)), "{path:?}");
    }
}

#[test]
fn an_answer_is_taken_whole_with_the_servers_clock() {
    let answer = asked(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhello",
    );
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
    assert_eq!(answer.date(), Some(784_111_777));
}

#[test]
fn an_answer_in_small_pieces_is_put_together() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let pieces = answer.chunks(5).map(<[u8]>::to_vec).collect();
    let (address, _) = server(pieces, Duration::from_millis(2));
    assert_eq!(ask(&address, &Request::get("/"), QUICK, 3).unwrap().body, b"abc");
}

#[test]
fn bytes_behind_the_body_are_left_alone() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK";
    assert_eq!(asked(answer).unwrap().body, b"abc");
    assert_eq!(fetched(answer, 3).unwrap(), b"abc");
}

#[test]
fn an_answer_that_breaks_off_or_never_says_how_long_it_is_counts_for_nothing() {
    assert!(matches!(
        asked(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"),
        Err(HttpError::Short)
    ));
    assert!(matches!(asked(b"HTTP/1.1 200 OK\r\nContent-"), Err(HttpError::Short)));
    assert!(matches!(asked(b""), Err(HttpError::Short)));
    assert!(matches!(asked(b"HTTP/1.1 200 OK\r\n\r\nhello"), Err(HttpError::Head(_))));
    assert!(matches!(
        asked(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        Err(HttpError::Head("it comes in chunks"))
    ));
}

#[test]
fn an_answer_that_is_too_large_is_not_read() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx";
    assert!(matches!(asked(answer), Err(HttpError::TooLarge(100))));
    assert!(matches!(fetched(answer, 3), Err(HttpError::Length { wanted: 3, .. })));
}

#[test]
fn a_fetch_has_exactly_the_bytes_that_are_wanted() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    assert!(matches!(fetched(answer, 4), Err(HttpError::Length { told: 3, wanted: 4 })));
    assert!(matches!(
        fetched(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", 4),
        Err(HttpError::Short)
    ));
    let mut into = Vec::new();
    let (address, _) = at_once(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc");
    let answer = fetch(&address, &Request::get("/"), QUICK, 9, &mut into).unwrap();
    assert_eq!((answer.status, into.len()), (404, 0));
}

#[test]
fn a_writer_that_is_full_ends_the_fetch() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (address, _) = at_once(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
    let result = fetch(&address, &Request::get("/"), QUICK, 3, &mut Full);
    assert!(matches!(result, Err(HttpError::Keep(_))));
}

#[test]
fn headers_without_an_end_are_not_collected() {
    let mut pieces = vec![b"HTTP/1.1 200 OK\r\n".to_vec()];
    pieces.extend(vec![b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(32); 64]);
    let (address, _) = server(pieces, Duration::ZERO);
    let result = ask(&address, &Request::get("/"), QUICK, 100);
    assert!(matches!(result, Err(HttpError::Head("its headers are too long"))), "{result:?}");
}

#[test]
fn a_server_that_says_nothing_costs_the_limit_only() {
    let (address, _) = server(vec![b"HTTP/1.1 200 OK\r\n".to_vec()], Duration::from_secs(3));
    let result = ask(&address, &Request::get("/"), QUICK, 100);
    assert!(matches!(result, Err(HttpError::TooSlow)), "{result:?}");
}

#[test]
fn a_server_that_says_a_byte_now_and_then_ends_at_the_deadline() {
    let mut pieces = vec![b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n".to_vec()];
    pieces.extend(vec![b"x".to_vec(); 90]);
    let (address, _) = server(pieces, Duration::from_millis(50));
    let limits = Limits { total: Duration::from_millis(600), ..QUICK };
    let result = ask(&address, &Request::get("/"), limits, 100);
    assert!(matches!(result, Err(HttpError::TooSlow)), "{result:?}");
}

#[test]
fn a_port_on_which_nobody_listens_is_told() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().into();
    let result = ask(&address, &Request::get("/"), QUICK, 100);
    assert!(matches!(result, Err(HttpError::Connect(_))), "{result:?}");
}
