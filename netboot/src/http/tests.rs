//! The boot plane over loopback, as a machine and as an intruder would use it.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode};
use kiln_builder::manifest::{KernelEntry, Manifest, SegmentEntry};
use kiln_builder::store::{Store as Artifacts, VersionEntry};
use kiln_inventory::{NewMachine, Outcome, Phase, Store, UnknownMachines};
use kiln_types::{Arch, Digest};
use tempfile::TempDir;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bake::BakerConfig;
use crate::secrets::Secrets;
use crate::settings::{HttpsSettings, TransferSettings};
use crate::tls::{Authority, Tls};

pub(super) const KERNEL: &[u8] = b"MZ kernel";
const MAC: &str = "52:54:00:00:00:01";

pub(super) struct Rig {
    dir: TempDir,
    pub(super) inventory: Store,
    pub(super) kernel: Digest,
    pub(super) version: Digest,
    pub(super) orders: Orders,
    pub(super) large: Digest,
    pub(super) plane: Arc<Plane>,
    pub(super) secrets: Arc<Secrets>,
    server: Server,
    tracker: JoinHandle<()>,
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::start_with(TransferSettings::default()).await
    }

    pub(super) async fn start_with(transfers: TransferSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
        let kernel = artifacts.put(KERNEL).unwrap();
        let segment = artifacts.put(b"cpio").unwrap();
        let large = artifacts.put(&large()).unwrap();
        let manifest = Manifest {
            schema: kiln_builder::manifest::SCHEMA,
            image: "web".to_owned(),
            arch: Arch::X86_64,
            kernel: KernelEntry {
                digest: kernel,
                size: KERNEL.len() as u64,
                release: "6.12".to_owned(),
                efi_stub: true,
            },
            segments: [("init", segment, 4), ("large", large, LARGE)]
                .map(|(component, digest, size)| SegmentEntry {
                    component: component.to_owned(),
                    digest,
                    size: size as u64,
                    unpacked: size as u64,
                    compression: kiln_builder::manifest::SegmentCompression::Zstd,
                })
                .to_vec(),
            cmdline: "console=ttyS0".to_owned(),
            min_ram: 96 << 20,
            packages: Vec::new(),
            sources: Vec::new(),
            sbom: None,
        };
        let digest = artifacts.put(&manifest.to_canonical_json().unwrap()).unwrap();
        let version = VersionEntry::new(digest, 0, 13);
        artifacts.publish(&"web".parse().unwrap(), Arch::X86_64, version).unwrap();
        let inventory = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        inventory
            .add_machine(&NewMachine {
                image: Some("web".parse().unwrap()),
                cmdline: "quiet".to_owned(),
                ..NewMachine::new("n1", [MAC.parse().unwrap()])
            })
            .await
            .unwrap();
        let view = View::load(inventory.clone(), artifacts, UnknownMachines::Ignore, None).await;
        let (boots, tracker) = Boots::start(inventory.clone());
        std::fs::write(dir.path().join("ipxe-amd64.efi"), b"MZ loader").unwrap();
        let new = [&b"MZ"[..], &kiln_ipxe::INITRD_BY_KERNEL].concat();
        std::fs::write(dir.path().join("ipxe-arm64.efi"), new).unwrap();
        let loaders = Loaders::read(dir.path()).unwrap();
        let view = Arc::new(view.unwrap());
        let secrets = Arc::new(Secrets::open(&dir.path().join("secrets.key")).unwrap());
        view.keeps(secrets.clone()).await.unwrap();
        let (stop, config) = (CancellationToken::new(), BakerConfig::idle(dir.path()));
        let (baker, _) = Baker::start(config, view.clone(), stop.clone());
        let orders = Orders::start(inventory.clone(), stop).await.unwrap();
        let transfers = Transfers::new(&transfers);
        let templates = Some(dir.path().join("metadata"));
        let orders_too = orders.clone();
        let plane = Arc::new(Plane {
            view,
            boots,
            loaders,
            baker,
            orders: orders_too,
            transfers,
            templates,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(listener, plane.clone(), None).unwrap();
        let version = digest;
        Self { dir, inventory, kernel, version, orders, large, plane, secrets, server, tracker }
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let stream = TcpStream::connect(self.server.local_addr()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "kiln");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Full::new(bytes::Bytes::from(body.to_owned()));
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        drop(sender);
        let _ = connection.await;
        Response::from_parts(parts, body)
    }

    /// Fetches a path from another address of this host.
    pub(super) async fn get_from(&self, from: [u8; 4], path: &str) -> StatusCode {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(self.server.local_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    /// Lets DHCP give the machine the address that the requests of this test come from.
    pub(super) fn gives_the_address(&self) {
        let firmware = Some(kiln_inventory::Firmware::UefiX64);
        let asker = kiln_inventory::Asker::Firmware;
        let sighting =
            kiln_inventory::Sighting { mac: MAC.parse().unwrap(), asker, firmware, uuid: None };
        let decision = kiln_inventory::decide(&self.plane.view.snapshot(), &sighting);
        let address = Some(IpAddr::from([127, 0, 0, 1]));
        self.plane.boots.seen(&sighting, Some(&decision), true, address);
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Starts HTTPS beside it, and returns the authority that signs for it.
    pub(super) async fn encrypted(&self) -> (Server, Authority) {
        let keys = kiln_builder::trust::KeyDir::new(self.dir.path().join("keys"));
        let settings = HttpsSettings {
            port: 0,
            urls: None,
            own: None,
            client_certificates: None,
            names: Vec::new(),
        };
        let tls = Tls::new(&settings, &keys, vec![IpAddr::from([127, 0, 0, 1])]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = self.address().port();
        let server =
            Server::start_encrypted(listener, self.plane.clone(), Arc::new(tls), port).unwrap();
        (server, Authority::open(&keys).unwrap())
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Stops everything, so that all that happened is written.
    pub(super) async fn stop(self) -> (Store, TempDir) {
        self.server.shutdown().await;
        drop(self.plane);
        self.tracker.await.unwrap();
        (self.inventory, self.dir)
    }
}

/// How long the large segment is: some parts of a file and a bit.
pub(super) const LARGE: usize = (3 << 20) + 17;

/// Bytes of which no part is like another.
pub(super) fn large() -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(LARGE).collect()
}

/// Sends bytes as they are and returns all that comes back.
pub(super) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // Whoever is refused may be cut off before he has said all.
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) type Answer = Response<bytes::Bytes>;

fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn head_says_what_get_sends_and_a_range_is_a_part_of_it() {
    let rig = Rig::start().await;
    let path = format!("/blob/{}/vmlinuz", rig.kernel.hex());
    let get = rig.get(&path).await;
    assert_eq!((get.status(), get.body().as_ref()), (StatusCode::OK, KERNEL));
    let head = rig.send("HEAD", &path, &[], "").await;
    assert!(head.body().is_empty());
    for name in ["content-length", "etag", "content-type", "accept-ranges"] {
        assert_eq!(field(&head, name), field(&get, name), "{name}");
        assert!(!field(&head, name).is_empty(), "{name}");
    }
    let part = rig.send("GET", &path, &[("range", "bytes=3-5")], "").await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!((part.body().as_ref(), field(&part, "content-range")), (&b"ker"[..], "bytes 3-5/9"));
    let beyond = rig.send("GET", &path, &[("range", "bytes=9-")], "").await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let tag = field(&get, "etag");
    let weak = format!("\"x\", W/{tag}");
    for condition in [tag, "*", weak.as_str()] {
        let cached = rig.send("GET", &path, &[("if-none-match", condition)], "").await;
        assert_eq!(cached.status(), StatusCode::NOT_MODIFIED, "{condition}");
    }
    let weak = format!("W/{tag}");
    for (name, condition, expected) in [
        ("if-match", tag, StatusCode::PARTIAL_CONTENT),
        ("if-match", weak.as_str(), StatusCode::PRECONDITION_FAILED),
        ("if-range", tag, StatusCode::PARTIAL_CONTENT),
        ("if-range", weak.as_str(), StatusCode::OK),
        ("if-range", "Sat, 29 Oct 1994 19:43:31 GMT", StatusCode::OK),
        ("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT", StatusCode::PARTIAL_CONTENT),
    ] {
        let fields = [(name, condition), ("range", "bytes=1-")];
        let answer = rig.send("GET", &path, &fields, "").await;
        assert_eq!(answer.status(), expected, "{name}: {condition}");
    }
    // A range is for GET alone.
    let head = rig.send("HEAD", &path, &[("range", "bytes=3-5")], "").await;
    assert_eq!((head.status(), field(&head, "content-length")), (StatusCode::OK, "9"));
    let other = rig.send("GET", &path, &[("if-match", "\"x\""), ("range", "bytes=1-")], "").await;
    assert_eq!(other.status(), StatusCode::PRECONDITION_FAILED);
    rig.stop().await;
}

#[tokio::test]
async fn firmware_gets_programs_by_their_type_and_nothing_that_is_not_served() {
    let rig = Rig::start().await;
    let loader = rig.send("HEAD", "/loader/ipxe-amd64.efi", &[], "").await;
    assert_eq!(
        (field(&loader, "content-type"), field(&loader, "content-length")),
        ("application/efi", "9")
    );
    let unknown = format!("/blob/{}/vmlinuz", "0".repeat(64));
    for path in
        ["/autoexec.ipxe", "/loader/../inventory.db", "/blob/../index.json/x", &unknown, "/"]
    {
        assert_eq!(rig.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let wrong = rig.send("PUT", "/loader/ipxe-amd64.efi", &[], "").await;
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    rig.stop().await;
}

#[tokio::test]
async fn a_boot_goes_from_its_script_to_healthy_and_its_timeline_says_so() {
    let rig = Rig::start().await;
    let script = rig.get("/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64").await;
    let script = String::from_utf8(script.body().to_vec()).unwrap();
    let url = |part: &str| {
        let line = script.split_whitespace().find(|word| word.contains(part));
        let url = line.unwrap_or_else(|| panic!("{part} in {script}"));
        url[url.find(part).unwrap()..].to_owned()
    };
    assert_eq!(rig.get(&url("/blob/")).await.body().as_ref(), KERNEL);
    let machine = url("/machine/");
    let forged = machine.replace(".cpio", "0.cpio");
    assert_eq!(rig.get(&forged).await.status(), StatusCode::FORBIDDEN);
    let segment = rig.get(&machine).await;
    let text = String::from_utf8_lossy(segment.body()).into_owned();
    let json = &text[text.find('{').unwrap()..=text.find('}').unwrap()];
    let told: serde_json::Value = serde_json::from_str(json).unwrap();
    let (boot, token) = (told["boot"].as_i64().unwrap(), told["token"].as_str().unwrap());
    let home = format!("/phone-home/{boot}");
    let bearer = format!("Bearer {token}");
    let report =
        r#"[{"phase":"init","millis":900},{"phase":"healthy","detail":"1 service","millis":2000}]"#;
    for (fields, expected) in [
        (&[][..], StatusCode::FORBIDDEN),
        (&[("authorization", "Bearer 00")], StatusCode::FORBIDDEN),
        (&[("authorization", bearer.as_str())], StatusCode::NO_CONTENT),
    ] {
        assert_eq!(rig.send("POST", &home, fields, report).await.status(), expected);
    }
    // The system is up: nobody needs its segment any more.
    assert_eq!(rig.get(&machine).await.status(), StatusCode::FORBIDDEN);
    let (inventory, _dir) = rig.stop().await;
    let boots = inventory.boots(10).await.unwrap();
    assert_eq!(boots.len(), 1);
    assert_eq!(boots[0].outcome, Outcome::Healthy);
    let (_, events) = inventory.boot(boots[0].id).await.unwrap().unwrap();
    let (refused, events): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event.phase == Phase::Warning);
    let phases: Vec<Phase> = events.iter().map(|event| event.phase).collect();
    assert_eq!(phases, [Phase::Script, Phase::Kernel, Phase::Segment, Phase::Init, Phase::Healthy]);
    assert!(refused.iter().all(|event| event.detail.starts_with("refused 127.0.0.1")));
    assert_eq!(refused.len(), 3, "the forged key, the wrong token, the key afterwards");
    assert_eq!(events[1].bytes, Some(KERNEL.len() as u64));
}

#[tokio::test]
async fn a_loader_that_gives_up_ends_its_boot_and_nobody_else_does() {
    let rig = Rig::start().await;
    let script = "/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64";
    rig.get(script).await;
    let forged = "/failed/1?what=kernel&error=2c0d6039";
    assert_eq!(rig.get_from([127, 0, 0, 2], forged).await, StatusCode::NO_CONTENT);
    for path in ["/failed/7?what=kernel", "/failed/x", "/failed/1x?what="] {
        assert_eq!(rig.get(path).await.status(), StatusCode::NO_CONTENT, "{path}");
    }
    // The first word ends the boot; the second finds none under way.
    for what in ["in%0ait%1b[2J", "kernel"] {
        let path = format!("/failed/1?what={what}&error=2C0d6039");
        let answer = rig.get(&path).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(field(&answer, "connection"), "close");
    }
    rig.get(script).await;
    let long = format!("/failed/2?what={}&error={}", "x".repeat(9000), "0".repeat(99));
    assert_eq!(rig.get(&long).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        rig.send("PUT", forged, &[], "").await.status(),
        StatusCode::METHOD_NOT_ALLOWED,
        "whatever the boot"
    );
    let (inventory, _dir) = rig.stop().await;
    let details = [
        "the loader cannot fetch segment in0ait1b2J: error 2C0d6039 (https://ipxe.org/2C0d6039)"
            .to_owned(),
        format!("the loader cannot fetch segment {}", "x".repeat(64)),
    ];
    for (number, detail) in (1..).zip(details) {
        let id = kiln_inventory::BootId(number);
        let (boot, events) = inventory.boot(id).await.unwrap().unwrap();
        assert_eq!(boot.outcome, Outcome::Failed);
        let told: Vec<_> = events.iter().map(|e| (e.phase, e.detail.as_str())).collect();
        assert_eq!(told, [(Phase::Script, "web"), (Phase::Failed, detail.as_str())]);
    }
}

#[tokio::test]
async fn a_report_that_is_too_long_or_no_report_is_refused() {
    let rig = Rig::start().await;
    let bearer = [("authorization", "Bearer 00")];
    let long = "x".repeat(70 << 10);
    let answer = rig.send("POST", "/phone-home/1", &bearer, &long).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let answer = rig.send("POST", "/phone-home/1", &bearer, "{}").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let answer = rig.send("POST", "/phone-home/1", &bearer, "[]").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    rig.stop().await;
}

#[tokio::test]
async fn a_machine_tells_what_it_is_made_of_with_its_token_only_and_within_bounds() {
    let rig = Rig::start().await;
    let script = rig.get("/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64").await;
    let script = String::from_utf8(script.body().to_vec()).unwrap();
    let machine = script.split_whitespace().find(|word| word.contains("/machine/")).unwrap();
    let segment = rig.get(&machine[machine.find("/machine/").unwrap()..]).await;
    let text = String::from_utf8_lossy(segment.body()).into_owned();
    let json = &text[text.find('{').unwrap()..=text.find('}').unwrap()];
    let told: serde_json::Value = serde_json::from_str(json).unwrap();
    let (boot, token) = (told["boot"].as_i64().unwrap(), told["token"].as_str().unwrap());
    let bearer = format!("Bearer {token}");
    let own = &[("authorization", bearer.as_str())][..];
    let (facts, log) = (format!("/agent/{boot}/facts"), format!("/agent/{boot}/kernel-log"));
    let good = r#"{"system":{"vendor":"ACME\u0007"},"later":[1]}"#;
    let long = "x".repeat(300 << 10);
    let deep = "[".repeat(1000);
    for (path, fields, body, expected) in [
        (&facts, &[][..], good, StatusCode::FORBIDDEN),
        (&facts, &[("authorization", "Bearer 00")], good, StatusCode::FORBIDDEN),
        (&facts, own, &long, StatusCode::PAYLOAD_TOO_LARGE),
        (&facts, own, &deep, StatusCode::BAD_REQUEST),
        (&facts, own, good, StatusCode::NO_CONTENT),
        (&log, &[("authorization", "Bearer 00")], "x", StatusCode::FORBIDDEN),
        (&log, own, &long, StatusCode::PAYLOAD_TOO_LARGE),
        (&log, own, "[ 1.0] panic\u{1b}c\n", StatusCode::NO_CONTENT),
    ] {
        let answer = rig.send("POST", path, fields, body).await;
        assert_eq!(answer.status(), expected, "{path} {fields:?}");
    }
    assert_eq!(rig.get(&facts).await.status(), StatusCode::NOT_FOUND);
    let (inventory, _dir) = rig.stop().await;
    let (boot, _) = inventory.boot(kiln_inventory::BootId(boot)).await.unwrap().unwrap();
    let kept = inventory.facts(boot.machine).await.unwrap().unwrap();
    assert!(kept.facts.contains(r#""vendor":"ACME""#), "{}", kept.facts);
    assert!(!kept.facts.contains("later"), "{}", kept.facts);
    let log = inventory.kernel_log(boot.id).await.unwrap();
    assert_eq!(log.as_deref(), Some("[ 1.0] panicc\n"));
}
