//! What kiln-init and the bundles of the builder make of a container, as the container itself sees it.
//!
//! The image is booted by qemu itself, without a server, and switches itself off.

use anyhow::{Context, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_types::Arch;

use super::build::link;
use crate::rig::{self, Case, Direct, Need, image, kiln, work_folder};

const SPEC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/containers/containers.yml");

/// Lines of the console, in this order; others may be between them.
const LINES: &[&str] = &[
    // The name `limits` is the fifth container.
    "privileges: Uid:\t104\t104\t104\t104",
    "privileges: Gid:\t7\t7\t7\t7",
    "privileges: Groups:\t8 ",
    // CAP_CHOWN and CAP_NET_RAW are 0 and 13. Another user than root keeps only what is ambient.
    "privileges: CapInh:\t0000000000002001",
    "privileges: CapPrm:\t0000000000002000",
    "privileges: CapEff:\t0000000000002000",
    "privileges: CapBnd:\t0000000000002001",
    "privileges: CapAmb:\t0000000000002000",
    "privileges: NoNewPrivs:\t0",
    // The filter was installed with privileges that are gone, and not at the price of others.
    "sandbox: CapEff:\t0000000000000000",
    "sandbox: CapBnd:\t0000000000000000",
    "sandbox: NoNewPrivs:\t0",
    "sandbox: Seccomp:\t2",
    "sandbox: unshare: unshare(0x20000): Operation not permitted",
    "sandbox: made",
    "profile: NoNewPrivs:\t1",
    "profile: Seccomp:\t2",
    // Number 13, which the profile gives.
    "profile: mkdir: can't create directory '/x': Permission denied",
    "masks: kcore 0, firmware 0, name masked",
    "masks: sh: can't create /proc/sys/kernel/hostname: Read-only file system",
    "masks: touch: /x: Read-only file system",
    "masks: /dev/loop0 / squashfs ro,relatime,errors=continue 0 0",
    "limits: this machine cannot do cpu.realtimeRuntime and cpu.realtimePeriod; going on without",
    "limits: /sys/fs/cgroup/onboot-limits memory 67108864 high 50003968 pids 50 cpu 50000 100000",
    "limits: files 100 oom 100",
    "limits: overlay / ",
    "writer: sh: can't create /fixed/file: Read-only file system",
    "reader: kept",
    "reader: sh: can't create /data/file: Read-only file system",
    "user: I am 0, which is 0 100000 1000",
    "device: read kmsg 600",
    "device: head: /dev/mem: Operation not permitted",
    "keeps: has 1",
    "joins: has 1, ,UP,",
    "shares: mounted",
    "hides: private",
    "sees: sees shared kept",
    "card: has eth0",
    "kiln-init: healthy",
    // The containers of `onshutdown` run while the services are still there.
    "kiln-init: onshutdown last",
    "last: first kept",
    "last: asked",
    "kiln-init: power off",
];

pub(super) fn cases() -> Vec<Case> {
    [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)]
        .into_iter()
        .filter_map(|(arch, firmware)| {
            let kind = MachineKind::new(arch, firmware).ok()?;
            let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
            let name = format!("containers::{arch}_containers_are_what_their_specification_says");
            Some(Case::new(name, &needs, move || what_they_see(arch)))
        })
        .collect()
}

fn what_they_see(arch: Arch) -> anyhow::Result<()> {
    // Fetches the packages into the shared store.
    image(arch)?;
    let folder = tempfile::Builder::new().prefix("containers-").tempdir_in(work_folder())?;
    let (store, out) = (folder.path().join("store"), folder.path().join("out"));
    link(&rig::store().join("cache/deb"), &store.join("cache/deb"))?;
    let [store, out_text] = [&store, &out].map(|path| path.display().to_string());
    let lock = folder.path().join("containers.lock").display().to_string();
    let finished = kiln(&[
        "build",
        SPEC,
        "--arch",
        arch.as_str(),
        "--lock",
        &lock,
        "--store",
        &store,
        "--out",
        &out_text,
    ])?;
    ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);

    let mut machine = Direct::start(arch, &out, 1024, "", None, &[])?;
    let ended = machine.wait_for_end();
    let text = machine.text()?;
    ended.and_then(|()| compare(&text)).with_context(|| format!("the console:\n{text}"))
}

fn compare(console: &str) -> anyhow::Result<()> {
    let mut lines = console.lines();
    for expected in LINES {
        ensure!(lines.any(|line| line.ends_with(expected)), "missing in its place: {expected:?}");
    }
    Ok(())
}
