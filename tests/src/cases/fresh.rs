//! A server that bakes the images of a folder, and machines that boot what is there.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kiln::bake::{BakeSettings, BuildWhen, Policy};
use kiln::lab::{FirmwareKind, Machine, MachineKind};
use kiln_types::{Arch, Mac};
use serde_json::Value;

use crate::rig::{Case, IMAGE, Need, Scene, image, kiln, program, store, until, work_folder};

pub(super) fn cases() -> Vec<Case> {
    let Ok(bios) = MachineKind::new(Arch::X86_64, FirmwareKind::Bios) else { return Vec::new() };
    let needs = [Need::Root, Need::Machine(bios), Need::KilnInit(Arch::X86_64), Need::Program];
    vec![Case::new(
        "fresh::the_next_boot_gets_what_was_edited_unless_that_is_broken",
        &needs,
        move || edits(bios),
    )]
}

const EDITED: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
const LAZY: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 2]);

/// Writes a specification whose `onboot` container says these words.
fn write(folder: &Path, image: &str, words: &str) -> anyhow::Result<()> {
    let demo = fs::read_to_string(IMAGE)?;
    let text = demo.replace("busybox, uname, -srm]", &format!("busybox, echo, {words}]"));
    ensure!(text != demo, "the demo image has another command");
    Ok(fs::write(folder.join(format!("{image}.yml")), text)?)
}

/// Lets a machine boot and returns what its `onboot` container said.
async fn boot(scene: &mut Scene, kind: MachineKind, mac: Mac) -> anyhow::Result<(String, Machine)> {
    let mut machine = scene.power_on(kind, mac)?;
    scene.healthy(&mut machine, mac).await?;
    // The server may hear of it before it is on the console.
    machine.console().wait_for("kiln-init: healthy", Scene::deadline()).await?;
    let console = machine.console().text();
    let said = console.lines().find_map(|line| line.trim_end().split_once("hello: "));
    let said =
        said.with_context(|| format!("nothing was said:\n{}", machine.console().tail(30)))?;
    let said = said.1.to_owned();
    Ok((said, machine))
}

fn edits(kind: MachineKind) -> anyhow::Result<()> {
    // Brings the packages; the server has no way to the mirror.
    image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("images-").tempdir_in(work_folder())?;
    let images = folder.path();
    let lock = images.join("edited.lock").display().to_string();
    let store_text = store().display().to_string();
    let made = kiln(&[
        "build",
        IMAGE,
        "--name",
        "edited:lock",
        "--arch",
        "x86_64",
        "--lock",
        &lock,
        "--store",
        &store_text,
    ])?;
    ensure!(made.code == Some(0), "no lock file: {}", made.stderr);
    fs::copy(&lock, images.join("lazy.lock"))?;
    // What an earlier run has left in the shared store.
    for image in ["edited", "lazy"] {
        kiln(&["image", "rm", image, "--yes", "--store", &store_text])?;
    }
    write(images, "edited", "one")?;
    write(images, "lazy", "lazy")?;
    let arch = vec![Arch::X86_64];
    let lazy = Policy { build: BuildWhen::OnBoot, arch: arch.clone(), ..Policy::default() };
    let bake = BakeSettings {
        dir: Some(images.to_owned()),
        program: Some(program()),
        policy: Policy { arch, ..Policy::default() },
        images: [("lazy".to_owned(), lazy)].into(),
        ..BakeSettings::default()
    };
    let machines = vec![
        Scene::machine("edited", EDITED, &"edited".parse()?),
        Scene::machine("lazy", LAZY, &"lazy".parse()?),
    ];
    Scene::play_with(bake, machines, async |mut scene| {
        // Nobody has asked for this one yet: the machine waits for it and then boots it.
        let (said, machine) = boot(&mut scene, kind, LAZY).await?;
        ensure!(said == "lazy", "it says {said}");
        let console = machine.console().text();
        ensure!(console.contains("image `lazy` for x86_64"), "it did not wait: {console}");
        drop(machine);

        let first = built(&scene, |_| true).await?;
        write(images, "edited", "two")?;
        let second = built(&scene, |version| version != first).await?;
        let (said, _) = boot(&mut scene, kind, EDITED).await?;
        ensure!(said == "two", "after the edit it says {said}");

        // One word of one container is another one, and no file beside those that say so.
        let (old, new) = (format!("edited@{first}"), format!("edited@{second}"));
        let compare = ["image", "diff", &old, &new, "--arch", "x86_64", "--store", &store_text];
        let diff = kiln(&[&compare[..], &["-o", "json"]].concat())?;
        let found: Value =
            serde_json::from_str(&diff.stdout).with_context(|| diff.stderr.clone())?;
        let files = found["files"].as_array().into_iter().flatten();
        let paths: Vec<_> = files.filter_map(|file| file["path"].as_str()).collect();
        let config = "containers/onboot/000-hello/config.json";
        ensure!(paths == [config, "etc/kiln/image.json"], "it says {paths:?}");
        let shown = kiln(&compare)?.stdout;
        ensure!(shown.lines().any(|line| line == format!("~ /{config}")), "it shows {shown}");

        let broken = images.join("edited.yml");
        let text = fs::read_to_string(&broken)?.replace("onboot:", "onbot:");
        fs::write(&broken, text)?;
        until(Scene::deadline(), async || Ok((state(&scene)?["status"] == "failed").then_some(())))
            .await?;
        let socket = scene.socket();
        let shown =
            kiln(&["image", "show", "edited", "--store", &store_text, "--socket", &socket])?;
        let why = "unknown key `onbot`; did you mean `onboot`?; what was built before is served";
        ensure!(shown.stdout.contains(why), "it shows {}{}", shown.stdout, shown.stderr);
        ensure!(shown.stdout.contains(&second), "{second} is not shown: {}", shown.stdout);
        let (said, _) = boot(&mut scene, kind, EDITED).await?;
        ensure!(said == "two", "with a broken edit it says {said}");

        write(images, "edited", "three")?;
        let third = built(&scene, |version| version != second).await?;
        let plan = ["image", "gc", "--dry-run", "--keep", "0", "-o", "json"];
        let place = ["--store", &store_text, "--socket", &socket];
        let planned = kiln(&[&plan[..], &place[..]].concat())?;
        ensure!(planned.code == Some(0), "gc says {}", planned.stderr);
        let goes = |version: &str| planned.stdout.contains(version);
        ensure!(goes(&first), "{first} was never booted, and stays: {}", planned.stdout);
        ensure!(!goes(&second), "{second} was booted, and goes: {}", planned.stdout);
        ensure!(!goes(&third), "{third} is the latest, and goes: {}", planned.stdout);
        Ok(scene)
    })
}

/// Returns what the server says of its builds of the image `edited`.
fn state(scene: &Scene) -> anyhow::Result<Value> {
    let builds = kiln(&["image", "builds", "-o", "json", "--socket", &scene.socket()])?;
    let all: Vec<Value> =
        serde_json::from_str(&builds.stdout).with_context(|| builds.stderr.clone())?;
    let edited = all.into_iter().find(|image| image["image"] == "edited");
    Ok(edited.map(|image| image["arches"]["x86_64"].clone()).unwrap_or_default())
}

/// Waits for a version that is not the one before.
async fn built(scene: &Scene, new: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    until(Scene::deadline(), async || {
        let state = state(scene)?;
        let version = state["version"].as_str().filter(|version| new(version));
        Ok(version.filter(|_| state["status"] == "built").map(str::to_owned))
    })
    .await
    .with_context(|| format!("the state is {:?}", state(scene)))
}
