//! Firmware fetches by HTTPS what it trusts, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, Lab, MachineConfig, MachineKind, Site};
use kiln::settings::HttpsSettings;
use kiln::tls::Authority;
use kiln_builder::output::{Certificate, secure_boot};
use kiln_builder::trust::KeyDir;
use kiln_inventory::{Outcome, Phase};
use kiln_ipxe::HttpsFor;
use kiln_types::{Arch, Mac};

use crate::rig::{Case, Dnsmasq, Need, Scene, image, store, until};

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, arch, run: fn(MachineKind) -> anyhow::Result<()>| {
        let kind = MachineKind::new(arch, FirmwareKind::Http).ok()?;
        let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(arch)];
        Some(Case::new(format!("https::{name}"), &needs, move || run(kind)))
    };
    let refuses = "x86_64_uefi_boots_by_https_and_refuses_another_ca";
    [
        case(refuses, Arch::X86_64, boots_where_it_trusts),
        case("arm64_uefi_boots_by_https", Arch::Arm64, |kind| boots(kind, false)),
        case("x86_64_uefi_boots_by_https_over_ipv6", Arch::X86_64, |kind| boots(kind, true)),
    ]
    .into_iter()
    .flatten()
    .collect()
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

/// These go by HTTPS.
fn https(urls: HttpsFor) -> HttpsSettings {
    HttpsSettings {
        port: 8443,
        urls: Some(urls),
        own: None,
        client_certificates: None,
        names: Vec::new(),
    }
}

/// A machine that trusts the site's authority boots, over one version of IP.
fn boots(kind: MachineKind, ipv6: bool) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let folder = tempfile::tempdir()?;
    let ours = enrolled(&KeyDir::beside(&store()), &folder.path().join("ours"))?;
    let site = |site: Site| {
        // iPXE takes no certificate for an address of IPv6.
        let site = site.with_https(https(if ipv6 { HttpsFor::Firmware } else { HttpsFor::All }));
        match ipv6 {
            true => site.with_subnets(Vec::new()).with_subnets6(vec![Site::subnet6()]),
            false => site,
        }
    };
    // HTTP Boot tries IPv4 first, and only an answer that leads nowhere makes it go on at once.
    let network = |lab: &mut Lab| ipv6.then(|| Dnsmasq::leads_nowhere(lab.directory())).transpose();
    let machines = vec![Scene::machine("n1", TRUSTS, &image)];
    Scene::play_among(network, site, machines, async |mut scene| {
        let config = MachineConfig::new("n1", kind, TRUSTS);
        let mut machine = scene.start(&MachineConfig { more: ours, ..config })?;
        let (_, events) = scene.reaches(&mut machine, TRUSTS, Phase::Init).await?;
        for phase in [Phase::Loader, Phase::Script, Phase::Kernel, Phase::Segment] {
            ensure!(events.iter().any(|event| event.phase == phase), "no {phase}: {events:?}");
        }
        let (loader, script) = match ipv6 {
            true => ("https://[fd77::1]:8443/loader/", "http://[fd77::1]:8080/script/"),
            false => ("https://10.77.0.1:8443/loader/", "https://10.77.0.1:8443/script/"),
        };
        let console = machine.console().text();
        for url in [loader, script] {
            ensure!(console.contains(url), "no {url} on the console:\n{console}");
        }
        ensure!(!console.contains("http://10.77.0.1:8080"), "not encrypted:\n{console}");
        Ok(scene)
    })
}

fn boots_where_it_trusts(kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let folder = tempfile::tempdir()?;
    let ours = enrolled(&KeyDir::beside(&store()), &folder.path().join("ours"))?;
    let theirs = enrolled(&KeyDir::new(folder.path().join("keys")), &folder.path().join("theirs"))?;
    let machines = [("n1", TRUSTS), ("n2", DOES_NOT)];
    let machines = machines.map(|(name, mac)| Scene::machine(name, mac, &image)).to_vec();
    Scene::play_among(
        |_| Ok(()),
        |site| site.with_https(https(HttpsFor::All)),
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
