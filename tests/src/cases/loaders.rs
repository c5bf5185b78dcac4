//! Loaders other than iPXE, from power-on to `healthy`.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use kiln::lab::{FirmwareKind, MachineConfig, MachineKind, Site};
use kiln_inventory::{Firmware, LoaderChoice, NewMachine, Phase};
use kiln_types::{Arch, Mac};

use super::explain::{explain, step};
use crate::rig::{Case, Need, Scene, image, store};

/// Firmware, stub and kernel each have a copy of the image for a while.
const MEMORY_MB: u32 = 1024;
const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);

pub(super) fn cases() -> Vec<Case> {
    [
        ("arm64_uefi_boots_one_file_by_pxe", Arch::Arm64, FirmwareKind::Uefi, Firmware::UefiArm64),
        (
            "arm64_uefi_boots_one_file_by_http",
            Arch::Arm64,
            FirmwareKind::Http,
            Firmware::UefiArm64Http,
        ),
        ("x86_64_uefi_boots_one_file_by_pxe", Arch::X86_64, FirmwareKind::Uefi, Firmware::UefiX64),
        (
            "x86_64_uefi_boots_one_file_by_http",
            Arch::X86_64,
            FirmwareKind::Http,
            Firmware::UefiX64Http,
        ),
    ]
    .into_iter()
    .filter_map(|(name, arch, firmware, seen)| {
        let kind = MachineKind::new(arch, firmware).ok()?;
        let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(arch), Need::Program];
        Some(Case::new(format!("loaders::{name}"), &needs, move || one_file(kind, seen)))
    })
    .chain(uboot_cases())
    .chain(retry_case())
    .collect()
}

fn retry_case() -> Option<Case> {
    let kind = MachineKind::new(Arch::X86_64, FirmwareKind::Bios).ok()?;
    let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(Arch::X86_64)];
    let name = "loaders::a_kernel_that_is_away_at_first_is_fetched_again";
    Some(Case::new(name, &needs, move || fetched_again(kind)))
}

/// iPXE is told once that there is no kernel, says so, waits and has it the next time.
fn fetched_again(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let index = kiln_builder::Store::open(store())?.index()?;
    let entry = index.images.get(image.name()).and_then(|arches| arches.get(&kind.arch()));
    let version = entry.and_then(|it| it.channels.get("latest")).context("it is not built")?;
    let kernel = kiln_builder::Store::open(store())?.manifest(version)?.kernel.digest;
    let own = tempfile::tempdir()?;
    let place = shadow(own.path())?.join("blobs/sha256").join(kernel.hex());
    let blob = std::fs::read_link(&place)?;
    std::fs::remove_file(&place)?;
    let site = |site: Site| site.with_store(&own.path().join("store"));
    Scene::play_among(
        |_| Ok(()),
        site,
        vec![Scene::machine("n1", MAC, &image)],
        async |mut scene| {
            let mut machine = scene.power_on(kind, MAC)?;
            machine
                .console()
                .wait_for("kernel failed, trying again in 1 s", Scene::deadline())
                .await?;
            std::os::unix::fs::symlink(&blob, &place)?;
            let (_, events) = scene.healthy(&mut machine, MAC).await?;
            let scripts = events.iter().filter(|event| event.phase == Phase::Script).count();
            ensure!(scripts == 1, "the script was run {scripts} times");
            Ok(scene)
        },
    )
}

/// Makes a store of links to what is in the shared one, with its keys beside it.
pub(super) fn shadow(folder: &Path) -> anyhow::Result<PathBuf> {
    let (from, to) = (store(), folder.join("store"));
    let (blobs, links) = (from.join("blobs/sha256"), to.join("blobs/sha256"));
    std::fs::create_dir_all(&links)?;
    for blob in std::fs::read_dir(blobs)? {
        let blob = blob?;
        std::os::unix::fs::symlink(blob.path(), links.join(blob.file_name()))?;
    }
    std::fs::copy(from.join("index.json"), to.join("index.json"))?;
    std::os::unix::fs::symlink(from.join("cache"), to.join("cache"))?;
    let keys = from.parent().context("a store in no folder")?.join("keys");
    std::os::unix::fs::symlink(keys, folder.join("keys"))?;
    Ok(to)
}

/// U-Boot 2023.01 takes the first byte of the address of a virtio card for all six.
const UBOOT_MAC: Mac = Mac::new([0x52; 6]);
const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

