//! A machine tells what it is made of, where its time went, and what its kernel wrote when something failed.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineConfig, MachineKind};
use kiln::net::FrameSocket;
use kiln_inventory::{Boot, Outcome};
use kiln_types::facts::Facts;
use kiln_types::{Arch, Mac};
use serde_json::Value;

use crate::rig::{Case, IMAGE, Need, Scene, kiln, made, until, work_folder};

pub(super) fn cases() -> Vec<Case> {
    [
        (
            "x86_64_tells_what_it_is_made_of_and_where_its_time_went",
            Arch::X86_64,
            FirmwareKind::Uefi,
        ),
        ("arm64_tells_what_it_is_made_of_and_where_its_time_went", Arch::Arm64, FirmwareKind::Http),
    ]
    .into_iter()
    .filter_map(|(name, arch, firmware)| {
        let kind = MachineKind::new(arch, firmware).ok()?;
        let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(arch), Need::Program];
        Some(Case::new(format!("facts::{name}"), &needs, move || told(kind)))
    })
    .collect()
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
/// The only machine has the first port of the bridge.
const PORT: &str = "kt0";
const NEAREST_BRIDGE: Mac = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
const LLDP: u16 = 0x88cc;
const UUID: &str = "11223344-5566-7788-99aa-bbccddeeff00";

/// What a switch says: chassis, port, time to live, name of the system, VLAN of the port, end.
const SWITCH: &[u8] =
    b"\x02\x07\x04\x02\x00\x00\xaa\xbb\xcc\x04\x0c\x05Ethernet1/7\x06\x02\x00\x78\
    \x0a\x05tor-3\xfe\x06\x00\x80\xc2\x01\x0f\xa0\x00\x00";

/// Adds a container that fails to the demonstration's image, which is no reason for it not to come up.
fn spec(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let demo = fs::read_to_string(IMAGE)?;
    let broken = "onboot:\n  - name: broken\n    deb: [busybox-static]\n    \
                  command: [/usr/bin/busybox, \"false\"]\n";
    let text = demo.replace("onboot:\n", broken);
    ensure!(text != demo, "the demo image has no onboot section");
    let path = folder.join("facts.yml");
    fs::write(&path, text)?;
    Ok(path)
}

fn told(kind: MachineKind) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("facts-").tempdir_in(work_folder())?;
    let image = made(&spec(folder.path())?, kind.arch())?;
    let disk = folder.path().join("disk.img");
    fs::File::create(&disk)?.set_len(64 << 20)?;
    let text = str::to_owned;
    let more = vec![
        text("-smbios"),
        format!("type=1,manufacturer=ACME,product=Box 3,version=2,serial=S-77,sku=K-1,uuid={UUID}"),
        text("-smbios"),
        text("type=17,loc_pfx=DIMM,manufacturer=Chips,serial=M-1,part=P-1,speed=3200"),
        text("-drive"),
        format!("if=none,id=disk0,format=raw,file={}", disk.display()),
        text("-device"),
        text("virtio-scsi-pci"),
        text("-device"),
        text("scsi-hd,drive=disk0,vendor=KILN,product=KD1,serial=D-4711,wwn=0x5000c500a1b2c3d4"),
    ];
    Scene::play(vec![Scene::machine("n1", MAC, &image)], async |mut scene| {
        let config = MachineConfig { more, ..MachineConfig::new(MAC.dashed(), kind, MAC) };
        let mut machine = scene.start(&config)?;
        let switch = FrameSocket::open(PORT)?;
        let found = until(Scene::deadline(), async || {
            ensure!(machine.ended().is_none(), "qemu ended: {}", machine.messages());
            // Nobody may be there to hear it yet.
            let _ = switch.send_frame(NEAREST_BRIDGE, LLDP, SWITCH);
            let boots = scene.inventory().boots(1).await?;
            let Some(boot) = boots.into_iter().find(|boot| boot.outcome == Outcome::Healthy) else {
                return Ok(None);
            };
            let Some(told) = scene.inventory().facts(boot.machine).await? else { return Ok(None) };
            let facts: Facts = serde_json::from_str(&told.facts)?;
            ensure!(told.boot == boot.id, "the facts are of boot {}", told.boot);
            let heard = facts.nics.iter().any(|nic| nic.switch.is_some());
            Ok(heard.then_some((boot, facts)))
        })
        .await;
        let (boot, facts) = found.with_context(|| {
            format!("no facts; the end of the console:\n{}", machine.console().tail(40))
        })?;
        is_described(kind, &facts).with_context(|| format!("the facts are {facts:#?}"))?;
        is_shown(&scene)?;
        adds_up(&scene, &boot)?;
        has_kernel_log(&scene, &boot)?;
        Ok(scene)
    })
}

