use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::progress::Silent;

/// Serves one canned answer per connection, the last one for ever, and counts the connections.
async fn serve(answers: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let at = counter.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answers[at].as_bytes()).await;
        }
    });
    (base, count)
}

async fn get(url: &str, limit: u64, sha256: Option<Digest>) -> (Result<Digest, String>, bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/file");
    let mut fetcher = Fetcher::new(&Silent);
    fetcher.first_pause = Duration::from_millis(1);
    let what = Download { url, path: &path, name: "file", limit, size: None, sha256 };
    let result = fetcher.download(what).await.map_err(|error| error.to_string());
    let left = std::fs::read_dir(dir.path().join("sub")).map_or(0, Iterator::count);
    assert_eq!(left, usize::from(path.exists()), "a temporary file was left");
    (result, path.exists())
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

#[tokio::test]
async fn a_file_arrives_and_is_hashed() {
    let (base, _) = serve(&[HELLO]).await;
    let (digest, exists) = get(&format!("{base}/x"), 5, None).await;
    assert_eq!(digest.unwrap().short(), "2cf24dba5fb0");
    assert!(exists);
}

#[tokio::test]
async fn redirects_are_followed_and_limited() {
    let (base, _) = serve(&[
        "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        HELLO,
    ])
    .await;
    assert!(get(&format!("{base}/x"), 5, None).await.1);
    let (base, count) = serve(&[
        "HTTP/1.1 302 Found\r\nlocation: again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ])
    .await;
    let (result, _) = get(&format!("{base}/x"), 5, None).await;
    assert!(result.unwrap_err().contains("redirects more than 5 times"));
    assert_eq!(count.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_server_that_stumbles_is_asked_three_times() {
    const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (base, count) = serve(&[BUSY, BUSY, HELLO]).await;
    assert!(get(&format!("{base}/x"), 5, None).await.1);
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (base, count) =
        serve(&["HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]).await;
    let (result, _) = get(&format!("{base}/x"), 5, None).await;
    assert!(result.unwrap_err().contains("answered `404 Not Found`"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_wrong_is_not_kept() {
    let (base, _) = serve(&[HELLO]).await;
    let url = format!("{base}/x");
    let (result, exists) = get(&url, 4, None).await;
    assert_eq!(
        result.unwrap_err(),
        format!("{url} is larger than the 4 bytes that were expected; it was not kept")
    );
    assert!(!exists);
    let (result, exists) = get(&url, 5, Some(Digest::from_bytes([0; 32]))).await;
    assert!(result.unwrap_err().contains("has the hash sha256:2cf24"));
    assert!(!exists);
    // Without a length, the limit counts while the bytes come.
    let (base, _) = serve(&["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"]).await;
    let (result, _) = get(&format!("{base}/x"), 4, None).await;
    assert!(result.unwrap_err().contains("larger"));
    let (base, _) =
        serve(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhello"]).await;
    let (result, exists) = get(&format!("{base}/x"), 99, None).await;
    assert!(result.unwrap_err().contains("broke off"));
    assert!(!exists);
}

/// Serves `hello world`: from the byte that is asked for on, and no more than `piece` bytes at a time. Notes the first
/// line and the range of each request.
async fn serve_pieces(piece: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            let got = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..got]).into_owned();
            let range = request.lines().find_map(|line| line.strip_prefix("range: bytes="));
            let from: usize = range.map_or(0, |it| it.trim_end_matches('-').parse().unwrap());
            let first = request.lines().next().unwrap_or_default();
            log.lock().unwrap().push(format!("{first} {from}"));
            let all = b"hello world";
            let head = match from {
                0 => "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n".to_owned(),
                _ => format!(
                    "HTTP/1.1 206 Partial\r\ncontent-range: bytes {from}-10/11\r\ncontent-length: {}\r\n",
                    11 - from
                ),
            };
            let _ = stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await;
            let _ = stream.write_all(&all[from..(from + piece).min(11)]).await;
        }
    });
    (base, asked)
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let hash = crate::hash::sha256(b"hello world");
    let (base, asked) = serve_pieces(4).await;
    let (digest, exists) = get(&format!("{base}/x"), 11, Some(hash)).await;
    assert_eq!(digest.unwrap(), hash);
    assert!(exists);
    assert_eq!(
        *asked.lock().unwrap(),
        ["GET /x HTTP/1.1 0", "GET /x HTTP/1.1 4", "GET /x HTTP/1.1 8"]
    );
}

#[tokio::test]
async fn a_later_run_goes_on_and_a_wrong_beginning_is_thrown_away() {
    let hash = crate::hash::sha256(b"hello world");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let (base, asked) = serve_pieces(3).await;
    let url = format!("{base}/x");
    let mut fetcher = Fetcher::new(&Silent);
    fetcher.first_pause = Duration::from_millis(1);
    let what = Download {
        url: &url,
        path: &path,
        name: "file",
        limit: 11,
        size: Some(11),
        sha256: Some(hash),
    };
    // Three tries are not enough for eleven bytes.
    assert!(fetcher.download(what).await.is_err());
    assert!(!path.exists());
    fetcher.download(what).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
    assert_eq!(asked.lock().unwrap().last().unwrap(), "GET /x HTTP/1.1 9");

    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join(".file.part"), "HELLO").unwrap();
    let (base, asked) = serve_pieces(11).await;
    let url = format!("{base}/x");
    fetcher.download(Download { url: &url, ..what }).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
    assert_eq!(*asked.lock().unwrap(), ["GET /x HTTP/1.1 5", "GET /x HTTP/1.1 0"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_that_has_not_changed_is_not_fetched_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let date = "Sat, 21 Nov 2026 02:39:58 GMT";
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            let got = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..got]).into_owned();
            let known = request.contains("if-none-match: \"a\"\r\n")
                && request.contains(&format!("if-modified-since: {date}\r\n"));
            let answer = match known {
                true => "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".to_owned(),
                false => HELLO.replace(
                    "connection",
                    &format!("etag: \"a\"\r\nlast-modified: {date}\r\nconnection"),
                ),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let fetcher = Fetcher::new(&Silent);
    let what = Download { url: &url, path: &path, name: "x", limit: 5, size: None, sha256: None };
    let first = fetcher.refresh(what, &Validators::default()).await.unwrap();
    let Refreshed::New(known) = first else { panic!("{first:?}") };
    assert_eq!(known.last_modified.as_deref(), Some(date));
    std::fs::write(&path, "kept").unwrap();
    assert_eq!(fetcher.refresh(what, &known).await.unwrap(), Refreshed::Unchanged);
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let other = Validators { etag: Some("\"b\"".to_owned()), ..known };
    assert!(matches!(fetcher.refresh(what, &other).await.unwrap(), Refreshed::New(_)));
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_whole_address() {
    let (proxy, asked) = serve_pieces(11).await;
    let dir = tempfile::tempdir().unwrap();
    let mut fetcher = Fetcher::new(&Silent);
    fetcher.first_pause = Duration::from_millis(1);
    fetcher.clients = Clients::new(proxy::Proxies::of(&proxy));
    let path = dir.path().join("file");
    let url = "http://mirror.example/debian/x";
    let what = Download { url, path: &path, name: "file", limit: 11, size: None, sha256: None };
    fetcher.download(what).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["GET http://mirror.example/debian/x HTTP/1.1 0"]);
    // By HTTPS the proxy is asked for a tunnel; this one knows only files.
    let what = Download { url: "https://mirror.example/debian/x", ..what };
    assert!(fetcher.download(what).await.is_err());
    let asked = asked.lock().unwrap();
    assert!(asked[1].starts_with("CONNECT mirror.example:443 HTTP/1.1"), "{asked:?}");
}

#[tokio::test]
async fn addresses_that_cannot_work_are_refused_without_their_secrets() {
    for (url, text) in [
        ("ftp://a/b", "does not begin with http"),
        ("http://a b/", "malformed"),
        ("http://me:secret@mirror/x", "not supported"),
    ] {
        let (result, _) = get(url, 1, None).await;
        let error = result.unwrap_err();
        assert!(error.contains(text) && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_is_named() {
    // Every write to this device fails with ENOSPC.
    let error = std::fs::write("/dev/full", "x").unwrap_err();
    let error = FetchError::write(Path::new("/cache/x"))(error);
    assert_eq!(
        error.to_string(),
        "no space is left on the disk for /cache/x; free some or choose another directory"
    );
}
