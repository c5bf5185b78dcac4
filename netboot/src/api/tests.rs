//! The control plane over its socket, as the command line uses it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{
    Artifact, Asker, BootPlan, Decision, Firmware, Loader, NewBoot, Plan, Sighting, UnknownMachines,
};
use kiln_ipxe::BootTicket;
use kiln_types::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;
use crate::bake::BakerConfig;
use crate::boots::tests::open_boot;
use crate::settings::SubnetSettings;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const MACHINES: &str = "/api/v1/machines";

/// Leases of IPv6 that nobody keeps.
struct Nowhere;

impl crate::dhcp::v6::LeaseLog for Nowhere {
    async fn commit(&self, _: &[kiln_inventory::Lease6]) -> Result<(), crate::dhcp::BoxError> {
        Ok(())
    }
}

pub(crate) struct Rig {
    _dir: TempDir,
    pub(crate) socket: PathBuf,
    pub(super) router: Router,
    pub(crate) inventory: Store,
    boots: Boots,
    orders: Orders,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Vec::new(), false).await
    }

    /// One that gives addresses of fd00:7::10 to fd00:7::99 too.
    pub(super) async fn with_ipv6() -> Self {
        Self::with(Self::ipv6(), false).await
    }

    /// One that gives addresses of 10.0.0.100 to 10.0.0.199 as well, and has an image `web`, whose builds fail.
    pub(super) async fn with_everything() -> Self {
        Self::with(Self::ipv6(), true).await
    }

    fn ipv6() -> Vec<(Subnet6Settings, Endpoints)> {
        let network = "fd00:7::".parse().unwrap();
        let address = "fd00:7::1".parse().unwrap();
        let subnet = Subnet6Settings {
            pool: vec!["fd00:7::10".parse().unwrap()..="fd00:7::99".parse().unwrap()],
            dhcp: crate::settings::Dhcp6Mode::Stateful,
            ..Subnet6Settings::new(network, 64, "br0", address)
        };
        vec![(subnet, Endpoints::new(address, 8080))]
    }

    async fn with(endpoints6: Vec<(Subnet6Settings, Endpoints)>, all: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
        let view =
            View::load(inventory.clone(), artifacts, UnknownMachines::Hold, None).await.unwrap();
        let mut subnet =
            SubnetSettings::without_dhcp(Ipv4Addr::new(10, 0, 0, 0), 24, "br0", ADDRESS);
        let mut baking = BakerConfig::idle(dir.path());
        if all {
            subnet.dhcp = crate::settings::DhcpMode::Server;
            subnet.pool = vec![[10, 0, 0, 100].into()..=[10, 0, 0, 199].into()];
            std::fs::write(dir.path().join("web.yml"), "services: []").unwrap();
            baking.settings.dir = Some(dir.path().to_owned());
            baking.settings.program = Some("/bin/false".into());
            baking.settings.policy.build = crate::bake::BuildWhen::Manual;
        }
        let at = Endpoints::new(ADDRESS, 8080);
        let socket = dir.path().join("kiln.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let stop = CancellationToken::new();
        let endpoints = vec![(subnet, at)];
        let (inventory_, view) = (inventory.clone(), Arc::new(view));
        let (baker, _) = Baker::start(baking, view.clone(), stop.clone());
        let (boots, _) = Boots::start(inventory.clone());
        let orders = Orders::start(inventory.clone(), stop.clone()).await.unwrap();
        let agent = AgentSettings::default();
        let (_, journal, _) = crate::dhcp::journal::open(dir.path()).unwrap();
        let lease = kiln_inventory::Lease {
            address: [10, 0, 0, 7].into(),
            mac: "52:54:00:00:00:07".parse().unwrap(),
            expires: i64::MAX / 1000,
            hostname: Some("n7".into()),
        };
        let secrets = Secrets::open(&dir.path().join("secrets.key")).unwrap();
        let secrets = Arc::new(secrets);
        view.keeps(secrets.clone()).await.unwrap();
        let control = Control {
            inventory: inventory_.sealing(secrets.clone()),
            view,
            endpoints,
            endpoints6,
            baker,
            boots: boots.clone(),
            heard: Book::new(dir.path().join("heard")),
            orders: orders.clone(),
            agent,
            leases: Ledger::start(vec![lease], journal).0,
            leases6: crate::dhcp::v6::Ledger::start(Vec::new(), Nowhere).0,
            secrets: secrets.clone(),
            vendors: Vendors::default(),
            hooks: Hooks::new(crate::webhook::WebhookSettings {
                reach: crate::webhook::Reach {
                    allow: vec!["127.0.0.0/8".parse().unwrap()],
                    plain_http: true,
                },
                ..Default::default()
            }),
            gate: Gate::out_of_time(),
            stop: stop.clone(),
        };
        tokio::spawn(deliver_events(courier(&control), stop.clone()));
        let router = router(control);
        let task = tokio::spawn(serve(listener, router.clone(), stop.clone()));
        Self { _dir: dir, socket, router, inventory, boots, orders, stop, task }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let (status, body, _) = self.full(method, path, &[], body).await;
        (status, body)
    }

    pub(super) async fn full(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value, hyper::HeaderMap) {
        self.raw(method, path, headers, body.to_string()).await
    }

    pub(super) async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (u16, Value, hyper::HeaderMap) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let body = Full::new(bytes::Bytes::from(body));
        let mut request = Request::builder().method(method).uri(path).header("host", "kiln");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (parts.status.as_u16(), body, parts.headers)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// Opens the stream of events.
    pub(super) async fn follow(&self, query: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: kiln\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, &Value::Null).await
    }

    /// Boots a machine until its system reports, which has this address, and returns what ties its boot to it.
    pub(super) async fn boot(&self, name: &str, peer: IpAddr) -> BootTicket {
        let machines = self.inventory.machines().await.unwrap();
        let known = machines.into_iter().find(|machine| machine.spec.name == name).unwrap();
        let mac = *known.spec.macs.first().unwrap();
        let kernel =
            Artifact { name: "kernel".to_owned(), digest: Digest::from_bytes([2; 32]), size: 1 };
        let plan = Plan::Boot(BootPlan {
            image: "web".parse().unwrap(),
            version: Digest::from_bytes([1; 32]),
            arch: kiln_types::Arch::X86_64,
            kernel,
            segments: Vec::new(),
            cmdline: String::new(),
        });
        let sighting =
            Sighting { mac, asker: Asker::Ipxe, firmware: Some(Firmware::Bios), uuid: None };
        let decision = Decision {
            machine: Some(known.into()),
            settings: None,
            plan,
            loader: Loader::Ipxe,
            reasons: Vec::new(),
        };
        let ticket = self.boots.script(peer, sighting, decision).await.unwrap();
        let identity = self.boots.identity(peer, ticket.boot, &ticket.machine_key).await.unwrap();
        let reports = serde_json::from_value(json!([{"phase": "init"}])).unwrap();
        let reports = crate::boots::Reports { uptime: None, reports };
        let now = crate::boots::now_ms();
        self.boots.reports(now, peer, ticket.boot, &identity.token, reports).await.unwrap();
        ticket
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

pub(super) fn machine(name: &str, mac: &str, address: Option<&str>) -> Value {
    json!({"name": name, "macs": [mac], "uuid": null, "arch": null, "image": "web",
        "address": address, "cmdline": "", "labels": {}})
}

#[tokio::test]
async fn a_machine_is_added_once_listed_shown_and_removed_once() {
    let rig = Rig::start().await;
    let mac = "52:54:00:00:00:01";
    let n1 = machine("n1", mac, Some("10.0.0.7"));
    let (status, added) = rig.send(Method::POST, MACHINES, &n1).await;
    assert_eq!((status, &added["name"]), (201, &json!("n1")), "{added}");
    for (taken, why) in [
        (machine("n1", "52:54:00:00:00:02", None), "`n1`"),
        (machine("n2", mac, None), mac),
        (machine("n2", "52:54:00:00:00:02", Some("10.0.0.7")), "10.0.0.7"),
    ] {
        let (status, problem) = rig.send(Method::POST, MACHINES, &taken).await;
        assert_eq!(status, 409, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
    }
    for bad in [machine("N 1", "52:54:00:00:00:02", None), json!({"name": "n2"}), json!(null)] {
        let (status, problem) = rig.send(Method::POST, MACHINES, &bad).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].is_string(), "{problem}");
    }
    assert_eq!(rig.get(MACHINES).await, (200, json!([added])));
    for key in ["n1", mac, "52-54-00-00-00-01"] {
        assert_eq!(rig.get(&format!("{MACHINES}/{key}")).await, (200, added.clone()), "{key}");
    }
    let one = format!("{MACHINES}/n1");
    let mut changed = machine("n1", mac, Some("10.0.0.8"));
    changed["state-disk"] = json!("serial:ABC");
    let (status, answer) = rig.send(Method::PUT, &one, &changed).await;
    assert_eq!((status, &answer["state-disk"]), (200, &json!("serial:ABC")), "{answer}");
    assert_eq!(rig.get(&one).await, (200, answer));
    changed["state-disk"] = json!("/dev/sda");
    let (status, problem) = rig.send(Method::PUT, &one, &changed).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("names no disk"), "{problem}");
    let (status, _) =
        rig.send(Method::PUT, &format!("{MACHINES}/n2"), &machine("n2", mac, None)).await;
    assert_eq!(status, 404);
    assert_eq!(rig.send(Method::DELETE, &one, &Value::Null).await, (204, Value::Null));
    let gone = json!({"type": "urn:kiln:problem:not-found", "title": "There is no such thing",
        "status": 404, "detail": "there is no machine `n1`"});
    assert_eq!(rig.send(Method::DELETE, &one, &Value::Null).await, (404, gone.clone()));
    assert_eq!(rig.get(&one).await, (404, gone));
    assert_eq!(rig.get(MACHINES).await, (200, json!([])));
    rig.stop().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_asked_well_is_said_in_one_line() {
    let rig = Rig::start().await;
    for (path, expected) in [
        ("/api/v1/machines/n9", 404),
        ("/api/v1/machines/n9/explain", 404),
        ("/api/v1/boots/1", 404),
        ("/api/v1/boots/x", 404),
        ("/api/v1/boots?limit=x", 400),
        ("/api/v1/machines/52:54:00:00:00:01/explain?firmware=bios2", 400),
        ("/api/v2/machines", 404),
        ("/api/v1/boots?limt=5", 400),
        ("/api/v1/machines/%ff", 400),
        ("/api/v1/machines/n9%0a%1b%5b2J", 404),
    ] {
        let (status, problem) = rig.get(path).await;
        assert_eq!(status, expected, "{path}: {problem}");
        let text = problem["detail"].as_str().unwrap_or_else(|| panic!("{path}: {problem}"));
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let (status, problem) = rig.send(Method::PUT, MACHINES, &Value::Null).await;
    assert_eq!((status, problem["detail"].is_string()), (405, true), "{problem}");
    assert_eq!(rig.send(Method::OPTIONS, MACHINES, &Value::Null).await, (204, Value::Null));
    let (status, document) = rig.get("/api/v1/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    rig.stop().await;
}

#[tokio::test]
async fn a_machine_is_explained_by_what_its_firmware_said_last() {
    let rig = Rig::start().await;
    let mac = "52:54:00:00:00:01".parse().unwrap();
    let explain = format!("{MACHINES}/n1/explain");
    let (status, added) =
        rig.send(Method::POST, MACHINES, &machine("n1", "52:54:00:00:00:01", None)).await;
    assert_eq!(status, 201, "{added}");
    let boot = NewBoot {
        firmware: Some(Firmware::UefiX64Http),
        ..NewBoot::new(serde_json::from_value(added["id"].clone()).unwrap(), "n1", mac, 1)
    };
    open_boot(&rig.inventory, boot).await;
    for (at, asker, firmware) in
        [(1, Asker::Firmware, Firmware::UefiX64Http), (2, Asker::Ipxe, Firmware::UefiX64)]
    {
        let sighting = Sighting { mac, asker, firmware: Some(firmware), uuid: None };
        rig.inventory.record_sighting(&sighting, at).await.unwrap();
    }
    let script = "http://10.0.0.1:8080/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64";
    for (query, first, loader) in [
        ("", "uefi-x64-http", "http://10.0.0.1:8080/loader/ipxe-amd64.efi"),
        ("?firmware=uefi-x64", "uefi-x64", "tftp://10.0.0.1/ipxe/ipxe-amd64.efi"),
    ] {
        let (status, told) = rig.get(&format!("{explain}{query}")).await;
        assert_eq!(status, 200, "{told}");
        assert_eq!(told["steps"][0]["asker"], json!(format!("firmware ({first})")));
        assert_eq!(told["steps"][0]["boot_file"], json!(loader));
        assert_eq!(told["steps"][1]["boot_file"], json!(script));
    }
    // One that the inventory does not know.
    let (status, told) = rig.get(&format!("{MACHINES}/52:54:00:00:00:09/explain")).await;
    assert_eq!((status, &told["machine"]), (200, &Value::Null), "{told}");
    rig.stop().await;
}

#[tokio::test]
async fn only_a_machine_that_is_up_takes_orders_and_only_those_that_the_site_allows() {
    let rig = Rig::start().await;
    let n1 = machine("n1", "52:54:00:00:00:01", None);
    rig.send(Method::POST, MACHINES, &n1).await;
    let orders = "/api/v1/machines/n1/orders";
    let reboot = json!({"kind": "reboot"});
    let (status, body) = rig.send(Method::POST, orders, &reboot).await;
    assert_eq!((status, body["detail"].as_str().unwrap_or("").contains("is not up")), (409, true));

    let ticket = rig.boot("n1", Ipv4Addr::LOCALHOST.into()).await;
    let (status, order) = rig.send(Method::POST, orders, &reboot).await;
    assert_eq!((status, &order["state"]), (201, &json!("queued")));
    assert!(order["asked_by"].as_str().unwrap().starts_with("uid "), "{order}");
    for (ask, expected, words) in [
        (json!({"kind": "dance"}), 400, "unknown variant"),
        (json!({"kind": "reboot", "now": true}), 400, "unknown field"),
        (json!({"kind": "logs", "name": "../x", "lines": 1}), 400, "cannot be the name"),
        (json!({"kind": "run", "program": ["/bin/ls"]}), 403, "[agent]"),
        (json!({"kind": "kexec"}), 409, "it would boot nothing now"),
        (json!({"kind": "kexec", "to": "web:edge"}), 404, "no version `web:edge`"),
        (json!({"kind": "kexec", "to": "0123456789"}), 404, "no version `0123456789`"),
    ] {
        let (status, body) = rig.send(Method::POST, orders, &ask).await;
        let error = body["detail"].as_str().unwrap_or_default();
        assert!(status == expected && error.contains(words), "{ask}: {status} {error}");
    }
    let taken = rig
        .orders
        .poll(known_id(&order), ticket.boot, kiln_inventory::OrderId(0), std::time::Duration::ZERO)
        .await
        .unwrap();
    rig.orders
        .end(ticket.boot, taken[0].id, kiln_inventory::OrderState::Done, "started anew")
        .await
        .unwrap();
    let (status, shown) = rig.get(&format!("/api/v1/orders/{}?wait=9", order["id"])).await;
    assert_eq!(
        (status, &shown["state"], &shown["answer"]),
        (200, &json!("done"), &json!("started anew"))
    );
    let (_, list) = rig.get(orders).await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(rig.get("/api/v1/orders/99").await.0, 404);
    rig.stop().await;
}

fn known_id(order: &Value) -> kiln_inventory::MachineId {
    kiln_inventory::MachineId(order["machine"].as_i64().unwrap())
}
