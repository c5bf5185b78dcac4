//! Running machines do what they are told: by a server that starts anew in between as well.

use std::fs;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, Machine, MachineKind, Site};
use kiln::settings::HttpsSettings;
use kiln_inventory::{Firmware, Order, OrderState, Outcome, Phase};
use kiln_types::{Arch, Mac};
use tokio::time::Instant;

use crate::rig::{Case, IMAGE, Need, Scene, image, kiln, store, until, work_folder};

pub(super) fn cases() -> Vec<Case> {
    [
        ("arm64_changes_version_without_its_firmware", Arch::Arm64, FirmwareKind::Uefi),
        ("x86_64_changes_version_without_its_firmware", Arch::X86_64, FirmwareKind::Bios),
    ]
    .into_iter()
    .filter_map(|(name, arch, firmware)| {
        let kind = MachineKind::new(arch, firmware).ok()?;
        let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(arch), Need::Program];
        Some(Case::new(format!("orders::{name}"), &needs, move || changes(kind)))
    })
    .collect()
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
/// The version that the machine changes to.
const NEXT: &str = "case-orders:next";

/// Builds the version to change to: its `onboot` container says `two`.
fn build(arch: Arch) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("orders-").tempdir_in(work_folder())?;
    let demo = fs::read_to_string(IMAGE)?;
    let text = demo.replace("busybox, uname, -srm]", "busybox, echo, two]");
    ensure!(text != demo, "the demo image has another command");
    let spec = folder.path().join("next.yml");
    fs::write(&spec, text)?;
    let (spec, store) = (spec.display().to_string(), store().display().to_string());
    let arch = arch.to_string();
    let built = kiln(&["build", &spec, "--name", NEXT, "--arch", &arch, "--store", &store])?;
    ensure!(built.code == Some(0), "{NEXT} is not built: {}", built.stderr);
    Ok(())
}

fn machine(scene: &Scene, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let socket = scene.socket();
    let mut all = vec!["machine"];
    let (before, after) = match arguments.iter().position(|argument| *argument == "--") {
        Some(at) => arguments.split_at(at),
        None => (arguments, [].as_slice()),
    };
    all.extend(before);
    all.extend(["--socket", &socket]);
    all.extend(after);
    let done = kiln(&all)?;
    Ok((done.code, done.stdout + &done.stderr))
}

/// What the machine's `onboot` container has said.
fn hello(scene: &Scene) -> anyhow::Result<String> {
    let (code, said) = machine(scene, &["logs", "n1", "hello", "-n", "5"])?;
    ensure!(code == Some(0), "no log: {said}");
    Ok(said)
}

async fn runs_on(scene: &Scene, machine: &mut Machine) -> anyhow::Result<()> {
    ensure!(machine.ended().is_none(), "qemu has ended: {}", machine.console().tail(30));
    let newest = scene.inventory().boots(1).await?;
    ensure!(newest[0].outcome == Outcome::Healthy, "the boot is {:?}", newest[0].outcome);
    Ok(())
}

