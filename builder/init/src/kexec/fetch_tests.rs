//! Servers that lie, break off and have too much to do.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Answers each request with the next of these, and says what it was asked.
fn asked(answers: &'static [&'static [u8]]) -> (Source, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (say, said) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let lines = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
            let _ = say.send(lines.collect::<Vec<_>>().join("\n"));
            // The client may have heard enough before the end.
            let _ = stream.write_all(answer);
        }
    });
    (Source { haste: 1000, ..Source::new(address.into(), 7) }, said)
}

/// Answers like that, and is not there for longer.
fn server(answer: &'static [u8]) -> Source {
    asked(Box::leak(Box::new([answer]))).0
}

fn fetched(answer: &'static [u8]) -> Result<String, String> {
    let file = memory_file("test").unwrap();
    let result = server(answer).file(HELLO, "web.cpio.zst", 5, &file);
    let mut text = String::new();
    (&file).rewind().unwrap();
    (&file).read_to_string(&mut text).unwrap();
    result.map(|()| text).map_err(|error| crate::error::chain(&error))
}

#[test]
fn a_file_is_taken_by_its_digest() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(fetched(answer).unwrap(), "hello");
}

#[test]
fn a_server_that_lies_is_found_out() {
    for (answer, expected) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO"[..],
            "web.cpio.zst is not what its digest says",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello",
            "cannot fetch web.cpio.zst: the server sends 99999999999 bytes where 5 are wanted",
        ),
        (
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            "cannot fetch web.cpio.zst: the server's answer cannot be understood: it does not tell its length",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "cannot fetch web.cpio.zst: the server answers 404",
        ),
    ] {
        assert_eq!(fetched(answer).unwrap_err(), expected);
    }
}

#[test]
fn a_manifest_is_bounded_and_its_name_is_its_digest() {
    let error = server(b"").manifest(HELLO, LARGEST_MANIFEST + 1).unwrap_err();
    assert!(matches!(error, KexecError::ManifestSize(_)));
    for name in ["", "sha256:", "zz", "../../etc"] {
        let error = server(b"").manifest(name, 5).unwrap_err();
        assert!(matches!(error, KexecError::Digest(_)), "{name}");
    }
}

#[test]
fn a_machine_segment_that_never_ends_is_not_read() {
    let file = memory_file("test").unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n";
    let error = server(answer).segment("/machine/7/x.cpio", &file).unwrap_err();
    assert!(matches!(error, KexecError::Fetch { source: HttpError::TooLarge(_), .. }));
    assert_eq!(file.metadata().unwrap().len(), 0);
}

/// Answers with these one after the other, and returns what came of it, and what the server was asked.
fn told(answers: &'static [&'static [u8]]) -> (Result<String, String>, Vec<String>) {
    let file = memory_file("test").unwrap();
    let (source, said) = asked(answers);
    let result = source.file(HELLO, "web.cpio.zst", 5, &file);
    let mut text = String::new();
    (&file).rewind().unwrap();
    (&file).read_to_string(&mut text).unwrap();
    let result = result.map(|()| text).map_err(|error| crate::error::chain(&error));
    (result, said.try_iter().collect())
}

#[test]
fn a_server_with_too_much_to_do_is_asked_again_and_one_that_breaks_off_for_the_rest() {
    let (result, asked) = told(&[
        b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
        b"",
        b"HTTP/1.1 206 P\r\nContent-Length: 3\r\nContent-Range: bytes 2-4/5\r\n\r\nl",
        // One that does not know parts sends the whole.
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ]);
    assert_eq!(result.as_deref(), Ok("hello"));
    let from = |text: &String| {
        text.lines().find_map(|line| line.strip_prefix("Range: ").map(str::to_owned))
    };
    let expected = [None, None, Some("bytes=2-"), Some("bytes=2-"), Some("bytes=3-")];
    assert_eq!(
        asked.iter().map(from).collect::<Vec<_>>(),
        expected.map(|text| text.map(str::to_owned))
    );
}

#[test]
fn what_will_not_go_better_is_asked_once() {
    const WRONG: &[&[&[u8]]] = &[
        &[b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b""],
        &[b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b""],
        &[b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!", b""],
        &[b"HTTP/1.1 206 P\r\nContent-Length: 5\r\nContent-Range: bytes 1-5/6\r\n\r\nhello", b""],
        &[b"nothing of the kind\r\n\r\n", b""],
    ];
    for answers in WRONG {
        let (result, asked) = told(answers);
        assert!(result.is_err(), "{asked:?}");
        assert_eq!(asked.len(), 1, "{result:?}");
    }
}

#[test]
fn a_server_that_never_comes_back_ends_the_patience() {
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let (result, heard) = told(&[BUSY; 20]);
    assert_eq!(result.unwrap_err(), "cannot fetch web.cpio.zst: the server answers 503");
    assert_eq!(heard.len(), TRIES as usize);
    let file = memory_file("test").unwrap();
    let (source, said) = asked(&[BUSY; 20]);
    let late = Source { deadline: uptime(), ..source };
    assert!(late.segment("/machine/7/x.cpio", &file).is_err());
    assert_eq!(said.try_iter().count(), 1);
}
