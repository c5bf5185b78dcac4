use tempfile::TempDir;

use std::net::{Ipv4Addr, UdpSocket};

use super::*;
use crate::settings::{
    AgentSettings, DiscoverySettings, HearSettings, LogSettings, SubnetSettings, TransferSettings,
};

/// Settings that need no rights: loopback, ports that the kernel chooses, no DHCP, a loader in a folder.
pub(super) fn settings(dir: &TempDir) -> Settings {
    let loaders = dir.path().join("loaders");
    std::fs::create_dir_all(&loaders).unwrap();
    std::fs::write(loaders.join("ipxe-amd64.efi"), b"MZ loader").unwrap();
    let data_dir = dir.path().join("data");
    Settings {
        agent: AgentSettings::default(),
        api: crate::settings::ApiSettings::default(),
        https: None,
        webhooks: crate::webhook::WebhookSettings::default(),
        secrets_key: data_dir.join("secrets.key"),
        transfers: TransferSettings::default(),
        metrics: None,
        late_after: std::time::Duration::from_secs(900),
        hear: HearSettings::default(),
        log: LogSettings::default(),
        trust: crate::settings::TrustSettings::beside(&data_dir.join("store")),
        socket: dir.path().join("run/kiln.sock"),
        store_dir: data_dir.join("store"),
        data_dir,
        inventory: crate::settings::InventorySettings::default(),
        http_port: 0,
        tftp_port: 0,
        tftp: tftp::Config::default(),
        metadata_dir: None,
        discovery: DiscoverySettings::default(),
        secure_boot: false,
        uki_signing: None,
        raspberry_pi: false,
        u_boot_rpi: false,
        loaders_dir: Some(loaders),
        mirror: None,
        bake: crate::bake::BakeSettings::default(),
        subnets: vec![SubnetSettings::without_dhcp(
            Ipv4Addr::new(127, 0, 0, 0),
            8,
            "lo",
            Ipv4Addr::LOCALHOST,
        )],
        subnets6: Vec::new(),
    }
}

/// Returns the sentence that the command line would print.
pub(super) async fn refusal(settings: Settings) -> String {
    let error = start(settings).await.expect_err("it does not start");
    let text = crate::cli::chain(&error);
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let text = refusal(Settings { http_port: port, ..settings(&dir) }).await;
    assert_eq!(
        text,
        format!(
            "http port 127.0.0.1:{port} is in use; \
             find the other program with `ss -lpn`, or set another [http] port"
        )
    );
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let text = refusal(Settings { tftp_port: port, ..settings(&dir) }).await;
    assert!(text.starts_with(&format!("tftp port 127.0.0.1:{port} is in use; ")), "{text}");
    assert!(text.ends_with("set another [tftp] port"), "{text}");
}

#[tokio::test]
async fn an_address_that_this_host_does_not_have_is_told_with_the_command_that_adds_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&dir);
    // TEST-NET-1 of RFC 5737, which no host has.
    settings.subnets[0].network = Ipv4Addr::new(192, 0, 2, 0);
    settings.subnets[0].prefix = 24;
    settings.subnets[0].address = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(
        refusal(settings).await,
        "no interface has the address 192.0.2.1; \
         add it (`ip address add 192.0.2.1/24 dev lo`) or correct [[subnet]] address"
    );
}

#[tokio::test]
async fn data_and_socket_belong_to_one_server_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(settings(&dir)).await.unwrap();
    let data = dir.path().join("data");
    assert_eq!(
        refusal(settings(&dir)).await,
        format!(
            "another `kiln serve` uses {}; stop it, or give this one its own data-dir",
            data.display()
        )
    );
    let other = Settings { data_dir: dir.path().join("other"), ..settings(&dir) };
    let text = refusal(other).await;
    assert!(text.starts_with("another program listens on the socket "), "{text}");
    let socket = first.socket_path().to_owned();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    first.shutdown().await;
    assert!(!socket.exists());
    // What a server leaves behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    start(settings(&dir)).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_folder_without_loaders_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let text = refusal(Settings { loaders_dir: Some(empty.clone()), ..settings(&dir) }).await;
    let begin = format!("no loaders to serve: {} has none of undionly.kpxe, ", empty.display());
    assert!(text.starts_with(&begin), "{text}");
}

/// Asks a path over plain TCP, as Prometheus does.
pub(super) async fn fetch(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: kiln\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_and_health_are_on_a_listener_of_their_own_and_nothing_else_is() {
    let dir = TempDir::new().unwrap();
    let metrics = Some((Ipv4Addr::LOCALHOST, 0).into());
    let running = start(Settings { metrics, ..settings(&dir) }).await.unwrap();
    let address = running.metrics_addr().unwrap();
    let page = fetch(address, "/metrics").await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("text/plain; version=0.0.4"),
        "{page}"
    );
    assert!(page.contains("\nkiln_ready 1\n"), "{page}");
    assert!(fetch(address, "/livez").await.ends_with("ok\n"));
    let ready = fetch(address, "/readyz?verbose").await;
    assert!(ready.contains("[+] store\n") && ready.ends_with("ready\n"), "{ready}");
    assert!(fetch(address, "/api/v1/machines").await.starts_with("HTTP/1.1 404"));

    // A kernel that is gone from the store is what a machine would run into.
    running.shutdown().await;
}
