//! The network of a machine with several cards, with dnsmasq at the other end of the first.
//!
//! The machine is booted by qemu itself; its cards are in a network namespace that the case makes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kiln::lab::{BRIDGE, FirmwareKind, Lab, MachineKind};
use kiln_types::Arch;
use tokio::time::Instant;

use super::start::build;
use crate::rig::{Case, Need, work_folder};

const SPEC: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/network/network.yml"));
/// Half a minute on an idle computer.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

pub(super) fn cases() -> Vec<Case> {
    [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)]
        .into_iter()
        .filter_map(|(arch, firmware)| {
            let kind = MachineKind::new(arch, firmware).ok()?;
            let needs = [
                Need::Root,
                Need::Program,
                Need::KilnInit(arch),
                Need::Machine(kind),
                Need::Tool("dnsmasq", "dnsmasq-base"),
            ];
            let name =
                format!("addresses::{arch}_cards_get_what_the_plan_says_and_follow_the_server");
            Some(Case::new(name, &needs, move || follows(arch)))
        })
        .collect()
}

fn follows(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("addresses-").tempdir_in(work_folder())?;
    let out = build(folder.path(), "network", SPEC, arch, &[])?;
    let mut lab = Lab::enter(folder.path())?;
    let ports: Vec<String> = (0..5).map(|_| lab.add_port(BRIDGE)).collect::<Result<_, _>>()?;
    // The first card stays on the bridge with dnsmasq; the second carries a VLAN, the next two are a pair.
    for line in [
        format!("link set {} nomaster", ports[1]),
        "link add pairs type bridge forward_delay 0".to_owned(),
        format!("link set {} master pairs", ports[2]),
        format!("link set {} master pairs", ports[3]),
        "addr add 10.80.0.1/24 dev pairs".to_owned(),
        "link set pairs up".to_owned(),
        format!("link set {} nomaster", ports[4]),
    ] {
        ip(&line)?;
    }
    let server = Server::start(folder.path(), "10.77.0.100,10.77.0.149")?;
    let mut machine = Machine::start(arch, &out, &ports)?;
    machine.monitor("set_link net4 off")?;
    let played = play(&mut machine, server, folder.path());
    played.with_context(|| format!("the console:\n{}", machine.text().unwrap_or_default()))
}

fn play(machine: &mut Machine, server: Server, folder: &Path) -> anyhow::Result<()> {
    machine.wait_for("kiln-init: healthy")?;
    // By DHCP, by DHCPv6 and by what the router announces.
    let first = machine.address("eth0 has 10.77.0.1")?;
    machine.wait_for("kiln-init: eth0 has fd77::1:")?;
    machine.wait_for("kiln-init: eth0 has fd77::5054:ff:fe77:1")?;
    // What nobody answers for holds nothing up.
    machine.wait_for("kiln-init: no DHCP server answers on eth1; still asking")?;
    machine.wait_for("kiln-init: eth4 has no link; it is set up when one comes")?;
    // Not every kernel that runs this knows VLANs, so the frames are looked at instead: type 0x8100, number 20.
    machine.wait_for("kiln-init: tagged has fd78::5")?;
    let frames = fs::read(&machine.frames)?;
    ensure!(frames.windows(4).any(|part| part == [0x81, 0, 0, 20]), "no frame has the tag");
    let pair = "10.80.0.5".parse()?;
    machine.answers(pair, "kiln/network/ntp")?;
    let resolver = machine.answers(first, "resolvconf/resolv.conf")?;
    let expected = ["nameserver 10.77.0.1", "nameserver fd77::1", "lab.example", "tagged.example"];
    for text in expected {
        ensure!(resolver.contains(text), "resolv.conf lacks {text:?}:\n{resolver}");
    }
    let lease = machine.answers(first, "kiln/network/eth0.lease")?;
    ensure!(lease.contains("NTP=\"10.77.0.9\""), "{lease}");
    ensure!(lease.contains("ROUTES=\"10.99.0.0/16,10.77.0.1\""), "{lease}");

    // Renewed in time, for the server wants it soon.
    let deadline = Instant::now() + PATIENCE;
    while server.log()?.matches("DHCPACK(kiln0)").count() < 2 {
        ensure!(Instant::now() < deadline, "not renewed:\n{}", server.log()?);
        std::thread::sleep(Duration::from_millis(200));
    }

    // One card of the pair is enough.
    machine.monitor("set_link net2 off")?;
    machine.answers(pair, "kiln/network/eth0.lease")?;

    // A server that knows nothing of the address moves the machine when its cable is plugged in again.
    machine.monitor("set_link net0 off")?;
    machine.wait_for("kiln-init: eth0 has no link any more")?;
    drop(server);
    let _server = Server::start(folder, "10.77.0.150,10.77.0.199")?;
    machine.monitor("set_link net0 on")?;
    machine
        .wait_for(&format!("kiln-init: eth0 has {first} no longer: the server takes it back"))?;
    let second = machine.address(&format!("eth0 has {first} no longer"))?;
    ensure!(second != first, "it has {second} again");
    machine.answers(second, "kiln/network/eth0.lease")?;
    Ok(())
}

fn ip(line: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(line.split(' ')).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "`ip {line}` failed");
    Ok(())
}

/// dnsmasq for both versions of IP. It ends with this value.
struct Server(Child, PathBuf);

