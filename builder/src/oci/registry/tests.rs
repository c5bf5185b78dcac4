use std::collections::VecDeque;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::Mutex as StdMutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::progress::{Progress as _, Silent};

/// A registry that gives one answer to each request, in order, and remembers what was asked.
struct Stub {
    address: String,
    seen: Arc<StdMutex<Vec<String>>>,
}

impl Stub {
    async fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(StdMutex::new(Vec::new()));
        let kept = seen.clone();
        let mut answers = VecDeque::from(answers);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1
                {
                    head.push(byte[0]);
                }
                kept.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                let last = answer(500, "", "no answer left");
                let _ = stream.write_all(&answers.pop_front().unwrap_or(last)).await;
            }
        });
        Self { address, seen }
    }

    fn registries(&self) -> Registries {
        let host = self.address.clone();
        Registries::new(vec![RegistrySettings {
            host,
            plain_http: true,
            ..RegistrySettings::default()
        }])
    }

    fn reference(&self) -> Reference {
        format!("{}/team/web:1", self.address).parse().unwrap()
    }

    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn error(answers: Vec<Vec<u8>>) -> String {
    let stub = Stub::start(answers).await;
    let error = stub.registries().manifest(&stub.reference(), None).await.unwrap_err();
    error.to_string().replace(&stub.address, "HOST")
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: sha256(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
        artifact_type: None,
    }
}

