//! systemd-networkd, the client of most servers that boot Linux, in a network and a `/run` of its own.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln::lab::{BRIDGE, Lab};
use tokio::time::Instant;

use crate::rig::{Case, Need, Serving};

const PATIENCE: Duration = Duration::from_secs(90);
const PROGRAM: &str = "/usr/lib/systemd/systemd-networkd";

/// What it needs of a host: no udev, which it does not wait for where `/sys` is read-only, and a place for its state.
const SCRIPT: &str = "set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t sysfs -o ro sysfs /sys
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
cp \"$1\" /run/systemd/network/10-port.network
chown -R systemd-network /run/systemd/netif
exec /usr/lib/systemd/systemd-networkd
";
const SETTINGS: &str =
    "[Match]\nName=p0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\nLinkLocalAddressing=ipv6\n";

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Program, Need::File(PROGRAM, "systemd")];
    vec![Case::new(
        "leases::systemd_networkd_has_addresses_of_both_kinds_and_gives_one_back",
        &needs,
        play,
    )]
}

fn play() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("networkd-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    let host = lab.add_neighbour(&[(BRIDGE, "192.0.2.1/32")])?;
    let server = Serving::start(
        folder.path(),
        &format!(
            "network = \"10.77.0.0/24\"\ninterface = \"{BRIDGE}\"\naddress = \"10.77.0.1\"\n\
             pool = [\"10.77.0.100-10.77.0.109\"]\n\
             [[subnet6]]\nnetwork = \"fd77::/64\"\ninterface = \"{BRIDGE}\"\naddress = \"fd77::1\"\n\
             pool = [\"fd77::1:0-fd77::1:ff\"]\nadvertise = true\n"
        ),
    )?;
    server.is_ready()?;
    let [script, settings] = ["script", "port.network"].map(|name| folder.path().join(name));
    fs::write(&script, SCRIPT)?;
    fs::write(&settings, SETTINGS)?;
    let log = fs::File::create(folder.path().join("networkd"))?;
    let child = host
        .command("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--uts", "--", "sh"])
        .args([&script, &settings])
        .env("SYSTEMD_LOG_LEVEL", "debug")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot run systemd-networkd")?;
    let mut networkd = Ended(child);
    let tail = || {
        let text = fs::read_to_string(folder.path().join("networkd")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = host.command("ip").args(["address", "show", "dev", "p0"]).output()?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let has = |text: &str| shown.lines().any(|line| line.trim_start().starts_with(text));
        if has("inet 10.77.0.10") && has("inet6 fd77::1:") {
            break;
        }
        ensure!(Instant::now() < deadline, "it has\n{shown}\nand says\n{}", tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(server.leases()?.len() == 1, "the server has {:?}", server.leases()?);
    let id = networkd.0.id().to_string();
    let killed = std::process::Command::new("kill").arg(&id).status()?;
    ensure!(killed.success(), "it has ended:\n{}", tail());
    networkd.0.wait()?;
    while !server.leases()?.is_empty() {
        ensure!(Instant::now() < deadline, "it is not given back:\n{}", tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A program that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
