//! Loaders other than iPXE, from power-on to `healthy`.

use anyhow::{Context, ensure};
use kiln::lab::{FirmwareKind, MachineConfig, MachineKind};
use kiln_inventory::{Firmware, LoaderChoice, NewMachine, Phase};
use kiln_types::{Arch, Mac};

use super::explain::{explain, step};
use crate::rig::{Case, Need, Scene, image};

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
    .collect()
}

/// Firmware, stub, kernel: no iPXE, one DHCP exchange before the system's own, and no file but the one.
fn one_file(kind: MachineKind, seen: Firmware) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let own = NewMachine {
        loader: LoaderChoice::Uki,
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
