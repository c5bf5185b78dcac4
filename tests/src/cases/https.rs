//! Firmware fetches by HTTPS what it trusts, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineConfig, MachineKind};
use kiln::settings::HttpsSettings;
use kiln::tls::Authority;
use kiln_builder::output::{Certificate, secure_boot};
use kiln_builder::trust::KeyDir;
use kiln_inventory::{Outcome, Phase};
use kiln_ipxe::HttpsFor;
use kiln_types::{Arch, Mac};

use crate::rig::{Case, Need, Scene, image, store, until};

pub(super) fn cases() -> Vec<Case> {
    let Ok(kind) = MachineKind::new(Arch::X86_64, FirmwareKind::Http) else { return Vec::new() };
    let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(Arch::X86_64)];
    let run = move || boots_where_it_trusts(kind);
    vec![Case::new("https::x86_64_uefi_boots_by_https_and_refuses_another_ca", &needs, run)]
}

const TRUSTS: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
const DOES_NOT: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 2]);

/// Writes what firmware takes from qemu as the authorities that it trusts.
fn enrolled(keys: &KeyDir, path: &Path) -> anyhow::Result<Vec<String>> {
    let authority = Authority::open(keys)?;
    let certificate = Certificate::parse(authority.der().to_vec()).context("no certificate")?;
    fs::write(path, secure_boot::signature_list(&certificate, [7; 16]))?;
    let item = format!("name=etc/edk2/https/cacerts,file={}", path.display());
    Ok(vec!["-fw_cfg".to_owned(), item])
}

fn boots_where_it_trusts(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let folder = tempfile::tempdir()?;
    let ours = enrolled(&KeyDir::beside(&store()), &folder.path().join("ours"))?;
    let theirs = enrolled(&KeyDir::new(folder.path().join("keys")), &folder.path().join("theirs"))?;
    let https = HttpsSettings {
        port: 8443,
        urls: Some(HttpsFor::All),
        own: None,
        client_certificates: None,
        names: Vec::new(),
    };
    let machines = [("n1", TRUSTS), ("n2", DOES_NOT)];
    let machines = machines.map(|(name, mac)| Scene::machine(name, mac, &image)).to_vec();
    Scene::play_among(
        |_| Ok(()),
        |site| site.with_https(https),
        machines,
        async |mut scene| {
            let config = MachineConfig::new("n1", kind, TRUSTS);
            let mut machine = scene.start(&MachineConfig { more: ours, ..config })?;
            // Beside it, one that knows another authority: it gets no loader, and the server knows why.
            let config = MachineConfig::new("n2", kind, DOES_NOT);
            let other = scene.start(&MachineConfig { more: theirs, ..config })?;
            let (_, events) = scene.healthy(&mut machine, TRUSTS).await?;
            for phase in [Phase::Loader, Phase::Script, Phase::Kernel, Phase::Segment] {
                ensure!(events.iter().any(|event| event.phase == phase), "no {phase}: {events:?}");
            }
            let console = machine.console().text();
            for url in ["https://10.77.0.1:8443/loader/", "https://10.77.0.1:8443/script/"] {
                ensure!(console.contains(url), "no {url} on the console:\n{console}");
            }
            ensure!(!console.contains("http://10.77.0.1"), "not encrypted:\n{console}");
            drop(machine);

            let told = until(Scene::deadline(), async || {
                let boots = scene.inventory().boots(16).await?;
                let Some(newest) = boots.iter().find(|boot| boot.mac == DOES_NOT) else {
                    return Ok(None);
                };
                let Some((boot, events)) = scene.inventory().boot(newest.id).await? else {
                    return Ok(None);
                };
                let failed = events.into_iter().find(|event| event.phase == Phase::Failed);
                Ok(failed.filter(|_| boot.outcome == Outcome::Failed))
            });
            let told = told.await.with_context(|| {
                format!("the refusal is not told; the console:\n{}", other.console().tail(20))
            })?;
            ensure!(told.detail.contains("does not trust the certificate"), "{}", told.detail);
            Ok(scene)
        },
    )
}
