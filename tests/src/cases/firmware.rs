//! Firmware that the host need not have: that of Debian 13, the one with Secure Boot, and iPXE on top of a ROM.

use anyhow::{Context, ensure};
use kiln::lab::{ADDRESS, BRIDGE, FirmwareKind, Lab, MachineConfig, MachineKind};
use kiln_builder::output::Signing;
use kiln_builder::output::secure_boot::create_key;
use kiln_inventory::{Firmware, LoaderChoice, NewMachine, Phase};
use kiln_types::{Arch, Mac};

use super::uki::{FW_VARS, enrolled};
use crate::rig::{
    Case, Dnsmasq, Need, Scene, firmware_of_debian_13, image, kiln, secure_loaders, until,
};

pub(super) fn cases() -> Vec<Case> {
    let kind = |arch, firmware| MachineKind::new(arch, firmware).ok();
    let mut cases = Vec::new();
    for arch in [Arch::Arm64, Arch::X86_64] {
        let kinds = [kind(arch, FirmwareKind::Uefi), kind(arch, FirmwareKind::Http)];
        let [Some(pxe), Some(http)] = kinds else { continue };
        let needs = [Need::Root, Need::Machine(pxe), Need::KilnInit(arch)];
        let name = format!("firmware::{arch}_of_debian_13_boots_by_pxe_and_by_http");
        cases.push(Case::new(name, &needs, move || of_debian_13([pxe, http])));
    }
    if let Some(bios) = kind(Arch::X86_64, FirmwareKind::Bios) {
        let needs = [
            Need::Root,
            Need::Machine(bios),
            Need::KilnInit(Arch::X86_64),
            Need::Program,
            Need::Tool("dnsmasq", "dnsmasq-base"),
        ];
        let name = "firmware::x86_64_bios_boots_by_undionly";
        cases.push(Case::new(name, &needs, move || by_undionly(bios)));
    }
    for arch in [Arch::Arm64, Arch::X86_64] {
        let Some(uefi) = kind(arch, FirmwareKind::Uefi) else { continue };
        let needs = [Need::Root, Need::Machine(uefi), Need::KilnInit(arch)];
        let (sold_with, package) = microsoft(arch);
        let name = format!("firmware::{arch}_secure_boot_by_shim_and_grub");
        let shim = [&needs[..], &[Need::File(sold_with, package)]].concat();
        cases.push(Case::new(name, &shim, move || by_shim(uefi)));
        let name = format!("firmware::{arch}_secure_boot_by_a_uki_that_the_server_signs");
        let own = [&needs[..], &[FW_VARS]].concat();
        cases.push(Case::new(name, &own, move || by_signed_uki(uefi)));
    }
    cases
}

const MACS: [Mac; 2] =
    [Mac::new([0x52, 0x54, 0, 0x77, 0, 1]), Mac::new([0x52, 0x54, 0, 0x77, 0, 2])];

fn of_debian_13(kinds: [MachineKind; 2]) -> anyhow::Result<()> {
    let arch = kinds[0].arch();
    let (image, firmware) = (image(arch)?, firmware_of_debian_13(arch)?);
    let machines = [("pxe", MACS[0]), ("http", MACS[1])];
    let machines = machines.map(|(name, mac)| Scene::machine(name, mac, &image)).to_vec();
    Scene::play(machines, async |mut scene| {
        let mut started = Vec::new();
        for (kind, mac) in kinds.into_iter().zip(MACS) {
            let mut config = MachineConfig::new(mac.dashed(), kind, mac);
            config.uefi = Some(firmware.clone());
            started.push((scene.start(&config)?, kind, mac));
        }
        for (machine, kind, mac) in &mut started {
            let (boot, events) = scene.reaches(machine, *mac, Phase::Init).await?;
            let seen = boot.firmware;
            let is_http = seen.is_some_and(Firmware::is_http);
            ensure!(is_http == (kind.firmware() == FirmwareKind::Http), "seen was {seen:?}");
            ensure!(events.iter().any(|event| event.phase == Phase::Loader), "{events:?}");
            let console = machine.console().text();
            ensure!(console.contains("2025.02"), "another firmware:\n{console}");
        }
        Ok(scene)
    })
}

/// Returns variables with the keys that machines are sold with, and the package that has them.
const fn microsoft(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::X86_64 => ("/usr/share/OVMF/OVMF_VARS_4M.ms.fd", "ovmf"),
        Arch::Arm64 => ("/usr/share/AAVMF/AAVMF_VARS.ms.fd", "qemu-efi-aarch64"),
    }
}

/// Checks that the kernel, or on arm64 its EFI stub, says that Secure Boot is on.
fn is_checked(console: &str) -> anyhow::Result<()> {
    let said = ["secureboot: Secure boot enabled", "UEFI Secure Boot is enabled"];
    ensure!(said.iter().any(|it| console.contains(it)), "it was not checked:\n{console}");
    Ok(())
}