impl Server {
    fn start(dir: &Path, range: &str) -> anyhow::Result<Self> {
        let log = dir.join(format!("{range}.log"));
        let lines = format!(
            "keep-in-foreground\nport=0\nuser=root\ninterface={BRIDGE}\nbind-interfaces\nlog-dhcp\n\
             log-facility={}\ndhcp-leasefile={}/{range}.leases\ndhcp-authoritative\nenable-ra\n\
             dhcp-range={range},255.255.255.0,2m\ndhcp-range=fd77::1:0,fd77::1:ff,slaac,64,5m\n\
             dhcp-option=option6:dns-server,[fd77::1]\ndhcp-option=option:dns-server,10.77.0.1\n\
             dhcp-option=option:domain-search,lab.example\ndhcp-option=option:ntp-server,10.77.0.9\n\
             dhcp-option=121,10.99.0.0/16,10.77.0.1\ndhcp-option=option:T1,10\n",
            log.display(),
            dir.display()
        );
        let path = dir.join("dnsmasq.conf");
        fs::write(&path, lines)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "dnsmasq", "--pid-file=", "-C"])
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run dnsmasq")?;
        Ok(Self(child, log))
    }

    fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.1).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A machine whose cards have the numbers of these ports.
struct Machine {
    child: Child,
    console: PathBuf,
    monitor: PathBuf,
    /// What the second card has sent and heard.
    frames: PathBuf,
    deadline: Instant,
}

impl Machine {
    fn start(arch: Arch, out: &Path, ports: &[String]) -> anyhow::Result<Self> {
        let (program, machine): (_, &[&str]) = match arch {
            Arch::X86_64 => ("qemu-system-x86_64", &["-machine", "pc"]),
            Arch::Arm64 => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "cortex-a72"]),
        };
        let [console, monitor, frames] =
            ["console", "monitor", "frames"].map(|name| out.join(name));
        let cmdline = fs::read_to_string(out.join("cmdline"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(machine);
        command.args(["-accel", "tcg", "-m", "768", "-display", "none", "-no-reboot"]);
        command.args(["-serial", "stdio", "-device", "virtio-rng-pci"]);
        command.arg("-monitor").arg(format!("unix:{},server,nowait", monitor.display()));
        for (number, port) in ports.iter().enumerate() {
            let mac = format!("52:54:00:77:00:{:02x}", number + 1);
            command
                .arg("-netdev")
                .arg(format!("tap,id=net{number},ifname={port},script=no,downscript=no"));
            command
                .arg("-device")
                .arg(format!("virtio-net-pci,netdev=net{number},mac={mac},romfile="));
        }
        let dump = format!("filter-dump,id=dump,netdev=net1,file={}", frames.display());
        let child = command
            .args(["-object", &dump])
            .args(["-append", &format!("{} panic=-1", cmdline.trim())])
            .arg("-kernel")
            .arg(out.join("kernel"))
            .arg("-initrd")
            .arg(out.join("initrd.img"))
            .stdin(Stdio::null())
            .stdout(File::create(&console)?)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        Ok(Self { child, console, monitor, frames, deadline: Instant::now() + PATIENCE })
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.console)?).replace('\r', ""))
    }

    fn wait_for(&mut self, wanted: &str) -> anyhow::Result<()> {
        while !self.text()?.contains(wanted) {
            if self.child.try_wait()?.is_some() || Instant::now() >= self.deadline {
                bail!("`{wanted}` does not come");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Returns the IPv4 address of the first line that says that the first card has one, from the line with this text on.
    fn address(&mut self, from: &str) -> anyhow::Result<IpAddr> {
        loop {
            let text = self.text()?;
            let rest = text.find(from).map(|at| text[at..].to_owned()).unwrap_or_default();
            let words = rest.lines().filter(|line| !line.contains("no longer"));
            let mut found = words.filter_map(|line| line.split_once("eth0 has 10.77."));
            if let Some((_, end)) = found.next() {
                return Ok(format!("10.77.{end}").trim().parse()?);
            }
            ensure!(Instant::now() < self.deadline, "no address after `{from}`");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Says something to qemu.
    fn monitor(&self, line: &str) -> anyhow::Result<()> {
        loop {
            match UnixStream::connect(&self.monitor) {
                Ok(mut stream) => {
                    stream.write_all(format!("{line}\n").as_bytes())?;
                    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                    let mut said: Vec<u8> = Vec::new();
                    let mut buffer = [0; 512];
                    // The prompt comes before the line and after what it did.
                    while said.windows(6).filter(|part| *part == b"(qemu)").count() < 2 {
                        let length = stream.read(&mut buffer)?;
                        ensure!(length > 0, "qemu has ended");
                        said.extend(&buffer[..length]);
                    }
                    return Ok(());
                }
                Err(error) if Instant::now() >= self.deadline => {
                    return Err(error).context("no monitor");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Fetches a file of the machine's web server over one of its addresses.
    fn answers(&self, address: IpAddr, path: &str) -> anyhow::Result<String> {
        let ask = || -> anyhow::Result<String> {
            let patience = Duration::from_secs(5);
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 8080), patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(format!("GET /{path} HTTP/1.0\r\n\r\n").as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            ensure!(text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200"), "{text}");
            Ok(text)
        };
        loop {
            match ask() {
                Ok(text) => return Ok(text),
                Err(error) if Instant::now() >= self.deadline => {
                    return Err(error.context(format!("{address} does not answer")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
