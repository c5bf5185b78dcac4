//! How services are kept and asked for, and how a machine stops.
//!
//! The image is booted by qemu itself, without a server.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
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

/// How the machine stops when its button is pressed.
const STOP: &[&str] = &[
    "kiln-init: the power button was pressed",
    "kiln-init: stopping",
    "kiln-init: onshutdown last",
    "last: the services are still there",
    // Who comes after others stops before them, and is made to.
    "kiln-init: driver does not stop by itself and is killed",
    "kiln-init: driver is stopped",
    "victim: asked",
    "kiln-init: power off",
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (arch, firmware) in [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)]
    {
        let Ok(kind) = MachineKind::new(arch, firmware) else { continue };
        let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
        let mut add = |name: &str, run: fn(Arch) -> anyhow::Result<()>| {
            cases.push(Case::new(format!("services::{arch}_{name}"), &needs, move || run(arch)));
        };
        add("services_are_kept_and_do_what_they_are_told", kept);
        add("a_failure_of_onboot_stops_the_machine_if_the_image_says_so", failure_halts);
        add("a_failure_of_onboot_starts_the_machine_anew_if_the_image_says_so", failure_reboots);
        if arch == Arch::X86_64 {
            add("ill_services_start_anew_and_a_hanging_machine_is_reset", ill);
            add("a_screen_shows_the_state_and_ctrl_alt_del_starts_anew", screen);
            add("a_thousand_restarts_leave_nothing_behind", restarts);
        } else {
            // The emulated processor of another kind is slow: a thousand would take minutes.
            add("two_hundred_restarts_leave_nothing_behind", restarts);
        }
    }
    cases
}

/// Builds a specification of the fixtures into a folder.
fn build(folder: &Path, name: &str, arch: Arch) -> anyhow::Result<PathBuf> {
    build_file(folder, Path::new(&format!("{FOLDER}/{name}.yml")), arch)
}

fn build_file(folder: &Path, spec: &Path, arch: Arch) -> anyhow::Result<PathBuf> {
    // Fetches the packages into the shared store.
    image(arch)?;
    let (store, out) = (folder.join("store"), folder.join("out"));
    link(&rig::store().join("cache/deb"), &store.join("cache/deb"))?;
    let name = spec.display().to_string();
    let mut arguments =
        vec!["build".to_owned(), name.clone(), "--arch".to_owned(), arch.to_string()];
    let lock = folder.join("spec.lock");
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
    let monitor = folder.path().join("monitor");
    let mut more =
        vec!["-monitor".to_owned(), format!("unix:{},server=on,wait=off", monitor.display())];
    if arch == Arch::Arm64 {
        // Debian's kernel for clouds knows the power button of ACPI, and none that a device tree describes.
        more.extend(["-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"].map(str::to_owned));
    }
    let mut machine = Direct::start(arch, &out, 768, "", None, &more)?;
    machine.wait_for("driver: driver: done")?;
    let text = machine.text()?;
    in_order(&text, ANSWERS)?;
    for wanted in SAID {
        ensure!(text.contains(wanted), "missing: {wanted:?}; the console:\n{text}");
    }
    let mut monitor = UnixStream::connect(&monitor).context("the monitor of qemu")?;
    monitor.write_all(b"system_powerdown\n")?;
    machine.wait_for_end()?;
    in_order(&machine.text()?, STOP)
}

fn failure_halts(arch: Arch) -> anyhow::Result<()> {
    let folder = scratch()?;
    let out = build(folder.path(), "failure", arch)?;
    failure(arch, &out, "kiln-init: power off")
}

fn failure_reboots(arch: Arch) -> anyhow::Result<()> {
    let folder = scratch()?;
    let text = fs::read_to_string(format!("{FOLDER}/failure.yml"))?;
    let spec = folder.path().join("failure.yml");
    fs::write(&spec, text.replace("on-failure: halt", "on-failure: reboot"))?;
    let out = build_file(folder.path(), &spec, arch)?;
    failure(arch, &out, "kiln-init: reboot")
}

/// Boots a machine on which the first container fails, which is no matter, and the second, which is.
fn failure(arch: Arch, out: &Path, end: &str) -> anyhow::Result<()> {
    let mut machine = Direct::start(arch, out, 512, "", None, &[])?;
    machine.wait_for_end()?;
    let text = machine.text()?;
    let lines = [
        "kiln-init: onboot first",
        "first: fails",
        "kiln-init: onboot first ended with code 9",
        "kiln-init: onboot second",
        "kiln-init: onboot second ended with code",
        "kiln-init: stopping",
        "kiln-init: onshutdown last",
        "last: before the end",
        end,
    ];
    in_order(&text, &lines)?;
    ensure!(!text.contains("must not run"), "the third container ran; the console:\n{text}");
    Ok(())
}

/// What is said of services that are ill, that cannot run, and of the watchdog; each once or more.
const FAULTS: &[&str] = &[
    "kiln-init: a watchdog resets this machine when it hangs for 6 s",
    "kiln-init: ill is not well: its check ended with code 4",
    "kiln-init: ill was not well: its check ended with code 4; again in 100 ms",
    "kiln-init: deaf is not well: its check takes longer than 2000 ms",
    "kiln-init: deaf was not well: its check takes longer than 2000 ms; again in 100 ms",
    "kiln-init: programless cannot run: there is no /no/such/program in the container; see its `command`",
    "kiln-init: sourceless cannot run: ",
    "ice: the machine is still there",
    "ice: freezes",
];

