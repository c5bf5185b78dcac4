//! DHCP clients that people run, with the program itself as their server.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kiln::lab::{BRIDGE, Lab, Neighbour};
use kiln_inventory::Lease;
use tokio::time::Instant;

use crate::rig::{Case, Need, Serving};

const PATIENCE: Duration = Duration::from_secs(90);
/// What every client runs when something happens: it writes it down and takes the address. The first address that
/// dhclient gets is refused where a file says so.
const SCRIPT: &str = r#"#!/bin/sh
what=${reason:-$1} address=${new_ip_address:-$ip} dev=$interface
echo "$what $address ntp=${new_ntp_servers:-$ntpsrv} search=${new_domain_search:-$search}" >>DIR/said
[ "$what" != BOUND ] || [ ! -e DIR/refuse ] || { rm DIR/refuse; exit 1; }
case $what in bound | renew | BOUND | RENEW | REBOOT) ip address replace "$address/24" dev "$dev" ;; esac
exit 0
"#;

pub(super) fn cases() -> Vec<Case> {
    let needs = [
        Need::Root,
        Need::Program,
        Need::Tool("udhcpc", "udhcpc"),
        Need::Tool("dhclient", "isc-dhcp-client"),
        Need::Tool("dhcpcd", "dhcpcd-base"),
    ];
    let name = "leases::udhcpc_dhclient_and_dhcpcd_get_renew_decline_and_release_addresses";
    vec![Case::new(name, &needs, play)]
}

fn play() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("clients-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    // It has an address of the pool, and tells nobody until it is asked.
    let squatter = lab.add_neighbour(&[(BRIDGE, "10.77.0.100/24")])?;
    let clients: Vec<Client> = ["udhcpc", "dhclient", "dhcpcd"]
        .into_iter()
        .map(|name| Client::new(&mut lab, folder.path(), name))
        .collect::<anyhow::Result<_>>()?;
    let server = Serving::start(
        folder.path(),
        &format!(
            "network = \"10.77.0.0/24\"\ninterface = \"{BRIDGE}\"\naddress = \"10.77.0.1\"\n\
             pool = [\"10.77.0.100-10.77.0.109\"]\nntp = [\"10.77.0.9\"]\nsearch = [\"lab.example\"]\n"
        ),
    )?;
    server.is_ready()?;
    let [udhcpc, dhclient, dhcpcd] = clients.as_slice() else { bail!("three clients") };
    let played = with_udhcpc(udhcpc, &server)
        .and_then(|()| with_dhclient(dhclient, &server))
        .and_then(|()| with_dhcpcd(dhcpcd, &server));
    drop(squatter);
    played.with_context(|| format!("the server says: {}", server.log().unwrap_or_default()))
}

/// Asks for an address that someone has, gets another one, renews it and gives it back.
fn with_udhcpc(client: &Client, server: &Serving) -> anyhow::Result<()> {
    let script = client.script().display().to_string();
    let arguments = ["-f", "-i", "p0", "-O", "search", "-O", "ntpsrv", "-s", &script];
    let running = client.run("udhcpc", &[&arguments[..], &["-r", "10.77.0.100"]].concat())?;
    let address = client.address("bound")?;
    ensure!(address != Ipv4Addr::new(10, 77, 0, 100), "it was given an address in use");
    ensure!(server.log()?.contains("address is in use"), "the server did not see it");
    ensure!(client.said()?.contains("ntp=10.77.0.9 search=lab.example"), "{}", client.said()?);
    let first = held(server, address)?.context("there is no lease")?;
    let deadline = Instant::now() + PATIENCE;
    while held(server, address)?.is_none_or(|lease| lease.expires <= first.expires) {
        ensure!(Instant::now() < deadline, "it is not renewed: {}", client.said()?);
        running.signal("USR1")?;
        std::thread::sleep(Duration::from_millis(500));
    }
    running.signal("USR2")?;
    given_back(server, address)
}

/// Refuses the first address, takes the next, comes back to it as after a reboot, and gives it back.
fn with_dhclient(client: &Client, server: &Serving) -> anyhow::Result<()> {
    let script = client.script().display().to_string();
    let [lease, pid] = ["lease", "pid"].map(|name| client.folder.join(name).display().to_string());
    let common = ["-4", "-sf", &script, "-lf", &lease, "-pf", &pid, "-cf", "/dev/null", "p0"];
    fs::write(client.folder.join("refuse"), "")?;
    let once = |first: &[&str]| client.run("dhclient", &[first, &common[..]].concat())?.wait();
    once(&["-1", "-d"])?;
    let refused = client.address("BOUND")?;
    given_back(server, refused)?;
    client.forget()?;
    let running = client.run("dhclient", &[&["-d"][..], &common[..]].concat())?;
    let address = client.address("BOUND")?;
    ensure!(address != refused, "it was given {refused} again");
    ensure!(held(server, address)?.is_some(), "there is no lease");
    drop(running);
    client.forget()?;
    let running = client.run("dhclient", &[&["-d"][..], &common[..]].concat())?;
    ensure!(client.address("REBOOT")? == address, "it has another address");
    drop(running);
    once(&["-r", "-d"])?;
    given_back(server, address)
}

fn with_dhcpcd(client: &Client, server: &Serving) -> anyhow::Result<()> {
    let script = client.script().display().to_string();
    let common = ["-4", "-A", "-f", "/dev/null", "-c", &script];
    let running = client.run("dhcpcd", &[&common[..], &["-B", "p0"]].concat())?;
    let address = client.address("BOUND")?;
    ensure!(held(server, address)?.is_some(), "there is no lease");
    client.run("dhcpcd", &[&common[..], &["-k", "p0"]].concat())?.wait()?;
    given_back(server, address)?;
    drop(running);
    Ok(())
}

fn held(server: &Serving, address: Ipv4Addr) -> anyhow::Result<Option<Lease>> {
    Ok(server.leases()?.into_iter().find(|lease| lease.address == address))
}

fn given_back(server: &Serving, address: Ipv4Addr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while held(server, address)?.is_some() {
        ensure!(Instant::now() < deadline, "{address} is not given back");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A host that runs a client on its `p0`.
struct Client {
    host: Neighbour,
    folder: PathBuf,
}

impl Client {
    fn new(lab: &mut Lab, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let host = lab.add_neighbour(&[(BRIDGE, "192.0.2.1/32")])?;
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let client = Self { host, folder };
        fs::write(client.script(), SCRIPT.replace("DIR", &client.folder.display().to_string()))?;
        fs::set_permissions(client.script(), fs::Permissions::from_mode(0o755))?;
        client.forget()?;
        Ok(client)
    }

    fn script(&self) -> PathBuf {
        self.folder.join("script")
    }

    fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.folder.join("said"))?)
    }

    fn forget(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.folder.join("said"), "")?)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let log = fs::File::create(self.folder.join("log"))?;
        let child = self
            .host
            .command("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        Ok(Running(child))
    }

    /// Waits until the client has an address for this reason, and returns it.
    fn address(&self, reason: &str) -> anyhow::Result<Ipv4Addr> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said()?;
            let mut found =
                said.lines().filter_map(|line| line.strip_prefix(reason)?.split(' ').nth(1));
            if let Some(address) = found.next_back() {
                return Ok(address.parse()?);
            }
            if Instant::now() >= deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("no address ({reason}); it says:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A program that is killed when this value is dropped.
struct Running(Child);

impl Running {
    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status()?;
        ensure!(status.success(), "it is gone");
        Ok(())
    }

    fn wait(mut self) -> anyhow::Result<()> {
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