fn uboot_cases() -> Option<Case> {
    let kind = MachineKind::new(Arch::Arm64, FirmwareKind::Uefi).ok()?;
    let uboot = Need::File(UBOOT, "u-boot-qemu");
    let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(Arch::Arm64), uboot];
    Some(Case::new("loaders::arm64_u_boot_boots_by_its_own_means", &needs, move || by_uboot(kind)))
}

/// U-Boot is firmware and loader in one: what it asks for first is its script, and no program of UEFI runs.
fn by_uboot(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let own = NewMachine {
        cmdline: "kiln.case=u-boot".to_owned(),
        ..Scene::machine("n1", UBOOT_MAC, &image)
    };
    Scene::play(vec![own], async |mut scene| {
        let mut config = MachineConfig::new("n1", kind, UBOOT_MAC);
        config.memory_mb = MEMORY_MB;
        config.bios = Some(UBOOT.into());
        let mut machine = scene.start(&config)?;
        let (boot, events) = scene.healthy(&mut machine, UBOOT_MAC).await?;
        ensure!(boot.firmware == Some(Firmware::UbootArm64), "the firmware is {:?}", boot.firmware);
        let seen: Vec<(Phase, &str)> = events
            .iter()
            .filter(|event| (Phase::Loader..Phase::Init).contains(&event.phase))
            .map(|event| (event.phase, event.detail.as_str()))
            .collect();
        let name = image.to_string();
        let expected =
            [(Phase::Script, name.as_str()), (Phase::Kernel, "kernel"), (Phase::Segment, "initrd")];
        ensure!(seen == expected, "the timeline has {seen:?}");
        let console = machine.console().text();
        ensure!(console.contains(" kiln.case=u-boot"), "not with the arguments of the machine");
        ensure!(!console.contains("iPXE"), "iPXE ran");
        let told = explain(&scene, UBOOT_MAC, Some(Firmware::UbootArm64))?;
        let told = step(&told, 0)?;
        let file = told.boot_file.as_deref().unwrap_or_default();
        ensure!(file.ends_with("/boot.scr.uimg"), "explain names {file}");
        Ok(scene)
    })
}

/// Firmware, stub, kernel: no iPXE, one DHCP exchange before the system's own, and no file but the one.
fn one_file(kind: MachineKind, seen: Firmware) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let own = NewMachine {
        loader: Some(LoaderChoice::Uki),
        cmdline: "kiln.case=uki".to_owned(),
        ..Scene::machine("n1", MAC, &image)
    };
    Scene::play(vec![own], async |mut scene| {
        let before = explain(&scene, MAC, Some(seen))?;
        ensure!(before.steps.len() == 1, "explain lets iPXE follow: {:?}", before.steps);
        let told = step(&before, 0)?.clone();
        let file = told.boot_file.clone().context("explain names no file")?;
        ensure!(file.ends_with(&format!("/uki/{}/{seen}.efi", MAC.dashed())), "it is {file}");
        ensure!(told.reasons.iter().any(|it| it.contains("by UKI")), "{:?}", told.reasons);
        let mut config = MachineConfig::new("n1", kind, MAC);
        config.memory_mb = MEMORY_MB;
        let mut machine = scene.start(&config)?;
        let (boot, events) = scene.healthy(&mut machine, MAC).await?;
        ensure!(boot.firmware == Some(seen), "the firmware seen is {:?}", boot.firmware);
        let fetched: Vec<_> = events
            .iter()
            .filter(|event| (Phase::Loader..Phase::Init).contains(&event.phase))
            .collect();
        let least: u64 = told.files.iter().map(|file| file.size).sum();
        ensure!(
            matches!(fetched.as_slice(), [one] if one.detail == "uki" && one.bytes > Some(least)),
            "fetched was {fetched:?}, not one file of more than {least} bytes"
        );
        let said = told.cmdline.context("explain names no arguments")?;
        ensure!(said.ends_with(" kiln.case=uki"), "the arguments are {said}");
        let console = machine.console().text();
        ensure!(console.contains(&format!("Kernel command line: {said}")), "not with `{said}`");
        ensure!(!console.contains("iPXE"), "iPXE ran");
        ensure!(boot.version.is_some_and(|it| told.version.is_some_and(|v| v.contains(&it.hex()))));

        // Nobody else gets it: the token of the boot is in it.
        let server = format!("http://10.77.0.1:8080/uki/{}/{seen}.efi", MAC.dashed());
        ensure!(crate::rig::fetch(&server).await.is_err(), "another address got {server}");
        Ok(scene)
    })
}
