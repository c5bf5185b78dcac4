//! What a machine tells its server where the site encrypts: to a server of the site by TLS, and to no other at all.
//!
//! The machines are booted by qemu itself; the server is this program, with the certificates of a real one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln::settings::HttpsSettings;
use kiln::tls::{Authority, Tls};
use kiln_builder::cpio;
use kiln_builder::tree::{Node, Tree, TreePath};
use kiln_builder::trust::KeyDir;
use kiln_types::Arch;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::start::build;
use crate::rig::{Case, Direct, Need, work_folder};

pub(super) fn cases() -> Vec<Case> {
    let kinds = [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)];
    let kinds = kinds.into_iter().filter_map(|(arch, firmware)| {
        let kind = MachineKind::new(arch, firmware).ok()?;
        let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
        let name = format!("agent::{arch}_reports_go_encrypted_to_the_sites_server_and_no_other");
        Some(Case::new(name, &needs, move || encrypted(arch)))
    });
    kinds.collect()
}

const SPEC: &str = "
kernel:
  deb: {x86_64: linux-image-cloud-amd64, arm64: linux-image-cloud-arm64}
  cmdline: {x86_64: console=ttyS0, arm64: console=ttyAMA0}
init: [kiln]
services:
  - {name: idle, deb: [busybox-static], command: [/usr/bin/busybox, sleep, '1000']}
";
/// How a machine in qemu's own network sees this computer.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));

fn encrypted(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("agent-").tempdir_in(work_folder())?;
    let out = build(folder.path(), "agent", SPEC, arch, &[])?;
    let initrd = fs::read(out.join("initrd.img"))?;
    let [ours, others] = ["ours", "others"].map(|name| KeyDir::new(folder.path().join(name)));
    let trusted = Authority::open(&ours)?;
    let runtime = Runtime::new()?;

    // Its clock is decades ahead: what counts is the server's, which came with the boot.
    let server = Server::start(&runtime, &ours)?;
    boots_with(&out, &initrd, &server, &trusted)?;
    let wrong_clock: Vec<_> = ["-rtc", "base=2060-01-01"].map(str::to_owned).into();
    let mut machine = Direct::start(arch, &out, 512, "", None, &wrong_clock)?;
    machine.wait_for(&format!("kiln-init: the server is {HOST}:{}, encrypted", server.port))?;
    let mut heard = String::new();
    for wanted in ["\"healthy\"", "POST /agent/7/facts", "GET /agent/7/orders"] {
        while !heard.contains(wanted) {
            let next = server.said.recv_timeout(Duration::from_secs(180));
            heard += &next.with_context(|| {
                format!("no {wanted} in:\n{heard}\n{}", machine.text().unwrap_or_default())
            })?;
        }
    }
    ensure!(heard.contains(&format!("Bearer {}", token())), "nothing is proven:\n{heard}");
    // The site's own server may be in other hands: what it lies about is found out, and the machine runs on.
    for (order, why) in [
        (1, "manifest is not what its digest says"),
        (2, "the version is not signed by a key that this machine knows"),
        (3, "cannot fetch manifest: the server sends 99999999999 bytes where 5 are wanted"),
    ] {
        machine.wait_for(&format!("kiln-init: order {order}: {why}"))?;
    }
    drop(machine);
    ensure!(server.plain.load(Ordering::Relaxed) == 0, "the port without encryption was used");

    // The same machine, and a server of another site in the place of its own.
    let server = Server::start(&runtime, &others)?;
    boots_with(&out, &initrd, &server, &trusted)?;
    let mut machine = Direct::start(arch, &out, 512, "", None, &[])?;
    machine.wait_for(&format!(
        "kiln-init: the server {HOST}:{} is not talked to and gets nothing: its certificate is not of this site's authority",
        server.port
    ))?;
    machine.wait_for("kiln-init: healthy")?;
    drop(machine);
    ensure!(server.said.try_recv().is_err(), "a server of another site was told something");
    ensure!(server.plain.load(Ordering::Relaxed) == 0, "the port without encryption was used");
    Ok(())
}

fn token() -> String {
    "ab".repeat(32)
}

/// Puts what a server tells this machine in front of the initrd.
fn boots_with(
    out: &Path,
    initrd: &[u8],
    server: &Server,
    authority: &Authority,
) -> anyhow::Result<()> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let hex: String = authority.der().iter().map(|byte| format!("{byte:02x}")).collect();
    let told = json!({
        "server": format!("http://{HOST}:{}", server.plain_port), "boot": 7, "token": token(),
        "keys": ["ab".repeat(32)],
        "secure": {"server": format!("https://{HOST}:{}", server.port), "authority": hex, "time": time},
    });
    let mut tree = Tree::new();
    let file = Node::file(0o600, serde_json::to_vec(&told)?);
    tree.insert(TreePath::new("etc/kiln/machine.json")?, file);
    let mut archive = Vec::new();
    cpio::write(&tree, 0, &mut archive)?;
    archive.extend_from_slice(initrd);
    fs::write(out.join("initrd.img"), archive)?;
    Ok(())
}

/// Says what it is asked by TLS, and counts who comes without.
struct Server {
    port: u16,
    plain_port: u16,
    said: Receiver<String>,
    plain: Arc<AtomicUsize>,
}

impl Server {
    fn start(runtime: &Runtime, keys: &KeyDir) -> anyhow::Result<Self> {
        let settings = HttpsSettings {
            port: 0,
            urls: None,
            own: None,
            client_certificates: None,
            names: Vec::new(),
        };
        let tls = Arc::new(Tls::new(&settings, keys, vec![HOST])?);
        let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let (encrypted, plain) = (listen()?, listen()?);
        let (port, plain_port) = (encrypted.local_addr()?.port(), plain.local_addr()?.port());
        let (say, said) = channel();
        runtime.spawn(async move {
            while let Ok((stream, _)) = encrypted.accept().await {
                let (tls, say) = (Arc::clone(&tls), say.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, &say).await;
                    }
                });
            }
        });
        let counted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&counted);
        runtime.spawn(async move {
            while plain.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { port, plain_port, said, plain: counted })
    }
}

/// SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Returns the answer to a request: orders to start versions, and other bytes than those of the versions.
fn reply(request: &str) -> String {
    let lies = |length: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    if request.starts_with("GET /agent/7/orders?after=0&") {
        let wrong = "0".repeat(64);
        let order = |id: u32, version: &str, boot: u32| {
            json!({"id": id, "kind": "kexec", "boot": boot, "version": format!("sha256:{version}"),
                "manifest_size": 5, "segment": "/machine/8/x.cpio", "cmdline": ""})
        };
        let orders =
            json!([order(1, &wrong, 8), order(2, HELLO, 8), order(3, HELLO, 9)]).to_string();
        return lies(&orders.len().to_string(), &orders);
    }
    match request.split_whitespace().nth(1) {
        // A length that no machine has room for.
        Some(path) if path.starts_with("/blob/") && path.ends_with("boot=9") => {
            lies("99999999999", "hello")
        }
        Some(path) if path.starts_with("/blob/") => lies("5", "hello"),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
    }
}

/// Reads a request with its body, hands it on, and answers it.
async fn answer(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    say: &Sender<String>,
) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if length.and_then(|length| length.parse().ok()).unwrap_or(0) <= body.len() {
            let _ = say.send(text.into_owned());
            break;
        }
    }
    let answer = reply(&String::from_utf8_lossy(&request));
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
