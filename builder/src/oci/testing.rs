//! A registry in memory, for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kiln_types::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{ImageSettings, Reference, RegistrySettings};
use crate::hash::sha256;

/// What it holds, by path below `/v2/REPOSITORY/`, with the media type; and what was asked.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) objects: BTreeMap<String, (String, Vec<u8>)>,
    pub(super) lines: Vec<String>,
    /// What has come of the upload under way.
    upload: Vec<u8>,
    /// The user and password it wants for writing, as in the header.
    pub(super) login: Option<String>,
}

/// A registry of one repository, `team/web`.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) address: String,
    pub(super) held: Arc<Mutex<Held>>,
}

impl Registry {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let held = Arc::new(Mutex::new(Held::default()));
        let shared = held.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, held }
    }

    pub(super) fn reference(&self, tag: &str) -> Reference {
        format!("{}/team/web:{tag}", self.address).parse().unwrap()
    }

    pub(super) fn settings(&self) -> ImageSettings {
        let (host, plain_http) = (self.address.clone(), true);
        let registry = RegistrySettings { host, plain_http, ..RegistrySettings::default() };
        ImageSettings { registries: vec![registry], ..ImageSettings::default() }
    }

    /// Returns settings with a login, whose password is written to a file.
    pub(super) fn settings_with_login(&self, password_file: PathBuf) -> ImageSettings {
        std::fs::write(&password_file, "secret\n").unwrap();
        let mut settings = self.settings();
        settings.registries[0].username = Some("me".to_owned());
        settings.registries[0].password_file = Some(password_file);
        settings
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) -> Digest {
        self.held.lock().unwrap().objects.insert(path.to_owned(), (String::new(), bytes.to_vec()));
        sha256(bytes)
    }

    pub(super) fn put_blob(&self, bytes: &[u8]) -> Digest {
        self.put(&format!("blobs/{}", sha256(bytes)), bytes)
    }

    pub(super) fn put_manifest(&self, bytes: &[u8]) -> Digest {
        self.put(&format!("manifests/{}", sha256(bytes)), bytes)
    }

    pub(super) fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.held.lock().unwrap().objects.get(path).map(|(_, bytes)| bytes.clone())
    }

    /// Returns how many requests began like this.
    pub(super) fn asked(&self, start: &str) -> usize {
        self.held.lock().unwrap().lines.iter().filter(|line| line.starts_with(start)).count()
    }
}

async fn serve(mut stream: TcpStream, held: Arc<Mutex<Held>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
            .next()
    };
    let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let reply = {
        let mut held = held.lock().unwrap();
        held.lines.push(format!("{method} {target}"));
        answer(&mut held, method, target, &header, body)
    };
    let (status, headers, content) = reply;
    let sent = if method == "HEAD" { &[] } else { content.as_slice() };
    let length = content.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    let _ = stream.write_all(&[text.as_bytes(), sent].concat()).await;
}

fn answer(
    held: &mut Held,
    method: &str,
    target: &str,
    header: &dyn Fn(&str) -> Option<String>,
    body: Vec<u8>,
) -> (u16, String, Vec<u8>) {
    let writes = !matches!(method, "GET" | "HEAD");
    if let Some(login) = &held.login
        && (writes || target == "/v2/")
        && header("authorization").as_deref() != Some(login)
    {
        return (401, "www-authenticate: Basic realm=\"x\"\r\n".to_owned(), Vec::new());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix("/v2/team/web/").unwrap_or_default();
    match method {
        "POST" => {
            held.upload.clear();
            (202, "location: /v2/team/web/blobs/uploads/7?state=a\r\n".to_owned(), Vec::new())
        }
        "PATCH" => {
            let range = header("content-range").unwrap_or_default();
            if range.split('-').next() != Some(held.upload.len().to_string().as_str()) {
                return (416, String::new(), Vec::new());
            }
            held.upload.extend(body);
            (202, "location: /v2/team/web/blobs/uploads/7?state=a\r\n".to_owned(), Vec::new())
        }
        "PUT" if path.starts_with("blobs/uploads/") => {
            held.upload.extend(body);
            let body = std::mem::take(&mut held.upload);
            let wanted = query.split("digest=").nth(1).unwrap_or_default().replace("%3A", ":");
            if !query.contains("state=a") || sha256(&body).to_string() != wanted {
                return (400, String::new(), Vec::new());
            }
            held.objects.insert(format!("blobs/{wanted}"), (String::new(), body));
            (201, "location: /x\r\n".to_owned(), Vec::new())
        }
        "PUT" => {
            let kind = header("content-type").unwrap_or_default();
            let by_digest = format!("manifests/{}", sha256(&body));
            held.objects.insert(by_digest, (kind.clone(), body.clone()));
            held.objects.insert(path.to_owned(), (kind, body));
            (201, "location: /x\r\n".to_owned(), Vec::new())
        }
        _ => match held.objects.get(path) {
            Some((_, bytes)) => (200, String::new(), bytes.clone()),
            None => (404, String::new(), Vec::new()),
        },
    }
}
