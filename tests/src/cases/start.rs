//! How the machine starts when something is wrong.
//!
//! The images are booted by qemu itself, without a server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_builder::cpio;
use kiln_builder::tree::{Node, Tree, TreePath};
use kiln_types::Arch;

use crate::rig::{Case, Direct, Need, image, kiln, store, work_folder};

pub(super) fn cases() -> Vec<Case> {
    let kinds = [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)];
    let mut cases = Vec::new();
    for (arch, firmware) in kinds {
        let Ok(kind) = MachineKind::new(arch, firmware) else { continue };
        let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
        let mut add = |name: &str, run: fn(Arch) -> anyhow::Result<()>| {
            cases.push(Case::new(format!("start::{arch}_{name}"), &needs, move || run(arch)));
        };
        add("a_machine_that_is_not_whole_says_what_is_missing_and_stops", not_whole);
        add("what_is_broken_is_said_and_the_rest_runs", broken);
    }
    cases
}

/// Builds a specification in the shared store and writes what a machine boots into a folder.
pub(super) fn build(
    folder: &Path,
    name: &str,
    spec: &str,
    arch: Arch,
    more: &[&str],
) -> anyhow::Result<std::path::PathBuf> {
    // Fetches the packages into the shared store.
    image(arch)?;
    let (file, out) = (folder.join(format!("{name}.yml")), folder.join(name));
    fs::write(&file, spec)?;
    let [spec, store, out_text] = [&file, &store(), &out].map(|path| path.display().to_string());
    let arch = arch.as_str();
    let arguments = ["build", &spec, "--arch", arch, "--store", &store, "--out", &out_text];
    let built = kiln(&[&arguments[..], more].concat())?;
    ensure!(built.code == Some(0), "{name} does not build: {}", built.stderr);
    Ok(out)
}

const WHOLE: &str = "
kernel:
  deb: {x86_64: linux-image-cloud-amd64, arm64: linux-image-cloud-arm64}
  cmdline: {x86_64: console=ttyS0, arm64: console=ttyAMA0}
init: [kiln]
services:
  - {name: first, deb: [busybox-static], command: [/usr/bin/busybox, sleep, '1000']}
  - {name: second, deb: [busybox-static, perl], command: [/usr/bin/busybox, sleep, '1000']}
";

fn not_whole(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("whole-").tempdir_in(work_folder())?;
    let out = build(folder.path(), "whole", WHOLE, arch, &[])?;
    let initrd = out.join("initrd.img");
    let whole = fs::read(&initrd)?;

    // What is missing is in the middle of the last archive.
    fs::write(&initrd, &whole[..whole.len() - 1_000_000])?;
    let mut machine = Direct::start(arch, &out, 512, "", None, &[])?;
    machine.wait_for("of its initrd is missing second; the kernel says: ")?;
    machine.wait_for("It was cut off on its way, or the loader cannot hold this much")?;
    machine.wait_for("power off in 30 s")?;
    let text = machine.text()?;
    ensure!(!text.contains("service first"), "half a system runs:\n{text}");
    drop(machine);

    // The segment of the machine comes first, so that it knows whom to tell.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = format!("http://10.0.2.2:{}", listener.local_addr()?.port());
    let said = heard(listener)?;
    let mut cut = machine_segment(&server)?;
    cut.extend_from_slice(whole.get(..whole.len() - 1_000_000).unwrap_or_default());
    fs::write(&initrd, cut)?;
    let mut machine = Direct::start(arch, &out, 512, "", None, &[])?;
    machine.wait_for("of its initrd is missing second")?;
    machine.wait_for("power off in 30 s")?;
    let text = said.recv_timeout(Duration::from_secs(60));
    let text =
        text.with_context(|| format!("nobody is told:\n{}", machine.text().unwrap_or_default()))?;
    ensure!(text.contains("not whole"), "the server is told {text}");
    drop(machine);

    // All of it arrives, and there is no room to unpack it.
    fs::write(&initrd, whole)?;
    let kiln_store = kiln_builder::Store::open(store())?;
    let least = kiln_store.manifest(&kiln_store.find("whole", arch)?.digest)?.min_ram >> 20;
    let mut machine = Direct::start(arch, &out, least * 6 / 10, "", None, &[])?;
    machine.wait_for("of its initrd is missing second; the kernel says: write error")?;
    machine.wait_for(&format!("where a machine of {least} MiB is needed"))
}

