//! A server that starts while its database is away, with a PostgreSQL of Debian's package.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_inventory::{Database, Lease, NewMachine, Store};
use kiln_types::Mac;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::tests::{fetch, refusal, settings};
use super::*;

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL that goes away with the pipe to it. It is reached by way of `link`, so that it can seem to be away.
struct Postgres {
    folder: PathBuf,
    link: PathBuf,
    // Its standard input is the pipe.
    _process: Child,
}

impl Postgres {
    fn start(dir: &TempDir) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/postgres.sh");
        let mut child = Command::new(&script);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with('/'), "{} failed, see above", script.display());
        let (folder, link) = (PathBuf::from(line.trim()), dir.path().join("db"));
        Self { folder, link, _process: child }
    }

    fn database(&self) -> Database {
        let link = self.link.display();
        format!("postgres:///postgres?host={link}&user=kiln").parse().unwrap()
    }

    fn comes(&self) {
        symlink(&self.folder, &self.link).unwrap();
    }

    fn goes(&self) {
        std::fs::remove_file(&self.link).unwrap();
    }
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Adds a group by the control socket, and returns the answer with its head.
async fn add_group(socket: &Path, name: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let body = format!("{{\"name\":\"{name}\",\"selector\":\"*\"}}");
    let head = format!(
        "POST /api/v1/groups HTTP/1.1\r\nHost: kiln\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(&mut stream, &(head + &body)).await
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Returns the numbers in the file that boots may have. They have gaps where the server reserved others meanwhile.
fn spare_numbers(kept: &Path) -> Vec<i64> {
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    serde_json::from_value(kept["spare"].clone()).unwrap()
}

#[tokio::test]
async fn a_server_starts_without_its_database_with_what_it_knew_and_goes_on_when_it_is_back() {
    let dir = TempDir::new().unwrap();
    let postgres = Postgres::start(&dir);
    let mut settings = settings(&dir);
    settings.metrics = Some((std::net::Ipv4Addr::LOCALHOST, 0).into());
    settings.inventory.database = Some(postgres.database());
    let kept = settings.data_dir.join("last-known.json");
    let script = "/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64";

    let text = refusal(settings.clone()).await;
    assert!(text.contains("is away, and this server has never reached it, so that"), "{text}");
    assert!(text.contains("start the server of the database first"), "{text}");
    assert!(text.contains("it cannot be reached"), "{text}");

    postgres.comes();
    let store = Store::connect(&postgres.database()).await.unwrap();
    let lease = Lease {
        address: [127, 0, 0, 9].into(),
        mac: MAC,
        expires: i64::from(i32::MAX),
        hostname: None,
    };
    store.commit_leases(std::slice::from_ref(&lease)).await.unwrap();
    let running = start(settings.clone()).await.unwrap();
    // Its firmware is of another kind than it, so that each of its boots is refused at once.
    let machine = NewMachine {
        arch: Some(kiln_types::Arch::Arm64),
        image: Some("web".parse().unwrap()),
        ..NewMachine::new("node-1", [MAC])
    };
    store.add_machine(&machine).await.unwrap();
    store.close().await;
    until("what another server adds is not kept", async || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("node-1"))
    })
    .await;
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    running.shutdown().await;
    let spare = spare_numbers(&kept);
    assert_eq!(spare.len(), 1024);

    postgres.goes();
    let running = start(settings.clone()).await.unwrap();
    let answer = fetch(running.http_addr().unwrap(), script).await;
    assert!(answer.contains("node-1"), "{answer}");
    assert_eq!(running.leases(), [lease]);
    let health =
        async |running: &Running| fetch(running.metrics_addr().unwrap(), "/readyz?verbose").await;
    let ill = health(&running).await;
    assert!(ill.starts_with("HTTP/1.1 503"), "{ill}");
    assert!(ill.contains("[-] store: ") && ill.contains("cannot be reached; see whether"), "{ill}");
    let refused = add_group(running.socket_path(), "web").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: "), "{refused}");
    assert!(refused.contains("it cannot be reached; see whether its server runs"), "{refused}");
    // Twice in a row, without a word with the database in between.
    running.shutdown().await;
    let mut running = start(settings.clone()).await.unwrap();
    let answer = fetch(running.http_addr().unwrap(), script).await;
    assert!(answer.contains("node-1"), "{answer}");

    postgres.comes();
    until("the database is not used", async || health(&running).await.contains("[+] store\n"))
        .await;
    let added = add_group(running.socket_path(), "web").await;
    assert!(added.starts_with("HTTP/1.1 201"), "{added}");
    // What began while it was away is written now, under a number that no other start of the server had.
    let store = Store::connect(&postgres.database()).await.unwrap();
    until("the boot is not written", async || !store.boots(2).await.unwrap().is_empty()).await;
    let boots = store.boots(2).await.unwrap();
    store.close().await;
    assert_eq!((boots.len(), boots[0].machine_name.as_str()), (1, "node-1"));
    // The first start had a quarter of 1024 numbers, the second a quarter of the rest.
    assert!(spare[256..448].contains(&boots[0].id.0), "{spare:?} {:?}", boots[0].id);
    until("what is added now is not kept", async || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("\"web\""))
    })
    .await;
    let ended = tokio::time::timeout(Duration::from_millis(1), running.failed()).await;
    assert!(ended.is_err(), "{ended:?}");
    running.shutdown().await;

    let other = Settings {
        inventory: crate::settings::InventorySettings {
            database: Some("postgres:///other?host=/nonexistent&user=kiln".parse().unwrap()),
            ..settings.inventory.clone()
        },
        ..settings
    };
    let text = refusal(other).await;
    assert!(text.contains("what this server last knew is of postgres://kiln@"), "{text}");
}
