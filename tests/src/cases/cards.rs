//! Network cards that are not virtio, by the firmware's own means, the loader's and the system's.

use std::path::Path;

use anyhow::{Context, ensure};
use kiln::lab::{Card, FirmwareKind, MachineConfig, MachineKind};
use kiln_inventory::Phase;
use kiln_types::{Arch, Mac};

use crate::rig::{Case, Need, Scene, made};

const SPEC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/network/cards.yml");
const ARCH: Arch = Arch::X86_64;

pub(super) fn cases() -> Vec<Case> {
    [("e1000", Card::E1000), ("e1000e", Card::E1000e), ("rtl8139", Card::Rtl8139)]
        .into_iter()
        .filter_map(|(name, card)| {
            let kind = |firmware| MachineKind::new(ARCH, firmware).ok();
            let kinds = [kind(FirmwareKind::Bios)?, kind(FirmwareKind::Uefi)?];
            let mut needs = vec![Need::Root, Need::KilnInit(ARCH)];
            needs.extend(kinds.map(Need::Machine));
            let run = move || boots(kinds, card);
            Some(Case::new(format!("cards::{name}_boots_by_bios_and_by_uefi"), &needs, run))
        })
        .collect()
}

const MACS: [Mac; 2] =
    [Mac::new([0x52, 0x54, 0, 0x77, 0, 1]), Mac::new([0x52, 0x54, 0, 0x77, 0, 2])];

fn boots(kinds: [MachineKind; 2], card: Card) -> anyhow::Result<()> {
    let image = made(Path::new(SPEC), ARCH)?;
    let machines = [("bios", MACS[0]), ("uefi", MACS[1])];
    let machines = machines.map(|(name, mac)| Scene::machine(name, mac, &image)).to_vec();
    Scene::play(machines, async |mut scene| {
        let mut started = Vec::new();
        for (kind, mac) in kinds.into_iter().zip(MACS) {
            let mut config = MachineConfig::new(mac.dashed(), kind, mac);
            config.card = card;
            started.push((scene.start(&config)?, kind, mac));
        }
        for (machine, kind, mac) in &mut started {
            let (boot, events) = scene.reaches(machine, *mac, Phase::Init).await?;
            // In both the ROM asks by itself, as iPXE: Debian's OVMF has no driver of its own for these cards. The one of
            // 2019 cannot start a kernel on UEFI, and is sent to ours.
            let uefi = kind.firmware() == FirmwareKind::Uefi;
            let loaded = events.iter().any(|event| event.phase == Phase::Loader);
            ensure!(loaded == uefi, "{} loaded: {events:?}", machine.name());
            let seen = boot.firmware.context("no firmware")?;
            ensure!(seen.is_uefi() == uefi, "seen was {seen}");
        }
        Ok(scene)
    })
}