/// What a server would put into the initrd for this machine.
fn machine_segment(server: &str) -> anyhow::Result<Vec<u8>> {
    let text = format!(r#"{{"server":"{server}","boot":7,"token":"{}"}}"#, "ab".repeat(32));
    let mut tree = Tree::new();
    tree.insert(TreePath::new("etc/kiln/machine.json")?, Node::file(0o600, text.into_bytes()));
    let mut archive = Vec::new();
    cpio::write(&tree, 0, &mut archive)?;
    Ok(archive)
}

/// Answers like a server and hands on the first request that speaks of a failure.
fn heard(listener: TcpListener) -> anyhow::Result<mpsc::Receiver<String>> {
    let (said, hear) = mpsc::channel();
    std::thread::Builder::new().spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
            let mut text = String::new();
            // The client keeps the connection open: what comes within the time is all.
            let _ = (&stream).take(1 << 16).read_to_string(&mut text);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
            if text.contains("\"failed\"") && said.send(text).is_err() {
                return;
            }
        }
    })?;
    Ok(hear)
}

/// Nothing in this image is as it should be, but for one service.
const BROKEN: &str = "
kernel:
  deb: {x86_64: linux-image-cloud-amd64, arm64: linux-image-cloud-arm64}
  cmdline: {x86_64: console=ttyS0, arm64: console=ttyAMA0}
init: [kiln]
services:
  - name: good
    deb: &busybox [busybox-static]
    pid: host
    capabilities: [all]
    binds: [/var:/var, /run:/run, /tmp:/tmp, /bin/kiln-init:/usr/bin/kiln-init:ro]
    command:
      - /usr/bin/busybox
      - sh
      - -c
      - |
        b=/usr/bin/busybox
        $b sleep 5
        $b echo name $($b hostname) year $($b date +%Y) printk $($b cat /proc/sys/kernel/printk_ratelimit)
        $b grep -qE '^[^ ]+ / [^ ]+ ro,' /proc/1/mounts && $b echo the root is read-only
        for at in /dev/mqueue /dev/shm /sys/fs/bpf /sys/kernel/security /sys/fs/cgroup; do
          $b grep -q \" $at \" /proc/1/mounts || $b echo nothing is mounted on $at
        done
        for one in cpu memory pids; do
          $b grep -q $one /proc/1/root/sys/fs/cgroup/cgroup.subtree_control || $b echo no $one
        done
        $b grep -q 'Max open files *1048576' /proc/1/limits || $b echo few files
        for at in /var /run /tmp; do
          $b dd if=/dev/zero of=$at/full bs=64k 2>/dev/null
          $b echo x >$at/more && $b echo there is room
          kiln-init restart ends 2>&1 | $b grep -q 'ends ended with code 0' || $b echo nothing starts with $at full
          kiln-init ps | $b grep -q good || $b echo nothing is told with $at full
          $b sleep 2
          $b rm $at/full $at/more
          $b echo $at was full
        done
        $b echo still here
        $b sleep 100000
  - {name: missing, deb: *busybox, command: [/usr/bin/nothing]}
  - {name: torn, deb: *busybox, command: [/usr/bin/busybox, sleep, '1000']}
  - {name: ends, deb: *busybox, command: [/usr/bin/busybox, 'true']}
files:
  - {path: /etc/kiln/image.json, contents: '{\"image\": \"bro'}
  - {path: /containers/services/torn/config.json, contents: '{\"ociVersion\": '}
  - {path: /etc/sysctl.d/10-case.conf, contents: \"kernel.printk_ratelimit = 7\\nno.such.key = 1\\n\"}
";

fn broken(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("broken-").tempdir_in(work_folder())?;
    let out = build(folder.path(), "broken", BROKEN, arch, &[])?;
    let line = "kiln.hostname=given kiln.network-wait=1 kiln.colour=red";
    let old: Vec<_> = ["-rtc", "base=1970-01-01"].map(str::to_owned).into();
    let mut machine = Direct::start(arch, &out, 512, line, None, &old)?;
    for text in [
        "kiln-init: understand /etc/kiln/image.json: EOF while parsing",
        "kiln-init: kiln.colour=red on the kernel's command line means nothing here",
        "kiln-init: the clock of this machine is not set",
        "kiln-init: cannot set no.such.key: No such file or directory",
        "missing cannot run: there is no /usr/bin/nothing in the container",
        "torn cannot run: ",
        "ends ended with code 0; again in ",
        "good: name given year 2025 printk 7",
        "good: the root is read-only",
        "good: /var was full",
        "good: /run was full",
        "good: /tmp was full",
        "good: still here",
        // Those that cannot run are tried again and again.
        "ends ended with code 0; again in 1",
    ] {
        machine.wait_for(text)?;
    }
    let text = machine.text()?;
    for wrong in
        ["nothing is", "nothing starts", "good: no ", "few files", "there is room", "panic"]
    {
        ensure!(!text.contains(wrong), "`{wrong}` is on the console:\n{text}");
    }
    Ok(())
}
