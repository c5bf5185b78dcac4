use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::config::{Snapshot, Source};
use super::*;
use crate::hash::sha256;
use crate::progress::Silent;

const RELEASE: &[u8] = include_bytes!("testdata/InRelease");
const EXPIRED: &[u8] = include_bytes!("testdata/InRelease.expired");
const INDEX: &[u8] = include_bytes!("testdata/Packages.xz");
const PACKAGE: &[u8] = include_bytes!("testdata/hello.deb");
const RELEASE_PATH: &str = "/debian/dists/trixie/InRelease";
const PACKAGE_PATH: &str = "/debian/pool/main/h/hello/hello_1.0-1_amd64.deb";

/// A mirror on the loopback interface, whose files a test can change, and a list of what was asked for.
struct Mirror {
    url: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
}

impl Mirror {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/debian/", listener.local_addr().unwrap());
        let index = format!(
            "/debian/dists/trixie/main/binary-amd64/by-hash/SHA256/{}",
            sha256(INDEX).hex()
        );
        let files = [
            (RELEASE_PATH.to_owned(), RELEASE.to_vec()),
            (index, INDEX.to_vec()),
            (PACKAGE_PATH.to_owned(), PACKAGE.to_vec()),
        ];
        let files = Arc::new(Mutex::new(BTreeMap::from(files)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (served, log) = (Arc::clone(&files), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let got = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..got]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = served.lock().unwrap().get(&path).cloned();
                let etag = format!("\"{}\"", sha256(body.as_deref().unwrap_or_default()).short());
                let known = request.contains(&format!("if-none-match: {etag}\r\n"));
                let (status, body) = match body {
                    Some(_) if known => ("304 Not Modified", Vec::new()),
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", Vec::new()),
                };
                log.lock().unwrap().push(if known { format!("{path} 304") } else { path });
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: {etag}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body).await;
            }
        });
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("keyring.gpg"), include_bytes!("testdata/keyring.gpg")).unwrap();
        fs::write(dir.path().join("other.gpg"), include_bytes!("testdata/other.gpg")).unwrap();
        Self { url, files, asked, dir }
    }

    fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(path.to_owned(), bytes.into());
    }

    fn config(&self) -> ArchiveConfig {
        let mut config = ArchiveConfig::new(self.dir.path().join("cache"));
        config.mirror = Some(self.url.clone());
        config.keyring = Some(self.dir.path().join("keyring.gpg"));
        config
    }

    /// Goes the whole way to the package's file.
    async fn hello(&self, config: ArchiveConfig) -> Result<PathBuf, DebError> {
        let fetcher = Fetcher::new(&Silent);
        let archive = Archive::open_with(config, &fetcher, self.dir.path()).await?;
        let index = archive.packages(Arch::X86_64).await?;
        let packages = index.resolve(&["hello".to_owned()]).unwrap();
        archive.fetch(packages[0]).await
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn rename(&self, from: &str, to: &str) {
        let mut files = self.files.lock().unwrap();
        let all = std::mem::take(&mut *files);
        *files = all.into_iter().map(|(path, bytes)| (path.replace(from, to), bytes)).collect();
    }

    /// Returns the only file of a folder of the cache.
    fn kept(&self, dir: &str) -> PathBuf {
        let dir = self.dir.path().join("cache/deb").join(dir);
        let files: Vec<_> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    async fn refusal(&self, config: ArchiveConfig) -> String {
        let error = self.hello(config).await.unwrap_err().to_string();
        // What was refused leaves nothing that a later run would take.
        let pool = self.dir.path().join("cache/deb/pool");
        assert_eq!(fs::read_dir(pool).map_or(0, Iterator::count), 0);
        error
    }
}

#[tokio::test]
async fn a_package_comes_down_the_whole_chain_and_stays_in_the_cache() {
    let mirror = Mirror::start().await;
    let path = mirror.hello(mirror.config()).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), PACKAGE);
    let tree = super::super::unpack(&path).unwrap();
    assert_eq!(tree.iter().last().unwrap().0.as_str(), "usr/bin/hello");
    // Three files, and two suites of updates that this mirror does not have.
    assert_eq!(mirror.asked.lock().unwrap().len(), 5);

    mirror.hello(mirror.config()).await.unwrap();
    assert_eq!(
        mirror.asked.lock().unwrap()[5..],
        [
            &format!("{RELEASE_PATH} 304"),
            "/debian/dists/trixie-updates/InRelease",
            "/debian-security/dists/trixie-security/InRelease",
        ]
    );

    // A cache that rotted is not believed.
    fs::write(&path, vec![0; PACKAGE.len()]).unwrap();
    mirror.hello(mirror.config()).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), PACKAGE);
}

