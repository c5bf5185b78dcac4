//! The images that are shipped in `config/images`: they build, and they do what they say.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_builder::hash::sha256;
use kiln_types::Arch;

use crate::rig::{Case, Direct, Need, image, kiln, store, work_folder};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/images");

pub(super) fn cases() -> Vec<Case> {
    let both = [Need::Program, Need::KilnInit(Arch::X86_64), Need::KilnInit(Arch::Arm64)];
    let Ok(kind) = MachineKind::new(Arch::X86_64, FirmwareKind::Bios) else { return Vec::new() };
    let boots = [Need::Program, Need::KilnInit(Arch::X86_64), Need::Machine(kind)];
    let ssh = [boots.as_slice(), &[Need::Tool("ssh", "openssh-client")]].concat();
    vec![
        Case::new("images::every_one_is_short_and_builds_for_both_architectures", &both, build_all),
        Case::new("images::the_minimal_one_lets_in_who_has_the_key", &ssh, minimal),
        Case::new("images::the_node_runs_podman", &boots, node),
        Case::new(
            "images::the_installer_writes_what_was_promised_and_nothing_else",
            &boots,
            install,
        ),
    ]
}

/// Builds an image of the folder, joined with more, and returns the folder with its kernel and initrd.
fn build(folder: &Path, name: &str, more: Option<&Path>) -> anyhow::Result<PathBuf> {
    // Brings the kernel into the shared store.
    image(Arch::X86_64)?;
    let out = folder.join(name);
    let mut arguments = vec!["build".to_owned(), format!("{FOLDER}/{name}.yml")];
    arguments.extend(more.map(|path| path.display().to_string()));
    let lock = folder.join(format!("{name}.lock"));
    for (flag, path) in [("--store", store()), ("--lock", lock), ("--out", out.clone())] {
        arguments.extend([flag.to_owned(), path.display().to_string()]);
    }
    // A name of its own: the same image is built by the other case, perhaps at the same time.
    arguments.extend(["--arch".to_owned(), "x86_64".to_owned()]);
    arguments.extend(["--name".to_owned(), format!("case-{name}")]);
    let built = kiln(&arguments)?;
    ensure!(built.code == Some(0), "{name} does not build: {}", built.stderr);
    Ok(out)
}

fn scratch(name: &str) -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix(name).tempdir_in(work_folder())?)
}

fn build_all() -> anyhow::Result<()> {
    image(Arch::X86_64)?;
    let folder = scratch("images-")?;
    let mut names = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "yml") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let lines = fs::read_to_string(&path)?.lines().count();
        ensure!(lines < 40 || name == "demo", "{name} has {lines} lines");
        let (spec, store) = (path.display().to_string(), store().display().to_string());
        let lock = folder.path().join(format!("{name}.lock")).display().to_string();
        let both = "x86_64,arm64";
        let built = kiln(&["build", &spec, "--arch", both, "--lock", &lock, "--store", &store])?;
        ensure!(built.code == Some(0), "{name} does not build: {}", built.stderr);
        names.push(name);
    }
    names.sort();
    ensure!(names == ["demo", "installer", "minimal", "node"], "there are {names:?}");
    Ok(())
}

fn minimal() -> anyhow::Result<()> {
    let folder = scratch("minimal-")?;
    let key = folder.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    let public = fs::read_to_string(key.with_extension("pub"))?;
    let spec = folder.path().join("keys.yml");
    let file = "files:\n  - path: /etc/ssh/authorized_keys\n    mode: \"0600\"\n    contents: ";
    fs::write(&spec, format!("{file}{public}"))?;
    let out = build(folder.path(), "minimal", Some(&spec))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut machine = Direct::start(Arch::X86_64, &out, 96, "", Some((port, 22)), &[])?;
    machine.wait_for("Not backgrounding")?;
    // A key of nobody is refused, by the same server that lets the right one in.
    let stranger = folder.path().join("stranger");
    Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&stranger)
        .status()?;
    let ask = |key: &Path| -> anyhow::Result<String> {
        let output = Command::new("ssh")
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60"])
            .args(["-F", "/dev/null", "-p", &port.to_string(), "-i"])
            .arg(key)
            .args(["root@127.0.0.1", "echo $((6*7)) at $(busybox hostname); kiln-init ps"])
            .output()?;
        let [said, errors] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        Ok(format!("{said}{errors}"))
    };
    let mut said = ask(&key)?;
    let is_up = |said: &str| {
        let columns = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        said.lines().any(|line| columns(line) == "sshd up")
    };
    for _ in 0..60 {
        // It says so before it listens, and counts as up only when it has run for a moment.
        if said.contains("42 at ") && is_up(&said) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
        said = ask(&key)?;
    }
    ensure!(said.contains("42 at "), "ssh says {said}; the console:\n{}", machine.text()?);
    // Who is in can ask for the services.
    ensure!(is_up(&said), "{said}");
    let refused = ask(&stranger)?;
    ensure!(
        refused.contains("Permission denied") && !refused.contains("42 at "),
        "ssh says {refused}"
    );
    Ok(())
}

fn node() -> anyhow::Result<()> {
    let folder = scratch("node-")?;
    let out = build(folder.path(), "node", None)?;
    let mut machine = Direct::start(Arch::X86_64, &out, 1400, "", None, &[])?;
    // The client says this of the server that answers on the socket.
    machine.wait_for("client: Server:       Podman Engine")
}

/// Serves these bytes to whoever asks for anything, until the test ends.
fn serve(bytes: Vec<u8>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        let answer = |mut stream: TcpStream| -> std::io::Result<()> {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut request = [0; 4096];
            let _ = stream.read(&mut request)?;
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(&bytes)
        };
        for stream in listener.incoming().flatten() {
            let _ = answer(stream);
        }
    });
    Ok(port)
}

fn install() -> anyhow::Result<()> {
    let folder = scratch("installer-")?;
    let out = build(folder.path(), "installer", None)?;
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes())
        .collect();
    let right = sha256(&bytes).hex();
    let port = serve(bytes.clone())?;
    let attempt = |sum: &str| -> anyhow::Result<(Direct, PathBuf)> {
        let disk = out.join("disk");
        fs::File::create(&disk)?.set_len(32 << 20)?;
        let arguments = format!(
            "install.image=http://10.0.2.2:{port}/image install.sha256={sum} install.disk=/dev/vda"
        );
        let drive = format!("file={},format=raw,if=virtio", disk.display());
        let more = ["-drive".to_owned(), drive];
        Ok((Direct::start(Arch::X86_64, &out, 512, &arguments, None, &more)?, disk))
    };
    let (mut machine, disk) = attempt(&right)?;
    machine.wait_for("install: installed on /dev/vda")?;
    machine.wait_for_end().context("after the installation")?;
    ensure!(fs::read(&disk)?.starts_with(&bytes), "the disk has other bytes");

    let (mut machine, disk) = attempt(&"0".repeat(64))?;
    machine.wait_for("install: nothing is installed: the image is not 0000")?;
    machine.wait_for("onboot install ended with code 1")?;
    drop(machine);
    ensure!(fs::read(&disk)?[..512].iter().all(|byte| *byte == 0), "the wrong bytes could start");
    Ok(())
}