#[tokio::test]
async fn every_refusal_is_one_sentence_that_says_what_to_do() {
    let five = |status| vec![answer(status, "", ""); 5];
    for (answers, expected) in [
        (vec![answer(404, "", "")], "HOST has no team/web:1; check the name and the tag"),
        (vec![answer(403, "", "")], "HOST does not allow team/web to this user"),
        (five(429), "HOST limits how much it gives (429) and still does after 5 tries"),
        (five(500), "HOST answers 500 for team/web:1"),
        (vec![answer(418, "", "")], "HOST answers 418 for team/web:1"),
        (
            vec![b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{".to_vec(); 5],
            "HOST breaks off while it sends team/web:1",
        ),
    ] {
        let text = error(answers).await;
        assert!(text.starts_with(expected), "{text}");
    }
    let text = error(vec![answer(200, "", &"x".repeat(5 << 20))]).await;
    assert!(text.starts_with("HOST sends more than 4194304 bytes for team/web:1"), "{text}");
}

#[tokio::test]
async fn a_registry_that_is_busy_or_stumbles_is_asked_again() {
    let answers =
        vec![answer(429, "retry-after: 0\r\n", ""), answer(503, "", ""), answer(200, "", "{}")];
    let stub = Stub::start(answers).await;
    assert_eq!(stub.registries().manifest(&stub.reference(), None).await.unwrap(), "{}");
    assert_eq!(stub.lines(), vec!["GET /v2/team/web/manifests/1 HTTP/1.1"; 3]);
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_says_or_it_is_not_taken() {
    let wanted = sha256(b"{\"a\":1}");
    let stub = Stub::start(vec![answer(200, "", "{}"); 6]).await;
    let error = stub.registries().manifest(&stub.reference(), Some(wanted)).await.unwrap_err();
    assert!(error.to_string().contains("it is sha256:44136fa355b3"), "{error}");
    assert!(stub.lines()[0].contains(&format!("/manifests/{wanted} ")));
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let bytes = b"0123456789";
    let part = |status: u16, range: &str, body: &str, length: usize| {
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{range}\r\n{body}")
            .into_bytes()
    };
    let answers = vec![
        part(200, "", "0123", 10),
        part(206, "content-range: bytes 4-9/10\r\n", "45", 6),
        part(206, "content-range: bytes 6-9/10\r\n", "6789", 4),
    ];
    let stub = Stub::start(answers).await;
    let mut file = tempfile::tempfile().unwrap();
    let mut task = Silent.begin("", None);
    let (registries, reference) = (stub.registries(), stub.reference());
    registries.blob(&reference, &blob(bytes), &mut file, &mut *task).await.unwrap();
    let mut got = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut got).unwrap();
    assert_eq!(got, bytes);
    let seen = stub.seen.lock().unwrap().clone();
    assert!(seen[1].contains("range: bytes=4-") && seen[2].contains("range: bytes=6-"), "{seen:?}");
}

#[tokio::test]
async fn a_registry_that_sends_everything_again_does_not_double_the_blob() {
    let bytes = b"0123456789";
    let stub = Stub::start(vec![answer(200, "", "0123456789")]).await;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123").unwrap();
    // As the cache opens it: every write goes to the end.
    let flags = nix::fcntl::OFlag::O_APPEND;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let mut task = Silent.begin("", None);
    let (registries, reference) = (stub.registries(), stub.reference());
    registries.blob(&reference, &blob(bytes), &mut file, &mut *task).await.unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    let stub = Stub::start(vec![answer(200, "", "0123456789abc")]).await;
    let (registries, reference) = (stub.registries(), stub.reference());
    let mut other = tempfile::tempfile().unwrap();
    let error =
        registries.blob(&reference, &blob(bytes), &mut other, &mut *task).await.unwrap_err();
    assert!(error.to_string().contains("sends more than 10 bytes"), "{error}");
}

#[tokio::test]
async fn a_login_is_made_when_it_is_asked_for_and_an_unknown_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let basic = "www-authenticate: Basic realm=\"x\"\r\n";
    // The request, what the library asks to learn the kind of login, and the request again.
    let answers = vec![answer(401, basic, ""), answer(401, basic, ""), answer(200, "", "{}")];
    let stub = Stub::start(answers).await;
    let settings = RegistrySettings {
        host: stub.address.clone(),
        plain_http: true,
        username: Some("me".to_owned()),
        password_file: Some(password),
        ..RegistrySettings::default()
    };
    let registries = Registries::new(vec![settings]);
    assert_eq!(registries.manifest(&stub.reference(), None).await.unwrap(), "{}");
    let last = stub.seen.lock().unwrap().last().unwrap().clone();
    assert!(last.contains("authorization: Basic bWU6c2VjcmV0"), "{last}");

    let text = error(vec![answer(401, basic, ""); 3]).await;
    assert!(text.starts_with("HOST wants a login for team/web, "), "{text}");
}

fn bearer(realm: &str) -> String {
    format!("www-authenticate: Bearer realm=\"{realm}\",service=\"hub\"\r\n")
}

#[tokio::test]
async fn a_token_is_had_where_the_registry_says_and_used_for_the_request() {
    let giver =
        Stub::start(vec![answer(200, "", "{\"access_token\": \"t0k\", \"expires_in\": 300}")])
            .await;
    let asks = bearer(&format!("http://{}/token?x=y", giver.address));
    let answers = vec![answer(401, &asks, ""), answer(401, &asks, ""), answer(200, "", "{}")];
    let stub = Stub::start(answers).await;
    assert_eq!(stub.registries().manifest(&stub.reference(), None).await.unwrap(), "{}");
    let scope = "repository%3Ateam%2Fweb%3Apull";
    assert_eq!(giver.lines(), [format!("GET /token?x=y&scope={scope}&service=hub HTTP/1.1")]);
    let last = stub.seen.lock().unwrap().last().unwrap().clone();
    assert!(last.contains("authorization: Bearer t0k"), "{last}");
}

#[tokio::test]
async fn a_token_is_not_asked_for_where_the_registry_may_not_send_us() {
    // This registry is on this host, from where nothing leads to services on the link.
    for realm in ["http://169.254.169.254/latest/api/token", "http://[fe80::1]/", "http://0.0.0.0/"]
    {
        let asks = bearer(realm);
        let text = error(vec![answer(401, &asks, ""); 2]).await;
        assert!(text.contains("cannot be trusted with that: it sends on to "), "{realm}: {text}");
    }
    for realm in ["", "token", "file:///etc/passwd", "http://"] {
        let asks = bearer(realm);
        let text = error(vec![answer(401, &asks, ""); 2]).await;
        assert!(text.starts_with("HOST wants a login for team/web, "), "{realm}: {text}");
    }
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_when_they_cannot_help() {
    let mirror = Stub::start(vec![answer(404, "", "")]).await;
    let registry = Stub::start(vec![answer(200, "", "{}")]).await;
    let plain = |host: &str, mirrors: Vec<String>| RegistrySettings {
        host: host.to_owned(),
        mirrors,
        plain_http: true,
        ..RegistrySettings::default()
    };
    let mirrors = vec![format!("{}/copies", mirror.address)];
    let registries = Registries::new(vec![
        plain(&registry.address, mirrors),
        plain(&mirror.address, Vec::new()),
    ]);
    assert_eq!(registries.manifest(&registry.reference(), None).await.unwrap(), "{}");
    assert_eq!(mirror.lines(), ["GET /v2/copies/team/web/manifests/1 HTTP/1.1"]);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_by_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let settings =
        RegistrySettings { host: host.clone(), plain_http: true, ..RegistrySettings::default() };
    let reference = format!("{host}/a:1").parse().unwrap();
    let error = Registries::new(vec![settings]).manifest(&reference, None).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot reach {host}: ")), "{error}");
}

#[tokio::test]
async fn a_registry_that_stalls_is_told_and_what_came_is_kept_for_the_next_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // Half an answer for the first, and silence for all others.
            if open.is_empty() {
                let _ = stream.read(&mut [0; 4096]).await;
                let half = b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n01234";
                stream.write_all(half).await.unwrap();
            }
            open.push(stream);
        }
    });
    let settings =
        RegistrySettings { host: host.clone(), plain_http: true, ..RegistrySettings::default() };
    let reference = format!("{host}/team/web:1").parse().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut task = Silent.begin("web", None);
    let registries = Registries::new(vec![settings]);
    let blob = blob(b"0123456789");
    let pull = registries.blob(&reference, &blob, &mut file, &mut *task);
    let error = pull.await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot reach {host}: it does not answer in time")),
        "{error}"
    );
    assert_eq!(file.metadata().unwrap().len(), 5);
}

