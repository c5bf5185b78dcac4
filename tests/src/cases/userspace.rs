//! LinuxKit's own user space, an init of scripts with runc and containerd, still boots out of images that a
//! specification names under `init`; and how kiln-init compares with it.
//!
//! The images are made here of Debian's packages. Their scripts, in `fixtures/userspace`, do what LinuxKit's
//! programs do, in the same order. With `KILN_BENCH_ROUNDS` both are booted that often and compared.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_types::Arch;

use super::start::build;
use crate::rig::{Case, Direct, Need, kiln, layout, store, work_folder};

const ARCH: Arch = Arch::X86_64;
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/userspace");
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// What the scripts call.
const APPLETS: &str = "cat cp echo find hostname ifconfig init mdev mkdir modprobe mount sed sh sort switch_root usleep xargs";

pub(super) fn cases() -> Vec<Case> {
    let Ok(kind) = MachineKind::new(ARCH, FirmwareKind::Bios) else { return Vec::new() };
    let needs =
        [Need::Program, Need::KilnInit(ARCH), Need::Machine(kind), Need::Tool("tar", "tar")];
    vec![Case::new("userspace::linuxkits_init_runc_and_containerd_boot_unchanged", &needs, boots)]
}

/// The machine's clock goes on by a nanosecond with each instruction, whatever else this computer does.
const COUNTED: &[&str] = &["-icount", "shift=0,sleep=off"];

/// Where the files are that the images are made of: a container's root file system with all of the packages.
const PACKAGES: &str = "
kernel: {deb: linux-image-cloud-amd64}
init: [kiln]
services:
  - {name: all, deb: [busybox-static, containerd, runc], command: [/usr/bin/busybox], readonly: true}
";

/// The same for both; each service says that it is up where the kernel stamps it with the time since its start.
const SERVICES: &str = r#"
kernel: {deb: linux-image-cloud-amd64, cmdline: console=ttyS0}
onboot:
  - {name: first, image: "registry.example/app:1", command: [/bin/say, onboot], devices: &kmsg [{path: /dev/kmsg, type: c, major: 1, minor: 11, mode: "0600"}]}
services:
  - {name: one, image: "registry.example/app:1", command: [/bin/say, one], devices: *kmsg}
  - {name: two, image: "registry.example/app:1", command: [/bin/say, two], devices: *kmsg}
  - {name: three, image: "registry.example/app:1", command: [/bin/say, three], devices: *kmsg}
"#;

const SAY: &str = r#"#!/bin/busybox sh
echo "<1>case: $1 is up" >/dev/kmsg
[ "$1" != onboot ] || exit 0
[ "$1" != three ] || {
    # By now the others are up as well.
    sleep 10
    awk '/^Mem(Total|Available)/ {print "<1>case: " $1 " " $2}' /proc/meminfo | while read line; do echo "$line" >/dev/kmsg; done
}
sleep 100000
"#;

fn boots() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("userspace-").tempdir_in(work_folder())?;
    let layouts = images(folder.path())?;
    let linuxkit = "init: [\"registry.example/init:1\", \"registry.example/runc:1\", \"registry.example/containerd:1\"]";
    let linuxkit = of_images(folder.path(), "linuxkit", linuxkit, &layouts)?;
    let Some(rounds) = std::env::var("KILN_BENCH_ROUNDS").ok() else {
        let measured = measure(&linuxkit, &[])?;
        ensure!(measured.up > 0.0, "it is up at the start");
        return Ok(());
    };
    let kiln = of_images(folder.path(), "kiln", "init: [kiln]", &layouts)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds.parse::<usize>()?.max(1) {
        theirs.push(measure(&linuxkit, COUNTED)?);
        ours.push(measure(&kiln, COUNTED)?);
    }
    let (ours, theirs) = (Measured::median(&ours), Measured::median(&theirs));
    eprintln!("| three services, kernel start to all up | seconds | MB used |");
    eprintln!("|---|---|---|");
    eprintln!(
        "| init, runc and containerd as in LinuxKit | {:.2} | {:.0} |",
        theirs.up, theirs.used
    );
    eprintln!("| kiln-init | {:.2} | {:.0} |", ours.up, ours.used);
    eprintln!("| ratio | {:.2} | {:.2} |", ours.up / theirs.up, ours.used / theirs.used);
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Seconds since the kernel's start until the last service was up.
    up: f64,
    /// Megabytes of memory, the root file system included.
    used: f64,
}

