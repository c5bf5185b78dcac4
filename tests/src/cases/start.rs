//! How the machine starts when something is wrong.
//!
//! The images are booted by qemu itself, without a server.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use kiln::lab::{FirmwareKind, MachineKind};
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

    // All of it arrives, and there is no room to unpack it.
    fs::write(&initrd, whole)?;
    let kiln_store = kiln_builder::Store::open(store())?;
    let least = kiln_store.manifest(&kiln_store.find("whole", arch)?.digest)?.min_ram >> 20;
    let mut machine = Direct::start(arch, &out, least * 6 / 10, "", None, &[])?;
    machine.wait_for("of its initrd is missing second; the kernel says: write error")?;
    machine.wait_for(&format!("where a machine of {least} MiB is needed"))
}
