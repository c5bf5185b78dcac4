//! The two layouts of one specification on a machine, and the least memory that a version names.
//!
//! The images are booted by qemu itself, without a network.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_types::Arch;
use tokio::time::Instant;

use crate::rig::{Case, IMAGE, Need, image, kiln, store, work_folder};

/// Half a minute on an idle computer.
const PATIENCE: Duration = Duration::from_secs(4 * 60);
const HEALTHY: &str = "kiln-init: healthy";

pub(super) fn cases() -> Vec<Case> {
    let kinds = [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)];
    let mut cases = Vec::new();
    for (arch, firmware) in kinds {
        let Ok(kind) = MachineKind::new(arch, firmware) else { continue };
        let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
        let least = format!("layouts::{arch}_the_demo_boots_with_the_least_memory_it_names");
        cases.push(Case::new(least, &needs, move || least_memory(arch)));
        let small = format!("layouts::{arch}_the_minimal_image_boots_with_96_mb_in_every_layout");
        cases.push(Case::new(small, &needs, move || minimal(arch)));
        if arch == Arch::X86_64 {
            let both = "layouts::both_layouts_behave_alike_and_packed_takes_less_memory";
            cases.push(Case::new(both, &needs, move || both_layouts(arch)));
        }
    }
    cases
}

/// Builds a specification in the shared store and returns what the command prints.
fn build(spec: &str, arch: Arch, out: &Path) -> anyhow::Result<String> {
    // Fetches the kernel into the shared store.
    image(arch)?;
    // Beside the output, not beside the specification.
    let lock = out.with_extension("lock");
    let [store, out, lock] = [store(), out.to_owned(), lock].map(|path| path.display().to_string());
    let arch = arch.as_str();
    let finished =
        kiln(&["build", spec, "--arch", arch, "--lock", &lock, "--store", &store, "--out", &out])?;
    ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
    Ok(finished.stdout)
}

fn least_memory(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("least-").tempdir_in(work_folder())?;
    let name = image(arch)?;
    build(IMAGE, arch, folder.path())?;
    let store = kiln_builder::Store::open(store())?;
    let manifest = store.manifest(&store.find(name.name(), arch)?.digest)?;
    let megabytes = manifest.min_ram >> 20;
    let (text, _) = boot(arch, folder.path(), megabytes)?;
    ensure!(text.contains(HEALTHY), "with {megabytes} MiB it does not boot:\n{text}");
    // The estimate is no waste: with half of it the initrd does not fit. A small arm64 machine keeps nothing for
    // devices, so there it may.
    if arch != Arch::X86_64 {
        return Ok(());
    }
    let (text, _) = boot(arch, folder.path(), megabytes / 2)?;
    ensure!(!text.contains(HEALTHY), "it boots with {} MiB as well", megabytes / 2);
    Ok(())
}

/// In both layouts where that takes a few seconds only.
fn minimal(arch: Arch) -> anyhow::Result<()> {
    const MINIMAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/images/minimal.yml");
    let folder = tempfile::Builder::new().prefix("small-").tempdir_in(work_folder())?;
    let layouts: &[_] = if arch == Arch::X86_64 { &["cpio", "packed"] } else { &["cpio"] };
    for layout in layouts {
        let spec = folder.path().join(format!("small-{layout}.yml"));
        fs::write(&spec, format!("layout: {layout}\n{}", fs::read_to_string(MINIMAL)?))?;
        let out = folder.path().join(layout);
        build(&spec.display().to_string(), arch, &out)?;
        let store = kiln_builder::Store::open(store())?;
        let manifest = store.manifest(&store.find(&format!("small-{layout}"), arch)?.digest)?;
        let (least, size) = (manifest.min_ram >> 20, manifest.download_size());
        eprintln!("{arch}, {layout}: {size} bytes, says that it boots with {least} MiB");
        ensure!(least <= 96, "{layout} says that it needs {least} MiB");
        let (text, _) = boot(arch, &out, least)?;
        ensure!(text.contains(HEALTHY), "{layout} does not boot with {least} MiB:\n{text}");
    }
    Ok(())
}

/// A container of some size that tells what it sees, and writes to its root.
const SPEC: &str = "
kernel:
  deb: {x86_64: linux-image-cloud-amd64, arm64: linux-image-cloud-arm64}
  cmdline: {x86_64: console=ttyS0 quiet, arm64: console=ttyAMA0 quiet}
