//! A machine that nobody has added appears, is approved by a rule, and boots.

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln::settings::DiscoverySettings;
use kiln_inventory::UnknownMachines;
use kiln_types::{Arch, Mac};

use crate::rig::{Case, Need, Scene, image, kiln, until};

pub(super) fn cases() -> Vec<Case> {
    let Ok(uefi) = MachineKind::new(Arch::X86_64, FirmwareKind::Uefi) else { return Vec::new() };
    let needs = [Need::Root, Need::Machine(uefi), Need::KilnInit(Arch::X86_64), Need::Program];
    let name = "discovery::an_unknown_machine_is_approved_by_a_rule_and_boots";
    vec![Case::new(name, &needs, move || approved(uefi))]
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 9]);

fn approved(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?.to_string();
    let discovery =
        DiscoverySettings { unknown: UnknownMachines::Hold, ..DiscoverySettings::default() };
    let site = move |site: kiln::lab::Site| site.with_discovery(discovery);
    Scene::play_among(
        |_| Ok(()),
        site,
        Vec::new(),
        async |mut scene| {
            let socket = scene.socket();
            let run = |arguments: &[&str]| {
                let all: Vec<&str> =
                    arguments.iter().copied().chain(["--socket", &socket]).collect();
                let finished = kiln(&all)?;
                ensure!(finished.code == Some(0), "{arguments:?}: {}", finished.stderr);
                Ok(finished.stdout)
            };
            run(&["group", "add", "r1", "--selector", "rack=r1", "--image", &image])?;
            run(&[
                "discovery",
                "rule",
                "add",
                "rack1",
                "--selector",
                "vendor=qemu,firmware=uefi-x64",
                "--action",
                "approve",
                "--name",
                "rack1-{n:02}",
                "--label",
                "rack=r1",
            ])?;
            let mut machine = scene.power_on(kind, MAC)?;
            let deadline = Scene::deadline();
            let found = until(deadline, async || {
                let machines = scene.inventory().machines().await?;
                Ok(machines.into_iter().next())
            });
            let found = found.await.context("nobody has approved the machine")?;
            ensure!(found.spec.name == "rack1-01", "it is called {}", found.spec.name);
            ensure!(found.spec.macs == [MAC].into(), "it has {:?}", found.spec.macs);
            ensure!(scene.inventory().discovered().await?.is_empty(), "it waits still");
            let listed = run(&["audit", "list"])?;
            ensure!(listed.contains("discovery rule rack1"), "the log of changes says {listed}");
            scene.healthy(&mut machine, MAC).await?;
            Ok(scene)
        },
    )
}
