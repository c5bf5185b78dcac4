//! A machine that is powered on while the database of the inventory hangs: nothing of its boot waits for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln::settings::InventorySettings;
use kiln_inventory::Phase;
use kiln_types::{Arch, Mac};

use super::shared::postgres;
use crate::rig::{Case, Need, Scene, image, until};

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 3, 1]);

pub(super) fn cases() -> Vec<Case> {
    let Ok(bios) = MachineKind::new(Arch::X86_64, FirmwareKind::Bios) else { return Vec::new() };
    let needs = [
        Need::Root,
        Need::Machine(bios),
        Need::KilnInit(Arch::X86_64),
        Need::Tool("pg_lsclusters", "postgresql"),
    ];
    vec![Case::new(
        "outage::a_known_machine_boots_while_postgresql_hangs_and_its_boot_is_told_afterwards",
        &needs,
        move || boots(bios),
    )]
}

/// The processes of a PostgreSQL that are stopped, until this value is dropped.
struct Hanging(Vec<String>);

impl Hanging {
    fn all_of(folder: &Path) -> anyhow::Result<Self> {
        let file = fs::read_to_string(folder.join("data/postmaster.pid"))?;
        let first = file.lines().next().context("PostgreSQL does not run")?.trim().to_owned();
        // First the one that starts the others.
        let mut hanging = Self(Vec::new());
        hanging.stop(first.clone())?;
        for entry in fs::read_dir("/proc")? {
            let path: PathBuf = entry?.path();
            let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            if parent == Some(first.as_str()) {
                let process = path.file_name().context("a process without a number")?;
                hanging.stop(process.to_string_lossy().into_owned())?;
            }
        }
        ensure!(hanging.0.len() > 3, "{:?} are not all of PostgreSQL", hanging.0);
        Ok(hanging)
    }

    fn stop(&mut self, process: String) -> anyhow::Result<()> {
        let stopped = Command::new("kill").args(["-STOP", &process]).status()?;
        ensure!(stopped.success(), "process {process} cannot be stopped");
        self.0.push(process);
        Ok(())
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-CONT").args(&self.0).status();
    }
}

fn boots(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(Arch::X86_64)?;
    let (database, _until) = postgres()?;
    let folder = database.split_once("host=").and_then(|(_, rest)| rest.split('&').next());
    let folder = PathBuf::from(folder.context("the database has no socket")?);
    let inventory =
        InventorySettings { database: Some(database.parse()?), ..InventorySettings::default() };
    Scene::play_among(
        |_| Ok(()),
        |site| site.with_inventory(inventory),
        vec![Scene::machine("known", MAC, &image)],
        async |mut scene| {
            let hanging = Hanging::all_of(&folder)?;
            let mut machine = scene.power_on(kind, MAC)?;
            let booted = until(Scene::deadline(), async || {
                let status = machine.ended();
                ensure!(status.is_none(), "qemu ended: {}", machine.messages());
                Ok(machine.console().text().contains("kiln-init: healthy").then_some(()))
            });
            booted.await.with_context(|| machine.console().tail(40))?;
            // Its last report is still on its way when its console has the word; the database hangs meanwhile.
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            let back = kiln::boots::now_ms();
            drop(hanging);
            let (boot, events) = scene.healthy(&mut machine, MAC).await?;
            let healthy = events.iter().find(|event| event.phase == Phase::Healthy);
            ensure!(healthy.is_some_and(|event| event.at <= back), "it waited: {events:?}");
            ensure!(boot.started < back, "{boot:?}");
            for wanted in [Phase::Dhcp, Phase::Script, Phase::Kernel, Phase::Init] {
                ensure!(
                    events.iter().any(|event| event.phase == wanted),
                    "no {wanted}: {events:?}"
                );
            }
            Ok(scene)
        },
    )
}