init: [kiln]
onboot:
  - name: large
    deb: [busybox, perl]
    command:
      - busybox
      - sh
      - -c
      - |
        busybox grep -E 'Mem(Total|Available)' /proc/meminfo
        echo kept > /usr/new && busybox cat /usr/new && busybox rm /usr/new
        cd / && busybox find usr etc -xdev -type f -o -type l | busybox sort > /tmp/list
        echo \"files $(busybox wc -l < /tmp/list)\"
        echo \"names $(busybox md5sum < /tmp/list)\"
        echo \"bytes $(busybox find usr/bin usr/share/perl -xdev -type f | busybox sort | busybox xargs busybox cat | busybox md5sum)\"
        echo \"modes $(busybox find usr etc -xdev | busybox sort | busybox xargs busybox stat -c '%a %u %g %n' | busybox md5sum)\"
    tmpfs: [/tmp]
";

fn both_layouts(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("layouts-").tempdir_in(work_folder())?;
    let mut seen = Vec::new();
    for layout in ["cpio", "packed"] {
        let spec = folder.path().join(format!("layout-{layout}.yml"));
        fs::write(&spec, format!("layout: {layout}\n{SPEC}"))?;
        let out = folder.path().join(layout);
        build(&spec.display().to_string(), arch, &out)?;
        let (text, took) = boot(arch, &out, 512)?;
        ensure!(text.contains(HEALTHY), "{layout} does not boot:\n{text}");
        let said = |word: &str| -> anyhow::Result<String> {
            let start = format!("large: {word}");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            Ok(line
                .with_context(|| format!("no `{word}` from {layout}:\n{text}"))?
                .trim()
                .to_owned())
        };
        let available = said("MemAvailable:")?.trim_end_matches(" kB").parse::<u64>()?;
        let size = fs::metadata(out.join("initrd.img"))?.len();
        eprintln!("{layout}: initrd {size} bytes, {available} kB available, healthy in {took:?}");
        let same = ["kept", "files", "names", "bytes", "modes"].map(said);
        let same = same.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        seen.push((same, available));
    }
    let [(cpio, cpio_memory), (packed, packed_memory)] = seen.as_slice() else {
        bail!("two layouts have {} results", seen.len());
    };
    ensure!(cpio == packed, "cpio gives {cpio:?}, packed {packed:?}");
    // The container has 50 MB of files, of which a third is left when it is packed.
    ensure!(
        *packed_memory > cpio_memory + (15 << 10),
        "packed leaves {packed_memory} kB, cpio {cpio_memory} kB"
    );
    Ok(())
}

/// Boots until the machine is healthy, ends or runs out of patience, and returns its console and how long it took.
pub(super) fn boot(arch: Arch, out: &Path, megabytes: u64) -> anyhow::Result<(String, Duration)> {
    let console = out.join("console");
    let begin = Instant::now();
    let mut machine = Machine(start(arch, out, megabytes, &console)?);
    loop {
        let text = String::from_utf8_lossy(&fs::read(&console)?).replace('\r', "");
        let ended = machine.0.try_wait()?.is_some();
        if ended || text.contains(HEALTHY) || text.contains("Initramfs unpacking failed") {
            return Ok((text, begin.elapsed()));
        }
        if begin.elapsed() > PATIENCE {
            bail!("the machine neither became healthy nor ended:\n{text}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(arch: Arch, out: &Path, megabytes: u64, console: &Path) -> anyhow::Result<Child> {
    let (program, machine, tty): (_, &[&str], _) = match arch {
        Arch::X86_64 => ("qemu-system-x86_64", &["-machine", "pc"], "ttyS0"),
        Arch::Arm64 => {
            ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "cortex-a72"], "ttyAMA0")
        }
    };
    Command::new(program)
        .args(["-accel", "tcg", "-nographic", "-no-reboot", "-nic", "none"])
        .args(["-m", &megabytes.to_string()])
        .args(machine)
        .args(["-append", &format!("console={tty} panic=-1")])
        .arg("-kernel")
        .arg(out.join("kernel"))
        .arg("-initrd")
        .arg(out.join("initrd.img"))
        .stdin(Stdio::null())
        .stdout(File::create(console)?)
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {program}"))
}
