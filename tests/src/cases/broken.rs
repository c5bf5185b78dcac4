//! Boots that are broken on purpose, one at each stage: `kiln boot show` says which stage it was, and why.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, Machine, MachineKind, Site};
use kiln_inventory::NewMachine;
use kiln_types::{Arch, ImageRef, Mac};
use serde_json::Value;

use super::loaders::shadow;
use crate::rig::{Case, IMAGE, Need, Scene, image, kiln, made, store, until, work_folder};

pub(super) fn cases() -> Vec<Case> {
    let kinds = [FirmwareKind::Bios, FirmwareKind::Uefi]
        .map(|firmware| MachineKind::new(Arch::X86_64, firmware).ok());
    let [Some(bios), Some(uefi)] = kinds else { return Vec::new() };
    let needs = [
        Need::Root,
        Need::Machine(bios),
        Need::Machine(uefi),
        Need::KilnInit(Arch::X86_64),
        Need::Program,
    ];
    let stages = "broken::a_boot_that_is_broken_at_each_stage_is_named_rightly";
    let panic = "broken::a_kernel_that_panics_is_named_by_its_last_words";
    vec![
        Case::new(stages, &needs, move || named(bios, uefi)),
        Case::new(panic, &needs, move || panics(bios)),
    ]
}

const fn mac(last: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0x77, 1, last])
}

const NO_LOADER: Mac = mac(1);
const SILENT: Mac = mac(2);
const ONBOOT: Mac = mac(3);
const HEALTH: Mac = mac(4);
const CORRUPT: Mac = mac(5);
const NO_KERNEL: Mac = mac(6);
const PANIC: Mac = mac(7);
/// What the demonstration's image does before its services.
const HELLO: &str = "    command: [/usr/bin/busybox, uname, -srm]\n";

/// Builds the demonstration's image with parts of it changed.
fn variant(folder: &Path, name: &str, changes: &[(&str, &str)]) -> anyhow::Result<ImageRef> {
    let mut text = fs::read_to_string(IMAGE)?;
    for (from, to) in changes {
        ensure!(text.contains(from), "the demo image has no `{from}`");
        text = text.replacen(from, to, 1);
    }
    let path = folder.join(format!("{name}.yml"));
    fs::write(&path, text)?;
    made(&path, Arch::X86_64)
}

/// A copy of the shared store, by links, whose loaders lack the one that UEFI wants.
fn lacking(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let own = shadow(folder)?;
    fs::remove_file(own.join("cache"))?;
    let loaders = own.join("cache/loaders");
    fs::create_dir_all(&loaders)?;
    for loader in fs::read_dir(store().join("cache/loaders"))? {
        let loader = loader?;
        if loader.file_name() != "ipxe-amd64.efi" {
            symlink(loader.path(), loaders.join(loader.file_name()))?;
        }
    }
    Ok(own)
}

/// Waits until a boot of a machine has a verdict, and returns what is shown of it.
async fn verdict(
    scene: &Scene,
    machine: &mut Machine,
    name: &str,
    cause: &str,
) -> anyhow::Result<String> {
    let socket = scene.socket();
    let mut last = String::new();
    let id = until(Scene::deadline(), async || {
        let listed = kiln(&["boot", "list", "-o", "json", "--socket", &socket])?;
        let rows: Value = serde_json::from_str(&listed.stdout).context(listed.stderr)?;
        let rows = rows.as_array().context("no list")?;
        let own = rows.iter().filter(|row| row["machine_name"] == name);
        let found = own.clone().find(|row| row["verdict"]["cause"] == cause);
        last = own.map(|row| row["verdict"].to_string()).collect();
        Ok(found.and_then(|row| row["id"].as_i64()))
    })
    .await
    .with_context(|| {
        let console = machine.console().tail(30);
        format!("{name} is not {cause} but {last}; the end of the console:\n{console}")
    })?;
    let shown = kiln(&["boot", "show", &id.to_string(), "--socket", &socket])?;
    ensure!(shown.stdout.contains(&format!("\nverdict: {cause}\n")), "{}", shown.stdout);
    Ok(shown.stdout)
}

fn says(shown: &str, words: &[&str]) -> anyhow::Result<()> {
    for words in words {
        ensure!(shown.contains(words), "no `{words}` in:\n{shown}");
    }
    Ok(())
}