impl Measured {
    fn median(all: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| {
            let mut values: Vec<f64> = all.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Self { up: of(|it| it.up), used: of(|it| it.used) }
    }
}

/// Boots an image and waits until the last of its services has said how much memory there is.
fn measure(out: &Path, clock: &[&str]) -> anyhow::Result<Measured> {
    let clock: Vec<_> = clock.iter().map(ToString::to_string).collect();
    let mut machine = Direct::start(ARCH, out, 1024, "", None, &clock)?;
    for word in ["onboot is up", "one is up", "two is up", "three is up", "MemAvailable: "] {
        machine.wait_for(&format!("case: {word}"))?;
    }
    machine.wait_for_line("case: MemAvailable: ")?;
    let text = machine.text()?;
    let lines = || text.lines().filter_map(|line| line.split_once("] case: "));
    let up = lines()
        .filter(|(_, said)| said.ends_with(" is up"))
        .filter_map(|(stamp, _)| stamp.rsplit('[').next()?.trim().parse::<f64>().ok())
        .fold(0.0, f64::max);
    let memory = |name: &str| -> anyhow::Result<f64> {
        let found =
            lines().find_map(|(_, said)| said.strip_prefix(name)?.trim().parse::<f64>().ok());
        Ok(found.with_context(|| format!("no {name} in:\n{text}"))? / 1024.0)
    };
    Ok(Measured { up, used: memory("MemTotal:")? - memory("MemAvailable:")? })
}

fn of_images(
    folder: &Path,
    name: &str,
    init: &str,
    layouts: &[PathBuf],
) -> anyhow::Result<PathBuf> {
    let spec = folder.join(format!("userspace-{name}.yml"));
    fs::write(&spec, format!("{init}\n{SERVICES}"))?;
    let out = folder.join(name);
    let mut arguments = vec!["build".to_owned(), spec.display().to_string()];
    for (flag, value) in
        [("--arch", ARCH.as_str().into()), ("--store", store()), ("--out", out.clone())]
    {
        let value: PathBuf = value;
        arguments.extend([flag.to_owned(), value.display().to_string()]);
    }
    for layout in layouts {
        arguments.extend(["--images".to_owned(), layout.display().to_string()]);
    }
    let built = kiln(&arguments)?;
    ensure!(built.code == Some(0), "{name} does not build: {}", built.stderr);
    Ok(out)
}

/// Makes the images and returns the folders of their layouts.
fn images(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let packages = packages(folder)?;
    let scripts = Path::new(SCRIPTS);
    let mut layouts = Vec::new();
    let mut finish = |name: &str| -> anyhow::Result<()> {
        let layout = folder.join(format!("layout-{name}"));
        let name_of_image = format!("registry.example/{name}:1");
        layout::of_folder(&layout, &folder.join(name), &name_of_image)?;
        layouts.push(layout);
        Ok(())
    };
    let busybox = packages.join("usr/bin/busybox");

    let root = folder.join("init");
    for dir in ["dev", "proc", "sys", "run", "tmp", "var", "mnt", "etc/init.d"] {
        fs::create_dir_all(root.join(dir))?;
    }
    put(&busybox, &root.join("bin/busybox"))?;
    for applet in APPLETS.split(' ') {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::create_dir_all(root.join("sbin"))?;
    symlink("../bin/busybox", root.join("sbin/init"))?;
    put(&scripts.join("init"), &root.join("init"))?;
    put(&scripts.join("inittab"), &root.join("etc/inittab"))?;
    put(&scripts.join("rc.init"), &root.join("bin/rc.init"))?;
    put(&scripts.join("rc.shutdown"), &root.join("bin/rc.shutdown"))?;
    put(&scripts.join("prepare"), &root.join("usr/lib/prepare"))?;
    finish("init")?;

    let root = folder.join("runc");
    put(&packages.join("usr/sbin/runc"), &root.join("usr/bin/runc"))?;
    put(&scripts.join("onboot"), &root.join("etc/init.d/010-onboot"))?;
    for library in ["libc.so.6", "libseccomp.so.2", "libresolv.so.2"] {
        put(
            &packages.join("usr").join(LIBRARIES).join(library),
            &root.join(LIBRARIES).join(library),
        )?;
    }
    let loader = "ld-linux-x86-64.so.2";
    put(&packages.join("usr").join(LIBRARIES).join(loader), &root.join("lib64").join(loader))?;
    finish("runc")?;

    let root = folder.join("containerd");
    for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        put(&packages.join("usr/bin").join(program), &root.join("usr/bin").join(program))?;
    }
    put(&scripts.join("containerd"), &root.join("etc/init.d/020-containerd"))?;
    finish("containerd")?;

    let root = folder.join("app");
    put(&busybox, &root.join("bin/busybox"))?;
    for applet in ["awk", "sleep"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("bin/say"), SAY)?;
    fs::set_permissions(root.join("bin/say"), fs::Permissions::from_mode(0o755))?;
    finish("app")?;
    Ok(layouts)
}

/// Returns a folder with the files of the packages.
fn packages(folder: &Path) -> anyhow::Result<PathBuf> {
    let out = build(folder, "packages", PACKAGES, ARCH, &["--format", "tar"])?;
    let from = "containers/services/all/rootfs";
    let done = Command::new("tar")
        .args(["--warning=no-unknown-keyword", "--no-same-owner", "-xf"])
        .arg(out.join(format!("packages-{ARCH}.tar")))
        .args(["-C"])
        .arg(folder)
        .arg(from)
        .status()?;
    ensure!(done.success(), "tar: {done}");
    Ok(folder.join(from))
}

/// Copies a file, and everyone may run the copy.
fn put(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("a file is in no folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
}