/// Nothing is enrolled: Microsoft's key vouches for shim, shim's for GRUB and for the kernel.
fn by_shim(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    secure_loaders()?;
    let own = NewMachine {
        loader: Some(LoaderChoice::Grub),
        cmdline: "kiln.case=grub".to_owned(),
        ..Scene::machine("n1", MACS[0], &image)
    };
    Scene::play(vec![own], async |mut scene| {
        let mut config = MachineConfig::new("n1", kind, MACS[0]);
        config.memory_mb = 1024;
        config.secure_boot = Some(microsoft(kind.arch()).0.into());
        let mut machine = scene.start(&config)?;
        let (_, events) = scene.reaches(&mut machine, MACS[0], Phase::Init).await?;
        let fetched: Vec<&str> = events
            .iter()
            .filter(|event| (Phase::Loader..Phase::Init).contains(&event.phase))
            .map(|event| event.detail.as_str())
            .collect();
        let name = image.to_string();
        let [shim, grub] = match kind.arch() {
            Arch::X86_64 => ["shimx64.efi", "grubx64.efi"],
            Arch::Arm64 => ["shimaa64.efi", "grubaa64.efi"],
        };
        let expected = [shim, grub, name.as_str(), "kernel", "initrd"];
        ensure!(fetched == expected, "it fetched {fetched:?}");
        let console = machine.console().text();
        ensure!(console.contains(" kiln.case=grub"), "another command line:\n{console}");
        is_checked(&console)?;
        Ok(scene)
    })
}

/// What iPXE says when it begins.
const BANNER: &str = "Open Source Network Boot Firmware";

/// Debian has no ROM for qemu but iPXE, which says so in DHCP and so gets its script at once. Here another server sends
/// it to our loader, which then has the card only by what the ROM left of its driver: as after the ROM of another maker.
fn by_undionly(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let (send, receive) = std::sync::mpsc::channel();
    let other = move |lab: &mut Lab| {
        let neighbour = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
        let lines = format!(
            "dhcp-authoritative\ndhcp-range=10.77.0.50,10.77.0.90,255.255.255.0\n\
             dhcp-boot=ipxe/undionly.kpxe,,{ADDRESS}\n"
        );
        let dnsmasq = Dnsmasq::at(&neighbour, lab.directory(), &lines)?;
        send.send((neighbour, dnsmasq))?;
        Ok(())
    };
    Scene::play_among(
        other,
        |site| site,
        Vec::new(),
        async |mut scene| {
            let others = receive.recv()?;
            let mut machine = scene.power_on(kind, MACS[0])?;
            let runs = until(Scene::deadline(), async || {
                let text = machine.console().text();
                Ok((text.matches(BANNER).count() > 1).then_some(text))
            });
            let text = runs.await.with_context(|| {
                format!("the loader does not run; the console:\n{}", machine.console().tail(30))
            })?;
            ensure!(text.contains("ipxe/undionly.kpxe"), "it came from elsewhere:\n{text}");
            drop(others);
            let (mac, image, socket) = (MACS[0].to_string(), image.to_string(), scene.socket());
            let add = ["machine", "add", "n1", "--mac", &mac, "--image", &image];
            let added = kiln(&[&add[..], &["--socket", &socket]].concat())?;
            ensure!(added.code == Some(0), "{}", added.stderr);
            let (boot, _) = scene.reaches(&mut machine, MACS[0], Phase::Init).await?;
            ensure!(boot.firmware == Some(Firmware::Bios), "seen was {:?}", boot.firmware);
            Ok(scene)
        },
    )
}

/// The site's own key is enrolled, and the server signs with it what it makes for the machine.
fn by_signed_uki(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let folder = tempfile::tempdir()?;
    let [private, certificate] = ["key.pem", "cert.pem"].map(|name| folder.path().join(name));
    let made = create_key("Kiln test")?;
    std::fs::write(&private, &made.key_pem)?;
    std::fs::write(&certificate, &made.certificate_pem)?;
    let variables = enrolled(kind.arch(), &certificate, folder.path())?;
    let signing = Signing::Key { key: private, certificate };
    let spec = Scene::machine("n1", MACS[0], &image);
    let own = NewMachine { loader: Some(LoaderChoice::Uki), ..spec };
    Scene::play_among(
        |_| Ok(()),
        |site| site.with_signing(signing),
        vec![own],
        async |mut scene| {
            let mut config = MachineConfig::new("n1", kind, MACS[0]);
            config.memory_mb = 1024;
            config.secure_boot = Some(variables);
            let mut machine = scene.start(&config)?;
            let (_, events) = scene.reaches(&mut machine, MACS[0], Phase::Init).await?;
            ensure!(events.iter().any(|event| event.detail == "uki"), "no UKI: {events:?}");
            is_checked(&machine.console().text())?;
            Ok(scene)
        },
    )
}