fn named(bios: MachineKind, uefi: MachineKind) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("broken-").tempdir_in(work_folder())?;
    let demo = image(Arch::X86_64)?;
    let onboot = variant(
        folder.path(),
        "broken-onboot",
        &[(
            HELLO,
            "    command: [/usr/bin/busybox, sh, -c, \"echo no disk to format; exit 1\"]\n    on-failure: halt\n",
        )],
    )?;
    let health = variant(
        folder.path(),
        "broken-health",
        &[(
            "    restart: always\n",
            "    restart: always\n    health: {tcp: 127.0.0.1:81, interval: 1s}\n",
        )],
    )?;
    let shared = kiln_builder::Store::open(store())?;
    let index = shared.index()?;
    let entry = index.images.get(demo.name()).and_then(|arches| arches.get(&Arch::X86_64));
    let version = entry.and_then(|it| it.channels.get("latest")).context("it is not built")?;
    let manifest = shared.manifest(version)?;
    let own = lacking(folder.path())?;
    let blob = |digest: &kiln_types::Digest| own.join("blobs/sha256").join(digest.hex());

    let machines = vec![
        Scene::machine("no-loader", NO_LOADER, &demo),
        NewMachine {
            // No init, no other root: the kernel gives up and starts anew, which ends the machine here.
            cmdline: "rdinit=/nothing panic=-1".to_owned(),
            ..Scene::machine("silent", SILENT, &demo)
        },
        Scene::machine("onboot", ONBOOT, &onboot),
        Scene::machine("health", HEALTH, &health),
        Scene::machine("corrupt", CORRUPT, &demo),
        Scene::machine("no-kernel", NO_KERNEL, &demo),
    ];
    let site = |site: Site| site.with_store(&own);
    Scene::play_among(
        |_| Ok(()),
        site,
        machines,
        async |mut scene| {
            let mut first = scene.power_on(uefi, NO_LOADER)?;
            let mut second = scene.power_on(bios, SILENT)?;
            let shown = verdict(&scene, &mut first, "no-loader", "loader-missing").await?;
            says(&shown, &["firmware REQUEST, ACK 10.77.0.", "ipxe-amd64.efi", "[loaders] dir"])?;
            drop(first);

            let mut third = scene.power_on(bios, ONBOOT)?;
            until(Scene::deadline(), async || Ok(second.ended().map(drop))).await?;
            // It has said nothing; that it begins anew shows that nothing comes any more.
            let mut second = scene.power_on(bios, SILENT)?;
            let shown = verdict(&scene, &mut second, "silent", "silent-kernel").await?;
            says(&shown, &["were fetched, and no system was heard of", "serial console"])?;
            drop(second);
            let shown = verdict(&scene, &mut third, "onboot", "onboot-failed").await?;
            says(&shown, &["onboot hello ended with code 1; it said last: no disk to format"])?;
            drop(third);

            let mut fourth = scene.power_on(bios, HEALTH)?;
            // It has some segments in common with the one that is damaged next.
            fourth.console().wait_for("kiln-init: ", Scene::deadline()).await?;
            let last = manifest.segments.last().context("no segments")?;
            let mut bytes = fs::read(blob(&last.digest))?;
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
            fs::remove_file(blob(&last.digest))?;
            fs::write(blob(&last.digest), bytes)?;
            let mut fifth = scene.power_on(bios, CORRUPT)?;
            let shown = verdict(&scene, &mut fourth, "health", "service-unhealthy").await?;
            says(&shown, &["waits for web: ", "`health` of the image"])?;
            drop(fourth);
            let shown = verdict(&scene, &mut fifth, "corrupt", "not-whole").await?;
            says(&shown, &["of its initrd is missing", "kiln image verify"])?;
            drop(fifth);

            fs::remove_file(blob(&manifest.kernel.digest))?;
            let mut sixth = scene.power_on(bios, NO_KERNEL)?;
            let shown = verdict(&scene, &mut sixth, "no-kernel", "file-missing").await?;
            says(&shown, &["kernel: ", "the server cannot read it", "kiln image verify"])?;
            drop(sixth);
            let listed = kiln(&["boot", "list", "--socket", &scene.socket()])?.stdout;
            says(&listed, &["REASON", "onboot hello ended with code 1"])?;
            Ok(scene)
        },
    )
}

/// Its kernel sends what it prints to the server, and its last words are why it began anew.
fn panics(kind: MachineKind) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("panics-").tempdir_in(work_folder())?;
    let crash = "    command: [/usr/bin/busybox, sh, -c, \"echo c >/trigger\"]\n    \
                 binds: [/proc/sysrq-trigger:/trigger]\n";
    let modules = ("  modules: auto\n", "  modules: [auto, netconsole]\n");
    let image = variant(folder.path(), "broken-panic", &[modules, (HELLO, crash)])?;
    let machine = NewMachine {
        cmdline: "netconsole panic=1".to_owned(),
        ..Scene::machine("panics", PANIC, &image)
    };
    Scene::play(vec![machine], async |mut scene| {
        let mut first = scene.power_on(kind, PANIC)?;
        until(Scene::deadline(), async || Ok(first.ended().map(drop))).await?;
        let said = first.console().tail(40);
        let mut second = scene.power_on(kind, PANIC)?;
        let cause = verdict(&scene, &mut second, "panics", "crashed").await;
        let shown = cause.with_context(|| format!("the console of the first was:\n{said}"))?;
        says(&shown, &["crashed: Kernel panic - not syncing: sysrq triggered crash"])?;
        Ok(scene)
    })
}