fn ill(arch: Arch) -> anyhow::Result<()> {
    let folder = scratch()?;
    let out = build(folder.path(), "ill", arch)?;
    let watchdog = ["-device", "i6300esb", "-action", "watchdog=reset"].map(str::to_owned);
    let mut machine = Direct::start(arch, &out, 512, "", None, &watchdog)?;
    machine.wait_for_end()?;
    let text = machine.text()?;
    for wanted in FAULTS {
        ensure!(text.contains(wanted), "missing: {wanted:?}; the console:\n{text}");
    }
    // One sentence for each that cannot run, with the key that it has to do with.
    for (name, key) in [("programless", "`command`"), ("sourceless", "`binds`")] {
        let lines: Vec<_> = text.lines().filter(|line| line.contains(name)).collect();
        ensure!(lines.len() == 1 && lines[0].contains(key), "of {name}: {lines:?}");
    }
    // It was reset, and did not stop by itself.
    ensure!(!text.contains("kiln-init: stopping"), "it stopped; the console:\n{text}");
    ensure!(!text.contains("kiln-init: healthy"), "it was healthy; the console:\n{text}");
    Ok(())
}

/// What is on the screen of a machine.
const SHOWN: &[&str] = &[
    "look: shows Machine    ",
    "look: shows Addresses  10.0.2.15",
    "look: shows State      healthy, up 0 h ",
    "look: shows SERVICE                          STATE     RESTARTS  HEALTH",
    "look: shows idle                             up               0  well",
    "look: shows look                             up               0  -",
    "look: shows Alt-F1: messages ",
    "look: messages are kept",
    "look: tty8",
    "look: done",
    "kiln-init: stopping",
    "kiln-init: reboot",
];

fn screen(arch: Arch) -> anyhow::Result<()> {
    let folder = scratch()?;
    let out = build(folder.path(), "screen", arch)?;
    let socket = folder.path().join("monitor");
    let monitor = ["-monitor".to_owned(), format!("unix:{},server=on,wait=off", socket.display())];
    let mut machine = Direct::start(arch, &out, 512, "", None, &monitor)?;
    machine.wait_for("look: done")?;
    let mut monitor = UnixStream::connect(&socket).context("the monitor of qemu")?;
    monitor.write_all(b"sendkey ctrl-alt-delete\n")?;
    machine.wait_for_end()?;
    let text = machine.text()?;
    in_order(&text, SHOWN)?;
    ensure!(
        !text.lines().any(|line| line.contains("SERVICE ") && !line.starts_with("look: ")),
        "the screen is on the serial line; the console:\n{text}"
    );
    Ok(())
}

/// What is counted before and after, and how much more there may be.
const COUNTED: [(&str, u64); 7] = [
    // In KiB: the logs that are kept on purpose are full by then.
    ("memory", 512),
    ("threads", 0),
    ("processes", 0),
    ("mounts", 0),
    ("groups", 0),
    ("files", 0),
    ("zombies", 0),
];

fn restarts(arch: Arch) -> anyhow::Result<()> {
    let folder = scratch()?;
    let text = fs::read_to_string(format!("{FOLDER}/restarts.yml"))?;
    let wanted = if arch == Arch::Arm64 { "-lt 260" } else { "-lt 1040" };
    let spec = folder.path().join("restarts.yml");
    fs::write(&spec, text.replace("-lt 1040", wanted))?;
    let out = build_file(folder.path(), &spec, arch)?;
    let mut machine =
        Direct::start(arch, &out, 768, "", None, &["-smp".to_owned(), "2".to_owned()])?;
    machine.allow(Duration::from_secs(10 * 60));
    machine.wait_for_end()?;
    let text = machine.text()?;
    let count = |when: &str, what: &str| -> anyhow::Result<u64> {
        let line = text.lines().find(|line| line.starts_with(&format!("counter: {when} after ")));
        let mut words = line.unwrap_or_default().split_whitespace();
        let value = words.find(|word| *word == what).and_then(|_| words.next());
        let value = value.and_then(|value| value.parse().ok());
        value.with_context(|| format!("there is no `{what}` at the {when}; the console:\n{text}"))
    };
    for line in text.lines().filter(|line| line.starts_with("counter: ")) {
        eprintln!("{line}");
    }
    for (what, more) in COUNTED {
        let (start, end) = (count("start", what)?, count("end", what)?);
        ensure!(end <= start + more, "the console:\n{text}\n{what} grew from {start} to {end}");
    }
    for name in ["one", "two", "three"] {
        ensure!(
            text.contains(&format!("kiln-init: {name} ended with code")),
            "of {name} nothing is told:\n{text}"
        );
    }
    // SIGTERM ended it in order.
    in_order(&text, &["counter: done", "kiln-init: stopping", "kiln-init: power off"])?;
    // Their programs began, but none of them ran for a moment.
    ensure!(!text.contains("kiln-init: healthy"), "services that end at once are well:\n{text}");
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
