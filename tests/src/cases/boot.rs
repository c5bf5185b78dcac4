//! Real firmware boots the demo image, from power-on to `healthy`.

use anyhow::ensure;
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_inventory::{Firmware, Phase};
use kiln_types::{Arch, Mac};

use super::explain::{check, explain, step};
use crate::rig::{Case, Need, Scene, image};

pub(super) fn cases() -> Vec<Case> {
    [
        ("arm64_uefi_boots_by_pxe", Arch::Arm64, FirmwareKind::Uefi, Firmware::UefiArm64),
        ("arm64_uefi_boots_by_http", Arch::Arm64, FirmwareKind::Http, Firmware::UefiArm64Http),
        ("x86_64_uefi_boots_by_pxe", Arch::X86_64, FirmwareKind::Uefi, Firmware::UefiX64),
        ("x86_64_uefi_boots_by_http", Arch::X86_64, FirmwareKind::Http, Firmware::UefiX64Http),
        ("x86_64_bios_boots_by_pxe", Arch::X86_64, FirmwareKind::Bios, Firmware::Bios),
    ]
    .into_iter()
    .filter_map(|(name, arch, firmware, seen)| {
        let kind = MachineKind::new(arch, firmware).ok()?;
        let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(arch), Need::Program];
        Some(Case::new(format!("boot::{name}"), &needs, move || becomes_healthy(kind, seen)))
    })
    .collect()
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);

fn becomes_healthy(kind: MachineKind, seen: Firmware) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    Scene::play(vec![Scene::machine("n1", MAC, &image)], async |mut scene| {
        let before = explain(&scene, MAC, Some(seen))?;
        let mut machine = scene.power_on(kind, MAC)?;
        let (boot, events) = scene.healthy(&mut machine, MAC).await?;

        ensure!(boot.machine_name == "n1", "the boot is of {}", boot.machine_name);
        ensure!(boot.image.as_ref() == Some(&image), "it runs {:?}", boot.image);
        ensure!(boot.arch == Some(kind.arch()), "it runs {:?}", boot.arch);
        // iPXE in the card's ROM is the first that asks where there is a BIOS, so no loader is fetched.
        let mut expected = vec![
            Phase::Dhcp,
            Phase::Loader,
            Phase::Script,
            Phase::Kernel,
            Phase::Segment,
            Phase::Init,
            Phase::Modules,
            Phase::Link,
            Phase::Network,
            Phase::Volumes,
            Phase::Start,
            Phase::Onboot,
            Phase::Service,
            Phase::Healthy,
        ];
        if kind.firmware() == FirmwareKind::Bios {
            expected.retain(|phase| *phase != Phase::Loader);
        } else {
            ensure!(boot.firmware == Some(seen), "the firmware seen is {:?}", boot.firmware);
        }
        let mut phases: Vec<Phase> = events.iter().map(|event| event.phase).collect();
        ensure!(phases.last() == Some(&Phase::Healthy), "the timeline ends with {phases:?}");
        phases.sort_unstable();
        phases.dedup();
        ensure!(phases == expected, "the timeline has {phases:?}");

        // What explain says now is what the machine got, and what it said before was the same.
        let after = explain(&scene, MAC, None)?;
        check(&after, kind, &machine, &events).await?;
        for (before, after) in before.steps.iter().zip(&after.steps) {
            ensure!(
                before.version == after.version,
                "explain changed from {before:?} to {after:?}"
            );
            ensure!(before.files == after.files, "explain changed from {before:?} to {after:?}");
            ensure!(
                before.cmdline == after.cmdline,
                "explain changed from {before:?} to {after:?}"
            );
        }
        let version = boot.version.map(|version| version.to_string()).unwrap_or_default();
        let said = step(&after, 1)?.version.as_deref().unwrap_or_default();
        ensure!(said.ends_with(&version), "explain says {said}, it runs {version}");
        Ok(scene)
    })
}
