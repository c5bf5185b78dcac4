//! Machines that must not boot.

use anyhow::ensure;
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_inventory::Phase;
use kiln_types::{Arch, Mac};

use crate::rig::{Case, Need, Scene, kiln, loaders, until};

pub(super) fn cases() -> Vec<Case> {
    let Ok(bios) = MachineKind::new(Arch::X86_64, FirmwareKind::Bios) else { return Vec::new() };
    let needs = [Need::Root, Need::Machine(bios), Need::Program];
    vec![
        Case::new("refusal::a_wrong_architecture_is_refused_with_the_reason", &needs, move || {
            wrong_arch(bios)
        }),
        Case::new("refusal::a_machine_whose_image_is_not_built_waits", &needs[..2], move || {
            not_built(bios)
        }),
        Case::new("refusal::an_unknown_machine_gets_nothing", &needs[..2], move || unknown(bios)),
    ]
}

const KNOWN: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
const UNKNOWN: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 99]);

fn unknown(kind: MachineKind) -> anyhow::Result<()> {
    loaders()?;
    // It need not be built: neither machine comes so far.
    let image = "demo".parse()?;
    Scene::play(vec![Scene::machine("n1", KNOWN, &image)], async |mut scene| {
        let machine = scene.power_on(kind, UNKNOWN)?;
        let deadline = Scene::deadline();
        until(deadline, async || Ok(scene.inventory().last_sighting(UNKNOWN).await?)).await?;
        // SeaBIOS says this when iPXE in the ROM has given up.
        machine.console().wait_for("No bootable device", deadline).await?;
        let console = machine.console().text();
        ensure!(!console.contains("10.77.0."), "it got an address:\n{console}");
        ensure!(scene.leases().is_empty(), "there is a lease");
        ensure!(scene.inventory().boots(1).await?.is_empty(), "there is a boot");
        Ok(scene)
    })
}

fn wrong_arch(kind: MachineKind) -> anyhow::Result<()> {
    loaders()?;
    // It need not be built: neither machine comes so far.
    let image = "demo".parse()?;
    let mut machine = Scene::machine("n1", KNOWN, &image);
    machine.arch = Some(Arch::Arm64);
    Scene::play(vec![machine], async |mut scene| {
        let machine = scene.power_on(kind, KNOWN)?;
        let reason = "machine `n1` is set to arm64, but its firmware is bios and runs x86_64";
        machine.console().wait_for(reason, Scene::deadline()).await?;
        for boot in scene.inventory().boots(16).await? {
            let events = scene.inventory().boot(boot.id).await?.map(|(_, events)| events);
            let fetched = events
                .iter()
                .flatten()
                .any(|event| event.phase >= Phase::Kernel && event.phase < Phase::Failed);
            ensure!(!fetched, "it got a kernel: {events:?}");
        }
        let mac = KNOWN.to_string();
        let explain =
            kiln(&["machine", "explain", &mac, "--firmware", "bios", "--socket", &scene.socket()])?;
        ensure!(explain.stdout.contains(reason), "explain says {}", explain.stdout);
        Ok(scene)
    })
}

fn not_built(kind: MachineKind) -> anyhow::Result<()> {
    loaders()?;
    let image = "no-such-image".parse()?;
    Scene::play(vec![Scene::machine("n1", KNOWN, &image)], async |mut scene| {
        let machine = scene.power_on(kind, KNOWN)?;
        let deadline = Scene::deadline();
        machine.console().wait_for("image `no-such-image`", deadline).await?;
        // It asks again after a while instead of giving up.
        until(deadline, async || {
            let greetings = machine.console().text().matches("waits:").count();
            Ok((greetings > 1).then_some(()))
        })
        .await?;
        ensure!(scene.inventory().boots(1).await?.is_empty(), "there is a boot");
        Ok(scene)
    })
}