#[tokio::test]
async fn security_updates_that_are_not_there_are_told_and_those_of_the_host_are_needed() {
    let mirror = Mirror::start().await;
    let open = || async {
        let fetcher = Fetcher::new(&Silent);
        let config = ArchiveConfig { mirror: None, ..mirror.config() };
        Archive::open_with(config, &fetcher, mirror.dir.path()).await.map(|it| it.warnings())
    };
    let list = mirror.dir.path().join("sources.list");
    let main = format!("deb {} trixie main\n", mirror.url);
    fs::write(&list, &main).unwrap();
    let warnings = open().await.unwrap();
    assert!(warnings[0].starts_with("security updates of trixie are not included"), "{warnings:?}");
    fs::write(&list, format!("{main}deb {} trixie-security main\n", mirror.url)).unwrap();
    let error = open().await.unwrap_err().to_string();
    assert!(error.contains("dists/trixie-security/InRelease answered `404"), "{error}");
    // An archive that says that it is another suite is not one of updates.
    mirror.put("/debian/dists/trixie-security/InRelease", RELEASE);
    let error = open().await.unwrap_err().to_string();
    assert!(
        error.contains("it is of the suite `trixie`, `stable`, not `trixie-security`"),
        "{error}"
    );
}

#[tokio::test]
async fn the_mirror_of_the_host_is_used_when_none_is_named() {
    let mirror = Mirror::start().await;
    let list = format!("deb {} trixie main\n", mirror.url);
    fs::write(mirror.dir.path().join("sources.list"), list).unwrap();
    let config = ArchiveConfig { mirror: None, ..mirror.config() };
    mirror.hello(config.clone()).await.unwrap();
    fs::remove_file(mirror.dir.path().join("sources.list")).unwrap();
    let error = mirror.hello(config).await.unwrap_err().to_string();
    assert!(error.starts_with("no Debian mirror is known"), "{error}");
}

