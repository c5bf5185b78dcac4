//! A kernel out of an image made for LinuxKit boots, with an initrd compressed as it can unpack it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_builder::Store;
use kiln_builder::manifest::SegmentCompression;
use kiln_types::Arch;
use serde_json::Value;

use super::layouts::boot;
use crate::rig::{Case, Need, image, kiln, layout, store, work_folder};

const ARCH: Arch = Arch::X86_64;

pub(super) fn cases() -> Vec<Case> {
    let Ok(kind) = MachineKind::new(ARCH, FirmwareKind::Bios) else { return Vec::new() };
    let tools =
        [Need::Tool("cpio", "cpio"), Need::Tool("dpkg-deb", "dpkg"), Need::Tool("tar", "tar")];
    let needs = [&[Need::Program, Need::KilnInit(ARCH), Need::Machine(kind)][..], &tools].concat();
    vec![Case::new("kernel_image::a_kernel_for_linuxkit_boots_with_what_it_brings", &needs, boots)]
}

const SPEC: &str = "
kernel:
  image: registry.example/kernel:6.12
  ucode: intel-ucode.cpio
  cmdline: console=ttyS0 quiet
init: [kiln]
onboot:
  - name: writer
    deb: [busybox]
    # Its root is writable, which takes the kernel's module for it.
    command: [busybox, sh, -c, \"echo kept > /new && busybox cat /new && busybox uname -r\"]
";

fn boots() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("kernel-").tempdir_in(work_folder())?;
    let at = |name: &str| folder.path().join(name);
    let name = image(ARCH)?;
    let shared = Store::open(store())?;
    let manifest = shared.manifest(&shared.find(name.name(), ARCH)?.digest)?;
    let release = manifest.kernel.release.clone();
    let is_kernel = |name: &str| name.starts_with("linux-image-") && name.contains(&release);
    let package = manifest.packages.iter().find(|package| is_kernel(&package.name));
    let digest = package.context("the demo has no kernel's package")?.sha256;
    let package = store().join("cache/deb/pool").join(format!("{}.deb", digest.hex()));

    // What LinuxKit's image holds, of Debian's kernel, as if that could unpack nothing but gzip.
    let [package, unpacked, root] =
        [package, at("unpacked"), at("root")].map(|path| path.display().to_string());
    fs::create_dir(&root)?;
    run(Command::new("dpkg-deb").args(["-x", &package, &unpacked]))?;
    let file = |name: &str| Path::new(&root).join(name);
    let boot_file = |name: &str| Path::new(&unpacked).join(format!("boot/{name}-{release}"));
    fs::copy(boot_file("vmlinuz"), file("kernel"))?;
    let config = fs::read_to_string(boot_file("config"))?;
    ensure!(config.contains("CONFIG_RD_ZSTD=y"), "Debian's kernel cannot unpack zstd");
    fs::write(file("kernel_config"), config.replace("CONFIG_RD_ZSTD=y", ""))?;
    let from = format!("{unpacked}/usr");
    let tar = file("kernel.tar").display().to_string();
    run(Command::new("tar").args(["-C", &from, "-cf", &tar, "lib/modules"]))?;
    let archive = "mkdir -p kernel && echo of-no-use > kernel/note && find kernel | cpio -o -H newc -R 0:0 --quiet";
    let archive = Command::new("sh").args(["-c", archive]).current_dir(folder.path()).output()?;
    fs::write(file("intel-ucode.cpio"), &archive.stdout)?;
    let layout_dir = at("layout");
    layout::of_folder(&layout_dir, Path::new(&root), "registry.example/kernel:6.12")?;

    fs::write(at("booted.yml"), SPEC)?;
    let [spec, layout, out] =
        [at("booted.yml"), layout_dir, at("out")].map(|path| path.display().to_string());
    let store = store().display().to_string();
    let arguments = ["build", &spec, "--arch", ARCH.as_str(), "--store", &store];
    let finished = kiln(&[&arguments[..], &["--images", &layout, "--out", &out]].concat())?;
    ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
    let version = shared.find("booted", ARCH)?;
    let manifest = shared.manifest(&version.digest)?;
    let segments: Vec<_> =
        manifest.segments.iter().map(|it| (it.component.as_str(), it.compression)).collect();
    let gzip = SegmentCompression::Gzip;
    let expected = [
        ("ucode", SegmentCompression::None),
        ("init", gzip),
        ("image", gzip),
        ("kernel-modules", gzip),
        ("containers", gzip),
        ("writer", gzip),
    ];
    ensure!(segments == expected, "the segments are {segments:?}");
    ensure!(version.attachments.contains_key("kernel-config"), "no configuration is kept");
    let checked = kiln(&["image", "check", "--kspp", "booted", "-o", "json", "--store", &store])?;
    let findings: Vec<Value> = serde_json::from_str(&checked.stdout).context(checked.stderr)?;
    let known = |it: &&Value| it["place"] == "config" && it["verdict"] != "unknown";
    ensure!(findings.iter().filter(known).count() > 50, "the check knows too little: {findings:?}");

    let (text, _) = boot(ARCH, Path::new(&out), 1024)?;
    let lines = ["writer: kept".to_owned(), format!("writer: {release}")];
    for line in lines {
        ensure!(text.contains(&line), "the console lacks `{line}`:\n{text}");
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(())
}