#[tokio::test]
async fn a_registry_that_does_not_encrypt_is_told_apart_from_one_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reference = format!("{}/team/web:1", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&answer(400, "", "")).await;
        }
    });
    let error = Registries::new(Vec::new()).manifest(&reference, None).await.unwrap_err();
    assert!(error.to_string().contains("does not encrypt; if that is meant, set"), "{error}");
}

#[tokio::test]
async fn a_registry_that_sends_us_to_a_metadata_service_is_not_followed() {
    let bytes = b"layer";
    for to in [
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "file:///etc/passwd",
    ] {
        let stub = Stub::start(vec![answer(307, &format!("location: {to}\r\n"), ""); 5]).await;
        let mut file = tempfile::tempfile().unwrap();
        let reference = stub.reference();
        let registries = stub.registries();
        let mut task = Silent.begin("", None);
        let fetched = registries.blob(&reference, &blob(bytes), &mut file, &mut *task).await;
        let error = fetched.unwrap_err().to_string();
        assert!(!error.is_empty());
        assert_eq!(file.metadata().unwrap().len(), 0, "{to}");
        if to.starts_with("http:") {
            assert!(error.contains("it sends on to"), "{to}: {error}");
            assert_eq!(stub.lines().len(), 1, "it is not asked again");
        }
    }
    // A registry on this host may send us to another port of it.
    let store = Stub::start(vec![answer(200, "", "layer")]).await;
    let to = format!("location: http://{}/store\r\n", store.address);
    let stub = Stub::start(vec![answer(307, &to, "")]).await;
    let mut file = tempfile::tempfile().unwrap();
    let registries = stub.registries();
    let mut task = Silent.begin("", None);
    registries.blob(&stub.reference(), &blob(bytes), &mut file, &mut *task).await.unwrap();
    assert_eq!(store.lines(), ["GET /store HTTP/1.1"]);
}