#[tokio::test]
async fn a_tampered_release_is_refused() {
    let mirror = Mirror::start().await;
    let text = str::from_utf8(RELEASE).unwrap();
    mirror.put(RELEASE_PATH, text.replace("184 main", "185 main"));
    let error = mirror.refusal(mirror.config()).await;
    assert!(
        error.contains(&format!("{}dists/trixie/InRelease is not signed by a key in", mirror.url)),
        "{error}"
    );

    mirror.put(RELEASE_PATH, format!("SHA256:\n\n{text}"));
    let error = mirror.refusal(mirror.config()).await;
    assert!(error.contains("does not begin with a signed message"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_in_the_keyring_is_refused() {
    let mirror = Mirror::start().await;
    let other = Some(mirror.dir.path().join("other.gpg"));
    let error = mirror.refusal(ArchiveConfig { keyring: other, ..mirror.config() }).await;
    assert!(error.contains("is not signed by a key in"), "{error}");
    let none = Some(mirror.dir.path().join("none.gpg"));
    let error = mirror.refusal(ArchiveConfig { keyring: none, ..mirror.config() }).await;
    assert!(error.ends_with("is missing; install the package debian-archive-keyring"), "{error}");
}

#[tokio::test]
async fn an_old_release_is_refused_unless_the_host_switched_dates_off() {
    let mirror = Mirror::start().await;
    mirror.put(RELEASE_PATH, EXPIRED);
    let error = mirror.refusal(mirror.config()).await;
    assert!(error.contains("was valid until Thu, 08 Jan 2026 00:00:00 UTC only"), "{error}");
    let text = "Acquire::Check-Valid-Until \"false\";\n";
    fs::write(mirror.dir.path().join("apt.conf"), text).unwrap();
    mirror.hello(mirror.config()).await.unwrap();
}

#[tokio::test]
async fn a_release_of_another_suite_or_without_the_component_is_refused() {
    let mirror = Mirror::start().await;
    mirror.put("/debian/dists/forky/InRelease", RELEASE);
    let forky = ArchiveConfig { suite: "forky".to_owned(), ..mirror.config() };
    let error = mirror.refusal(forky).await;
    assert!(error.contains("it is of the suite `trixie`, `stable`, not `forky`"), "{error}");
    let contrib = ArchiveConfig { components: vec!["contrib".to_owned()], ..mirror.config() };
    let error = mirror.refusal(contrib).await;
    assert!(error.contains("it has no component `contrib` for amd64"), "{error}");
    let sid = ArchiveConfig { suite: "sid".to_owned(), ..mirror.config() };
    let error = mirror.refusal(sid).await;
    assert!(error.contains("dists/sid/InRelease answered `404 Not Found`"), "{error}");
}

#[tokio::test]
async fn a_package_or_an_index_with_other_bytes_is_refused() {
    let mirror = Mirror::start().await;
    let mut bytes = PACKAGE.to_vec();
    bytes[3000] ^= 1;
    mirror.put(PACKAGE_PATH, bytes);
    let error = mirror.refusal(mirror.config()).await;
    assert!(error.contains("hello_1.0-1_amd64.deb has the hash sha256:"), "{error}");

    let mirror = Mirror::start().await;
    let path = mirror.files.lock().unwrap().keys().find(|it| it.contains("by-hash")).cloned();
    let mut bytes = INDEX.to_vec();
    bytes[100] ^= 1;
    mirror.put(&path.unwrap(), bytes);
    let error = mirror.refusal(mirror.config()).await;
    assert!(error.contains("has the hash sha256:"), "{error}");
}

#[tokio::test]
async fn an_index_that_rotted_or_changed_is_fetched_anew() {
    let mirror = Mirror::start().await;
    mirror.hello(mirror.config()).await.unwrap();
    let kept = mirror.kept("release");
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, text.replace("184 main", "185 main")).unwrap();
    let before = mirror.count();
    mirror.hello(mirror.config()).await.unwrap();
    let again = [format!("{RELEASE_PATH} 304"), RELEASE_PATH.to_owned()];
    assert_eq!(mirror.asked.lock().unwrap()[before..before + 2], again);
    assert_eq!(fs::read_to_string(&kept).unwrap(), text);
    // What is new and bad does not take the place of what is kept.
    mirror.put(RELEASE_PATH, RELEASE.to_ascii_lowercase());
    mirror.hello(mirror.config()).await.unwrap_err();
    assert_eq!(fs::read_to_string(&kept).unwrap(), text);
    mirror.put(RELEASE_PATH, EXPIRED);
    let error = mirror.hello(mirror.config()).await.unwrap_err();
    assert!(matches!(error, DebError::Expired { .. }), "{error}");
}

#[tokio::test]
async fn without_the_network_the_cache_serves_or_says_what_it_lacks() {
    let mirror = Mirror::start().await;
    mirror.hello(mirror.config()).await.unwrap();
    let before = mirror.count();
    let offline = || ArchiveConfig { offline: true, ..mirror.config() };
    let path = mirror.hello(offline()).await.unwrap();
    for (kept, what) in [
        (path, "package `hello`".to_owned()),
        (mirror.kept("index"), "the list of packages of trixie/main amd64".to_owned()),
        (
            mirror.kept("release"),
            format!("the index of suite `trixie` ({}dists/trixie/InRelease)", mirror.url),
        ),
    ] {
        fs::remove_file(kept).unwrap();
        let error = mirror.hello(offline()).await.unwrap_err().to_string();
        let rest = "is not in the cache, and `--offline` is given; build once without it";
        assert_eq!(error, format!("{what} {rest}"));
    }
    assert_eq!(mirror.count(), before);
}

#[tokio::test]
async fn without_the_network_an_old_index_is_only_warned_of() {
    let mirror = Mirror::start().await;
    mirror.put(RELEASE_PATH, EXPIRED);
    let apt = mirror.dir.path().join("apt.conf");
    fs::write(&apt, "Acquire { Check-Valid-Until \"false\"; };\n").unwrap();
    mirror.hello(mirror.config()).await.unwrap();
    fs::remove_file(apt).unwrap();
    let error = mirror.hello(mirror.config()).await.unwrap_err();
    assert!(matches!(error, DebError::Expired { .. }), "{error}");
    let fetcher = Fetcher::new(&Silent);
    let config = ArchiveConfig { offline: true, ..mirror.config() };
    let archive = Archive::open_with(config, &fetcher, mirror.dir.path()).await.unwrap();
    let warnings = archive.warnings();
    let text =
        "the index of trixie in the cache was valid until Thu, 08 Jan 2026 00:00:00 UTC only";
    assert!(warnings.iter().any(|it| it.starts_with(text)), "{warnings:?}");
}

#[tokio::test]
async fn a_snapshot_is_asked_for_its_moment_and_is_never_too_old() {
    let mirror = Mirror::start().await;
    mirror.put(RELEASE_PATH, EXPIRED);
    let at = "20260101T000000Z";
    mirror.rename("/debian/", &format!("/debian/archive/debian/{at}/"));
    // As archives of snapshots do, it has no files by hash.
    mirror.rename(&format!("by-hash/SHA256/{}", sha256(INDEX).hex()), "Packages.xz");
    let snapshot = Some(Snapshot { mirror: Some(mirror.url.clone()), at: at.to_owned() });
    let config = ArchiveConfig { snapshot, ..mirror.config() };
    let path = mirror.hello(config.clone()).await.unwrap();
    let asked = mirror.asked.lock().unwrap().clone();
    let security = format!("/debian/archive/debian-security/{at}/dists/trixie-security/InRelease");
    assert!(asked.contains(&security), "{asked:?}");
    // A package whose hash is known needs no index.
    fs::remove_file(path).unwrap();
    let fetcher = Fetcher::new(&Silent);
    let pool = Pool::at(Places::of(&config, mirror.dir.path()).unwrap(), &config, &fetcher);
    let file = PACKAGE_PATH.strip_prefix("/debian/").unwrap();
    let fetched = pool.fetch("hello", file, PACKAGE.len() as u64, sha256(PACKAGE)).await;
    assert_eq!(fs::read(fetched.unwrap()).unwrap(), PACKAGE);
    assert_eq!(mirror.count(), asked.len() + 1);
}

#[tokio::test]
async fn further_sources_are_read_and_have_keys_of_their_own() {
    let mirror = Mirror::start().await;
    let all = mirror.files.lock().unwrap().clone();
    for (path, bytes) in all {
        mirror.put(&path.replace("/debian/", "/own/"), bytes);
    }
    let own = mirror.url.replace("/debian/", "/own");
    let source = |keyring: &str| Source {
        mirror: Some(own.clone()),
        suite: "trixie".to_owned(),
        components: vec!["main".to_owned()],
        keyring: Some(mirror.dir.path().join(keyring)),
    };
    let config = ArchiveConfig { sources: vec![source("other.gpg")], ..mirror.config() };
    let error = mirror.refusal(config).await;
    assert!(error.contains("/own/dists/trixie/InRelease is not signed by a key in"), "{error}");
    // The main mirror has another file of that name, so the one of the further source is taken.
    mirror.put(PACKAGE_PATH, vec![1; PACKAGE.len()]);
    let config = ArchiveConfig { sources: vec![source("keyring.gpg")], ..mirror.config() };
    let path = mirror.hello(config).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), PACKAGE);
}
