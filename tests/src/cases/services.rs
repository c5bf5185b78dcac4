//! How services are kept and asked for, and how a machine stops.
//!
//! The image is booted by qemu itself, without a server.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_types::Arch;

use super::build::link;
use crate::rig::{self, Case, Direct, Need, image, kiln, work_folder};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/services");

/// What the service that asks for the others prints, in this order; other lines may be between them.
const ANSWERS: &[&str] = &[
    "driver: NAME STATE PID UPTIME RESTARTS MEMORY HEALTH",
    "driver: once done 0",
    // Control characters do not reach a terminal.
    "driver: stamp one·[2J",
    "driver: stamp last",
    "driver: last",
    "driver: victim up 0",
    "driver: victim is stopped until it is started; what comes after it goes on: driver, 0",
    "driver: victim stopped 0",
    "driver: kiln-init: victim is stopped; start it first",
    "driver: exec of a stopped one gives 1",
    "driver: victim is up, 0",
    "driver: victim up 1",
    "driver: victim is up, 0",
    "driver: victim up 2",
    "driver: victim up 3",
    // CAP_NET_RAW is 13.
    "driver: 55 66 inside blue /usr 100 CapPrm: 0000000000002000",
    "driver: group services-victim, SigIgn: 0000000000000000, sees 2",
    "driver: through",
    "driver: exits with 7",
    "driver: cannot run: there is no program no-such-program in",
    "driver: not there gives 126",
    "driver: terminal gives 5",
    "driver: left of it: 0",
    "driver: hungry failed 0",
    "driver: hung up 0",
    "driver: hung checks: one at most",
    "driver: kiln-init: there is no service \"nobody\"; the services are: driver, hung, hungry, once, victim",
    "driver: nobody gives 1",
    "driver: kiln-init: \"nobody\" has written nothing, or does not exist",
    "driver: no log gives 1",
    "driver: kiln-init: the services of this machine",
    "driver: done",
];

/// What process 1 says of it.
const SAID: &[&str] = &[
    "kiln-init: once ended with code 0",
    "kiln-init: service once",
    "kiln-init: healthy",
    "kiln-init: victim ended with code 137; again in 200 ms",
    "kiln-init: hungry was killed: out of memory, limit 32 MiB",
    "driver: terminal /dev/pts/0 for linux",
    "kiln-init: hung is not well: its check takes longer than 500 ms",
];

pub(super) fn cases() -> Vec<Case> {
    [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)]
        .into_iter()
        .filter_map(|(arch, firmware)| {
            let kind = MachineKind::new(arch, firmware).ok()?;
            let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
            let name = format!("services::{arch}_services_are_kept_and_do_what_they_are_told");
            Some(Case::new(name, &needs, move || kept(arch)))
        })
        .collect()
}

/// Builds a specification of the fixtures into a folder.
fn build(folder: &Path, name: &str, arch: Arch) -> anyhow::Result<PathBuf> {
    // Fetches the packages into the shared store.
    image(arch)?;
    let (store, out) = (folder.join("store"), folder.join(name));
    link(&rig::store().join("cache/deb"), &store.join("cache/deb"))?;
    let spec = format!("{FOLDER}/{name}.yml");
    let mut arguments = vec!["build".to_owned(), spec, "--arch".to_owned(), arch.to_string()];
    let lock = folder.join(format!("{name}.lock"));
    for (flag, path) in [("--store", &store), ("--lock", &lock), ("--out", &out)] {
        arguments.extend([flag.to_owned(), path.display().to_string()]);
    }
    let built = kiln(&arguments)?;
    ensure!(built.code == Some(0), "{name} does not build: {}", built.stderr);
    Ok(out)
}

fn scratch() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("services-").tempdir_in(work_folder())?)
}

fn kept(arch: Arch) -> anyhow::Result<()> {
    let folder = scratch()?;
    let out = build(folder.path(), "services", arch)?;
    let mut machine = Direct::start(arch, &out, 768, "", None, &[])?;
    machine.wait_for("driver: driver: done")?;
    let text = machine.text()?;
    in_order(&text, ANSWERS)?;
    for wanted in SAID {
        ensure!(text.contains(wanted), "missing: {wanted:?}; the console:\n{text}");
    }
    Ok(())
}

/// Looks for lines that begin so, each after the one before it.
fn in_order(console: &str, expected: &[&str]) -> anyhow::Result<()> {
    let mut lines = console.lines().map(|line| line.replace('\t', " "));
    for wanted in expected {
        let own = |line: &str| line.strip_prefix("driver: ").unwrap_or(line).starts_with(wanted);
        let found = lines.any(|line| line.starts_with(wanted) || own(&line));
        ensure!(found, "missing in its place: {wanted:?}; the console:\n{console}");
    }
    Ok(())
}