/// Checks the facts against what qemu's command line says.
fn is_described(kind: MachineKind, facts: &Facts) -> anyhow::Result<()> {
    let system = &facts.system;
    for (is, wanted) in [
        (&system.vendor, "ACME"),
        (&system.product, "Box 3"),
        (&system.serial, "S-77"),
        (&system.sku, "K-1"),
        (&system.uuid, UUID),
        (&facts.firmware.kind, "uefi"),
        (&facts.virtualization, "qemu"),
    ] {
        // Arm's emulated boards and PCs without hardware help look different from inside.
        let is_hint = wanted == "qemu" && !is.is_empty();
        ensure!(is == wanted || is_hint, "{is:?} instead of {wanted:?}");
    }
    ensure!(!facts.firmware.vendor.is_empty(), "the firmware has no vendor");
    let module = facts.memory.modules.first().context("no memory module")?;
    ensure!(module.vendor == "Chips" && module.size == 640 << 20, "the module is {module:?}");
    ensure!(facts.memory.total > 400 << 20, "{} bytes of memory", facts.memory.total);
    ensure!(facts.cpu.threads >= 1 && facts.cpu.sockets >= 1, "the processor is {:?}", facts.cpu);
    let disk = facts.disks.iter().find(|disk| disk.serial == "D-4711").context("no disk")?;
    ensure!(disk.size == 64 << 20 && disk.transport == "virtio", "the disk is {disk:?}");
    ensure!(disk.wwn.ends_with("5000c500a1b2c3d4"), "the disk is {disk:?}");
    ensure!(disk.model == "KD1", "the disk is {disk:?}");
    let nic = facts.nics.first().context("no network card")?;
    ensure!(nic.mac == MAC.to_string() && nic.driver == "virtio_net", "the card is {nic:?}");
    ensure!(nic.carrier && nic.pci.starts_with("1af4:"), "the card is {nic:?}");
    let switch = nic.switch.as_ref().context("no switch port")?;
    ensure!(switch.chassis == "02:00:00:aa:bb:cc", "the port is {switch:?}");
    ensure!(switch.port == "Ethernet1/7" && switch.system == "tor-3", "the port is {switch:?}");
    ensure!(switch.vlan == Some(4000), "the port is {switch:?}");
    // The firmware for Arm may come without Secure Boot.
    let secure = facts.firmware.secure_boot.as_str();
    let known = matches!(secure, "setup" | "disabled");
    ensure!(
        known || (secure.is_empty() && kind.arch() == Arch::Arm64),
        "Secure Boot is {secure:?}"
    );
    Ok(())
}

fn is_shown(scene: &Scene) -> anyhow::Result<()> {
    let socket = scene.socket();
    for (command, wanted) in [
        (["machine", "facts", "n1"], ["tor-3 Ethernet1/7, VLAN 4000", "D-4711", "serial S-77"]),
        (
            ["machine", "show", "n1"],
            ["hardware ACME Box 3, serial S-77", "1 disk", "1 network card"],
        ),
    ] {
        let [noun, verb, name] = command;
        let shown = kiln(&[noun, verb, name, "--socket", &socket])?;
        for wanted in wanted {
            ensure!(
                shown.stdout.contains(wanted),
                "no {wanted} in {}{}",
                shown.stdout,
                shown.stderr
            );
        }
    }
    Ok(())
}

/// Checks that the steps of the boot are in order and add up to what it took.
fn adds_up(scene: &Scene, boot: &Boot) -> anyhow::Result<()> {
    let (id, socket) = (boot.id.to_string(), scene.socket());
    let json = kiln(&["boot", "show", &id, "-o", "json", "--socket", &socket])?;
    let table = kiln(&["boot", "show", &id, "--socket", &socket])?.stdout;
    let shown: Value = serde_json::from_str(&json.stdout).with_context(|| json.stderr.clone())?;
    let breakdown = &shown["breakdown"];
    let steps = breakdown["steps"].as_array().context("no steps")?;
    let number = |step: &Value, key: &str| step[key].as_i64().unwrap_or(-1);
    let sum: i64 = steps.iter().map(|step| number(step, "share")).sum();
    let took = boot.ended.context("the boot has no end")? - boot.started;
    ensure!(sum == took, "the steps add up to {sum}, the boot took {took}:\n{table}");
    ensure!(steps.is_sorted_by_key(|step| number(step, "from")), "not in order:\n{table}");
    let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    let mut left = names.iter();
    for wanted in [
        "firmware",
        "fetch ipxe",
        "loader",
        "script",
        "fetch kernel",
        "fetch machine",
        "handover",
        "kernel",
        "modules",
        "link",
        "network",
        "volumes",
        "failed",
        "onboot hello",
        "service web",
        "service listing",
    ] {
        ensure!(left.any(|name| name.starts_with(wanted)), "no {wanted} in its place:\n{table}");
    }
    let kernel = steps.iter().find(|step| step["name"] == "fetch kernel").context("no kernel")?;
    ensure!(number(kernel, "bytes") > 1 << 20, "the kernel is {kernel}");
    ensure!(table.contains("longest: "), "nothing is the longest:\n{table}");
    Ok(())
}

fn has_kernel_log(scene: &Scene, boot: &Boot) -> anyhow::Result<()> {
    let log = kiln(&["boot", "log", &boot.id.to_string(), "--socket", &scene.socket()])?;
    let first = log.stdout.lines().next().unwrap_or_default();
    ensure!(first.starts_with("[ ") && log.stdout.len() < 70 << 10, "the log is {log:?}");
    ensure!(log.stdout.contains("Linux version"), "the log does not go back to the start: {log:?}");
    Ok(())
}
