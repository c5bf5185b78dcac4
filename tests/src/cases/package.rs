//! The Debian package, installed in a copy of this host with a systemd of its own: the server runs as its unit says, with
//! all that the unit takes away from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

use crate::rig::{Case, Need, program};

const PID1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/package/pid1.sh");
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/package.sh");
const SYSTEMD: &str = "/lib/systemd/systemd";
const PATIENCE: Duration = Duration::from_secs(120);
/// A network that is there, and machines that nobody knows.
const SETTINGS: &str = "[loaders]\ndir = \"/etc/kiln/loaders\"\n[discovery]\nunknown = \"hold\"\n[[subnet]]\n\
                        network = \"10.77.0.0/24\"\ninterface = \"kiln0\"\naddress = \"10.77.0.1\"\n\
                        pool = [\"10.77.0.100-10.77.0.199\"]\n";

pub(super) fn cases() -> Vec<Case> {
    let needs = [
        Need::Root,
        Need::Program,
        Need::File(SYSTEMD, "systemd"),
        Need::Tool("objdump", "binutils"),
        Need::Tool("dpkg-deb", "dpkg"),
    ];
    let name = "package::it_installs_runs_as_its_unit_says_and_goes_again";
    vec![Case::new(name, &needs, play)]
}

fn play() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("package-").tempdir()?;
    let inside = folder.path().join("in");
    let made = Command::new("sh")
        .arg(PACKAGE)
        .arg(program())
        .arg(&inside)
        // Nobody keeps it.
        .env("KILN_PACKAGE_LEVEL", "0")
        .output()?;
    ensure!(made.status.success(), "{}", said(&made));
    let package = PathBuf::from(String::from_utf8(made.stdout)?.trim());
    let package = format!("/in/{}", package.file_name().context("no package")?.display());
    let host = Host::start(folder.path())?;

    host.sh("ip link set lo up; ip netns add rack; ip link add kiln0 type veth peer name p0 netns rack; \
             ip link set kiln0 up; ip address add 10.77.0.1/24 dev kiln0; \
             ip -n rack link set lo up; ip -n rack link set p0 up; ip -n rack address add 10.77.0.2/24 dev p0")?;
    let told = host.sh(&format!("dpkg --install {package}"))?;
    ensure!(told.contains("systemctl enable --now kiln"), "it says: {told}");
    host.fails("systemctl is-active kiln")?;
    host.sh("kiln config check && man -w kiln kiln.toml 2>/dev/null || \
             ls /usr/share/man/man1/kiln.1.gz /usr/share/man/man5/kiln.toml.5.gz \
             /usr/share/man/man5/kiln-image.5.gz /usr/share/man/man5/kiln-inventory.5.gz")?;
    host.sh("systemd-analyze verify kiln.service")?;

    host.sh(&format!(
        "mkdir /etc/kiln/loaders; head -c 100000 /dev/zero >/etc/kiln/loaders/ipxe-amd64.efi; \
         printf '%s' '{SETTINGS}' >/etc/kiln/kiln.toml; systemctl enable --now kiln"
    ))?;
    let boots = "ip netns exec rack kiln simulate -n 5 --until script --interface p0 --yes";
    host.sh(boots)?;
    let process = || host.sh("systemctl show -P MainPID kiln");
    let first = process()?;
    let user = host.sh(&format!("ps -o user= -p {first}"))?;
    ensure!(user == "kiln", "it runs as {user}");
    host.sh("kiln machine add n1 --mac 52:54:00:12:34:56 && systemctl reload kiln")?;
    // The journal of leases, the inventory and the store are where another run of it finds them.
    host.sh(&format!("kill -9 {first}"))?;
    host.until(|| Ok(process()? != first && host.sh("kiln lease list -o json").is_ok()))?;
    let leases = host.sh("kiln lease list -o json")?;
    ensure!(leases.matches("\"mac\"").count() == 5, "{leases}");
    ensure!(host.sh("kiln machine list -o name")?.contains("n1"), "the machine is gone");
    host.sh(boots)?;

    // The same again is an update, which takes over.
    let second = process()?;
    host.sh(&format!("dpkg --install {package}"))?;
    ensure!(process()? != second, "the old version goes on");
    host.sh("systemctl is-active kiln && dpkg --remove kiln")?;
    host.fails("systemctl is-active kiln")?;
    host.sh("test -e /etc/kiln/kiln.toml && dpkg --purge kiln")?;
    host.sh("test ! -e /etc/kiln/kiln.toml && test -e /var/lib/kiln/inventory.db")?;
    Ok(())
}

fn said(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    both.concat()
}

/// A copy of this host that is gone when this value is dropped.
struct Host {
    unshare: Child,
    /// Its process 1, as this host sees it.
    pid1: String,
    group: PathBuf,
}

impl Host {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mut groups = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = groups.find_map(|mount| match mount.as_slice() {
            [_, at, "cgroup2", ..] => Some(PathBuf::from(at)),
            _ => None,
        });
        let group = root.context("no cgroup2")?.join(format!("kiln-case-{}", std::process::id()));
        fs::create_dir_all(&group)?;
        let unshare = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "sh", "-c", ENTER, "enter"])
            .arg(&group)
            .arg(PID1)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()
            .context("cannot run setpriv")?;
        let mut host = Self { unshare, pid1: String::new(), group };
        host.find_pid1().with_context(|| {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            format!("systemd does not start: {log}")
        })?;
        Ok(host)
    }

    fn find_pid1(&mut self) -> anyhow::Result<()> {
        let id = self.unshare.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = fs::read_to_string(&children).context("unshare has ended")?;
            found.trim().clone_into(&mut self.pid1);
            if !self.pid1.is_empty() && self.sh("systemctl is-active case.target").is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "it takes too long");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn run(&self, script: &str) -> anyhow::Result<Output> {
        let namespaces = ["-m", "-p", "-n", "-u", "-i", "-C", "-r", "-w"];
        Command::new("nsenter")
            .args(["-t", &self.pid1])
            .args(namespaces)
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NO_COLOR=1", "sh", "-ec"])
            .arg(script)
            .stdin(Stdio::null())
            .output()
            .context("cannot run nsenter")
    }

    /// Runs a script there, and returns what it prints.
    fn sh(&self, script: &str) -> anyhow::Result<String> {
        let output = self.run(script)?;
        if !output.status.success() {
            let log = self.run("journalctl --no-pager -n 30 -u kiln; systemctl status kiln")?;
            bail!("`{script}`: {}{}", said(&output), said(&log));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn fails(&self, script: &str) -> anyhow::Result<()> {
        let output = self.run(script)?;
        ensure!(!output.status.success(), "`{script}` is well: {}", said(&output));
        Ok(())
    }

    fn until(&self, mut so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !so()? {
            if Instant::now() >= deadline {
                bail!("it does not come back: {}", said(&self.run("systemctl status kiln")?));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

/// Moves into a control group, which is then the first that process 1 sees.
const ENTER: &str = "echo 0 >\"$1/cgroup.procs\"; exec unshare --mount --pid --uts --ipc --net --cgroup --fork \
                     --kill-child sh \"$2\" \"$3\"";

impl Drop for Host {
    fn drop(&mut self) {
        // With process 1 all others there end, and with them what they have mounted.
        drop(self.unshare.kill());
        drop(self.unshare.wait());
        let tidy = "for i in 1 2 3 4 5 6 7 8 9 10; do \
                    find \"$1\" -depth -type d -exec rmdir {} + 2>/dev/null && exit; sleep 0.2; done";
        drop(Command::new("sh").args(["-c", tidy, "tidy"]).arg(&self.group).status());
    }
}
