//! What `kiln machine explain` says is what a machine got: on its console, from HTTP, in its timeline.

use anyhow::{Context, ensure};
use kiln::explain::{Explanation, Step};
use kiln::lab::{FirmwareKind, Machine, MachineKind};
use kiln_builder::hash::sha256;
use kiln_inventory::{BootEvent, Firmware, Phase};
use kiln_types::{Arch, Digest, Mac};

use crate::rig::{Case, Need, Scene, fetch, image, kiln};

pub(super) fn cases() -> Vec<Case> {
    let Ok(uefi) = MachineKind::new(Arch::X86_64, FirmwareKind::Uefi) else { return Vec::new() };
    let needs = [Need::Root, Need::Machine(uefi), Need::KilnInit(Arch::X86_64), Need::Program];
    vec![Case::new(
        "explain::arguments_of_a_machine_follow_those_of_its_image",
        &needs,
        move || with_arguments(uefi),
    )]
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 2]);

fn with_arguments(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let mut own = Scene::machine("n2", MAC, &image);
    own.cmdline = "kiln.case=explain loglevel=7".to_owned();
    own.address = Some("10.77.0.42".parse()?);
    Scene::play(vec![own], async |mut scene| {
        let mut machine = scene.power_on(kind, MAC)?;
        let (_, events) = scene.healthy(&mut machine, MAC).await?;
        let explanation = explain(&scene, MAC, None)?;
        let said = step(&explanation, 1)?.cmdline.as_deref().unwrap_or_default();
        ensure!(said.ends_with(" kiln.case=explain loglevel=7"), "the arguments are {said}");
        check(&explanation, kind, &machine, &events).await?;
        ensure!(machine.console().shows("10.77.0.42"), "it did not get the address of its own");
        Ok(scene)
    })
}

/// Runs `kiln machine explain`. Without a firmware the server goes by what it has seen of the machine.
pub(super) fn explain(
    scene: &Scene,
    mac: Mac,
    firmware: Option<Firmware>,
) -> anyhow::Result<Explanation> {
    let (mac, socket) = (mac.to_string(), scene.socket());
    let firmware = firmware.map(|firmware| firmware.to_string());
    let mut arguments = vec!["machine", "explain", &mac, "--socket", &socket, "-o", "json"];
    if let Some(firmware) = &firmware {
        arguments.extend(["--firmware", firmware]);
    }
    let finished = kiln(&arguments)?;
    ensure!(finished.code == Some(0), "explain failed: {}", finished.stderr);
    serde_json::from_str(&finished.stdout)
        .with_context(|| format!("explain printed {}", finished.stdout))
}

/// Checks both steps of an explanation against what a healthy machine of this kind really got.
pub(super) async fn check(
    explanation: &Explanation,
    kind: MachineKind,
    machine: &Machine,
    events: &[BootEvent],
) -> anyhow::Result<()> {
    if kind.firmware() != FirmwareKind::Bios {
        loader(step(explanation, 0)?, machine, events)?;
    }
    let step = step(explanation, 1)?;
    let url = step.boot_file.as_deref().context("explain names no script")?;
    ensure!(
        machine.console().shows(url),
        "explain says that the script is {url}; the console ends with:\n{}",
        machine.console().tail(200)
    );
    let script = String::from_utf8(fetch(url).await?)?;
    files(step, &script, events).await?;
    arguments(step, &script, machine)
}

pub(super) fn step(explanation: &Explanation, number: usize) -> anyhow::Result<&Step> {
    explanation.steps.get(number).context("explain leaves out a step")
}

/// The firmware was sent to the file that explain names, and fetched it.
fn loader(step: &Step, machine: &Machine, events: &[BootEvent]) -> anyhow::Result<()> {
    let file = step.boot_file.as_deref().context("explain names no loader")?;
    // The firmware shows a URL as it is, and of TFTP the server and the path each on a line of its own.
    let shown = match file.strip_prefix("tftp://").and_then(|rest| rest.split_once('/')) {
        // It writes addresses of IPv6 in a form of its own.
        Some((server, path)) if server.starts_with('[') => vec![path.to_owned()],
        Some((server, path)) => {
            vec![format!("Server IP address is {server}"), format!("NBP filename is {path}")]
        }
        None => vec![file.to_owned()],
    };
    for text in shown {
        ensure!(
            machine.console().shows(&text),
            "explain says {file}, the console does not show `{text}`; it begins with:\n{}",
            machine.console().text().lines().take(40).collect::<Vec<_>>().join("\n")
        );
    }
    let name = file.rsplit('/').next().unwrap_or_default();
    let fetched = |event: &BootEvent| event.phase == Phase::Loader && event.detail == name;
    ensure!(events.iter().any(fetched), "explain says {file}, fetched was {events:?}");
    Ok(())
}

/// The script fetches the files that explain names, in that order and nothing else but the machine's own; HTTP serves
/// them with the digests and sizes that explain gives, and the machine took as many bytes of each.
async fn files(step: &Step, script: &str, events: &[BootEvent]) -> anyhow::Result<()> {
    let mut urls: Vec<&str> = script
        .lines()
        .filter(|line| line.starts_with("kernel ") || line.starts_with("initrd "))
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("http://")))
        .collect();
    // It comes before all that the kernel may have no room for.
    let own = urls.iter().position(|url| url.contains("/machine/"));
    ensure!(own == Some(1), "the machine's own file does not follow the kernel:\n{script}");
    urls.remove(1);
    ensure!(!step.files.is_empty(), "explain names no files");
    ensure!(
        urls.len() == step.files.len(),
        "explain names {} files, the script has:\n{script}",
        step.files.len()
    );
    for (file, url) in step.files.iter().zip(urls) {
        let digest: Digest = file.digest;
        ensure!(url.contains(&digest.hex()), "explain says {digest} for {}, not {url}", file.name);
        let bytes = fetch(url.split_once('?').map_or(url, |(url, _)| url)).await?;
        let length = u64::try_from(bytes.len())?;
        ensure!(sha256(&bytes) == digest, "{url} is not {digest}");
        ensure!(length == file.size, "explain says {} bytes for {url}, it has {length}", file.size);
        let took = |event: &BootEvent| {
            matches!(event.phase, Phase::Kernel | Phase::Segment)
                && event.detail == file.name
                && event.bytes == Some(file.size)
        };
        ensure!(
            events.iter().any(took),
            "the machine did not take {} bytes of {}: {events:?}",
            file.size,
            file.name
        );
    }
    let taken = events.iter().filter(|e| matches!(e.phase, Phase::Kernel | Phase::Segment)).count();
    ensure!(taken == step.files.len() + 1, "{taken} files were fetched: {events:?}");
    Ok(())
}

/// The kernel was started with the arguments that explain gives.
fn arguments(step: &Step, script: &str, machine: &Machine) -> anyhow::Result<()> {
    let said = step.cmdline.as_deref().context("explain names no arguments")?;
    let line = script.lines().find(|line| line.starts_with("kernel ")).unwrap_or_default();
    ensure!(line.contains(&format!(" {said} && ")), "explain says `{said}`, the script:\n{line}");
    // The kernel prints them while it starts; the loader may put the kernel's name in front.
    let console = machine.console().text();
    let mut shown = console.lines().filter_map(|line| line.split_once("Kernel command line: "));
    let shown = shown.next().map(|(_, shown)| shown.trim()).unwrap_or_default();
    let bare = shown.trim_start_matches("BOOT_IMAGE=").trim_start_matches("vmlinuz ");
    ensure!(bare == said, "explain says `{said}`, the kernel was given `{shown}`");
    Ok(())
}