fn changes(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    build(kind.arch())?;
    // One of them by TLS, which its firmware need not know of, and one without.
    let encrypted = kind.arch() == Arch::X86_64;
    let https = HttpsSettings {
        port: 8443,
        urls: None,
        own: None,
        client_certificates: None,
        names: Vec::new(),
    };
    let server = |site: Site| if encrypted { site.with_https(https) } else { site };
    let machines = vec![Scene::machine("n1", MAC, &image)];
    Scene::play_among(
        |_| Ok(()),
        server,
        machines,
        async |mut scene| {
            let (code, text) = machine(&scene, &["reboot", "n1", "--yes"])?;
            ensure!(code == Some(5) && text.contains("is not up"), "{code:?} {text}");
            let mut box_ = scene.power_on(kind, MAC)?;
            let (first, _) = scene.healthy(&mut box_, MAC).await?;
            let how = if encrypted { ":8443, encrypted" } else { ":8080, not encrypted" };
            let console = box_.console().text();
            ensure!(console.contains(how), "no `{how}` on the console:\n{console}");

            ensure!(hello(&scene)?.contains("Linux"), "the first version says {}", hello(&scene)?);
            for (arguments, expected, words) in [
                (&["run", "n1", "--", "/init"][..], Some(1), "run = true"),
                (&["logs", "n1", "nobody"], Some(1), "no `nobody` has printed anything"),
                (&["kexec", "n1", "--to", "nothing:here", "--yes"], Some(4), "no version"),
                (&["reboot", "n1"], Some(2), "n1 will start anew. Go on? Say so with --yes"),
            ] {
                let (code, text) = machine(&scene, arguments)?;
                ensure!(code == expected && text.contains(words), "{arguments:?}: {code:?} {text}");
            }
            runs_on(&scene, &mut box_).await?;

            let arguments = ["kexec", "n1", "--to", NEXT, "--yes", "--wait"];
            let begin = Instant::now();
            let (code, text) = machine(&scene, &arguments)?;
            let by_kexec = begin.elapsed();
            let console = || box_.console().tail(40);
            ensure!(code == Some(0), "kexec: {code:?} {text}\nthe console:\n{}", console());
            ensure!(text.contains("and is healthy"), "kexec says {text}");
            runs_on(&scene, &mut box_).await?;
            let newest = scene.inventory().boots(1).await?.remove(0);
            let (boot, events) =
                scene.inventory().boot(newest.id).await?.context("the boot is gone")?;
            ensure!(boot.id > first.id && boot.firmware == Some(Firmware::Kexec), "{boot:?}");
            ensure!(boot.version != first.version, "it runs the same version");
            let phases: Vec<Phase> = events.iter().map(|event| event.phase).collect();
            ensure!(phases.first() == Some(&Phase::Kexec), "the timeline is {phases:?}");
            for phase in [Phase::Kernel, Phase::Segment, Phase::Init, Phase::Healthy] {
                ensure!(phases.contains(&phase), "no {phase} in {phases:?}");
            }
            let loaders = [Phase::Loader, Phase::Script];
            ensure!(!phases.iter().any(|p| loaders.contains(p)), "the firmware ran: {phases:?}");
            ensure!(hello(&scene)?.contains("two"), "the next version says {}", hello(&scene)?);

            // The tokens of machines that are up outlive the server.
            let mut scene = scene.restart_server().await?;
            ensure!(hello(&scene)?.contains("two"), "nothing is heard after a restart");
            let begin = Instant::now();
            let (code, text) = machine(&scene, &["reboot", "n1", "--yes"])?;
            ensure!(code == Some(0), "reboot: {code:?} {text}");
            until(Scene::deadline(), async || Ok(box_.ended().map(drop))).await?;
            let orders = machine(&scene, &["orders", "n1", "-o", "json"])?.1;
            let orders: Vec<Order> =
                serde_json::from_str(&orders).with_context(|| orders.clone())?;
            let last = &orders[0];
            ensure!(last.state == OrderState::Done, "the last order is {last:?}");
            if std::env::var_os("KILN_BENCH_ROUNDS").is_some() {
                // The machine of this case ends where another would start anew.
                let mut again = scene.power_on(kind, MAC)?;
                until(Scene::deadline(), async || {
                    ensure!(
                        again.ended().is_none(),
                        "qemu has ended: {}",
                        again.console().tail(30)
                    );
                    let newest = scene.inventory().boots(1).await?;
                    let up = newest.first().is_some_and(|newest| {
                        newest.id > boot.id && newest.outcome == Outcome::Healthy
                    });
                    Ok(up.then_some(()))
                })
                .await?;
                compare(kind.arch(), by_kexec.as_secs_f64(), begin.elapsed().as_secs_f64());
            }
            Ok(scene)
        },
    )
}

/// Prints what `docs/benchmarks.md` quotes.
fn compare(arch: Arch, by_kexec: f64, by_firmware: f64) {
    eprintln!("| {arch}, order to healthy | seconds |");
    eprintln!("|---|---|");
    eprintln!("| reboot through the emulator's firmware and iPXE | {by_firmware:.1} |");
    eprintln!("| kexec | {by_kexec:.1} |");
    eprintln!("| ratio | {:.2} |", by_kexec / by_firmware);
}
