//! Networks without IPv4: firmware, loader and system go by IPv6 all the way.

use std::process::{Child, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use kiln::lab::{BRIDGE, FirmwareKind, Lab, MachineConfig, MachineKind, Site};
use kiln_inventory::{Firmware, Lease6, Phase};
use kiln_types::{Arch, Mac};

use super::explain::{check, explain};
use crate::rig::{Case, Dnsmasq, Need, Scene, image, until};

pub(super) fn cases() -> Vec<Case> {
    let boots = [
        ("x86_64_uefi_boots_by_pxe", Arch::X86_64, FirmwareKind::Uefi, Firmware::UefiX64),
        ("x86_64_uefi_boots_by_http", Arch::X86_64, FirmwareKind::Http, Firmware::UefiX64Http),
        ("arm64_uefi_boots_by_pxe", Arch::Arm64, FirmwareKind::Uefi, Firmware::UefiArm64),
        ("arm64_uefi_boots_by_http", Arch::Arm64, FirmwareKind::Http, Firmware::UefiArm64Http),
    ]
    .into_iter()
    .filter_map(|(name, arch, firmware, seen)| {
        let kind = MachineKind::new(arch, firmware).ok()?;
        let mut needs = vec![Need::Root, Need::Machine(kind), Need::KilnInit(arch), Need::Program];
        if firmware == FirmwareKind::Http {
            needs.push(Need::Tool("dnsmasq", "dnsmasq-base"));
        }
        Some(Case::new(format!("ipv6::{name}"), &needs, move || becomes_healthy(kind, seen)))
    });
    let needs = [Need::Root, Need::Tool("dhclient", "isc-dhcp-client")];
    let client = Case::new(
        "ipv6::a_client_of_another_maker_gets_renews_and_gives_back_an_address",
        &needs,
        serves_another_client,
    );
    boots.chain([client]).collect()
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 9]);
const ADDRESS: &str = "fd77::42";

fn becomes_healthy(kind: MachineKind, seen: Firmware) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let mut machine = Scene::machine("n6", MAC, &image);
    machine.address6 = Some(ADDRESS.parse()?);
    let only_ipv6 = |site: Site| site.with_subnets(Vec::new()).with_subnets6(vec![Site::subnet6()]);
    // HTTP Boot tries IPv4 first, and only an answer that leads nowhere makes it go on at once.
    let nowhere = |lab: &mut Lab| {
        let http = kind.firmware() == FirmwareKind::Http;
        http.then(|| Dnsmasq::leads_nowhere(lab.directory())).transpose()
    };
    Scene::play_among(nowhere, only_ipv6, vec![machine], async |mut scene| {
        let mut config = MachineConfig::new("n6", kind, MAC);
        // Else the firmware waits a minute for an answer by IPv4 first.
        if kind.firmware() == FirmwareKind::Uefi {
            let without = "name=opt/org.tianocore/IPv4PXESupport,string=n";
            config.more = ["-fw_cfg", without].map(str::to_owned).to_vec();
        }
        let mut machine = scene.start(&config)?;
        let (boot, events) = scene.healthy(&mut machine, MAC).await?;
        ensure!(boot.firmware == Some(seen), "the firmware seen is {:?}", boot.firmware);
        // The reserved address, by firmware, by iPXE and by the system alike.
        let address = boot.address.map(|address| address.to_string());
        ensure!(address.as_deref() == Some(ADDRESS), "the boot is of {address:?}");
        // Nor did the system wait for IPv4.
        let network = events.iter().find(|event| event.phase == Phase::Network);
        let up = network.map(|event| event.detail.as_str());
        ensure!(up == Some(&format!("eth0 {ADDRESS}")), "the network is {up:?}");
        let askers: Vec<&str> = events
            .iter()
            .filter(|event| event.phase == Phase::Dhcp)
            .map(|event| event.detail.as_str())
            .collect();
        for asker in ["firmware", "ipxe", "system"] {
            let told = format!("{asker} gets {ADDRESS}");
            ensure!(askers.contains(&told.as_str()), "not `{told}` but {askers:?}");
        }
        ensure!(
            machine.console().shows("http://[fd77::1]:8080/"),
            "no URL with an address of IPv6; the console ends with:\n{}",
            machine.console().tail(60)
        );
        let (leases, _) = scene.inventory().leases6().await?;
        let ours = leases.iter().filter(|lease| lease.address.to_string() == ADDRESS);
        ensure!(ours.clone().count() == 1, "{leases:?}");
        ensure!(ours.clone().all(|lease| lease.mac == Some(MAC)), "{leases:?}");
        // What explain says now is what the machine got.
        let after = explain(&scene, MAC, None)?;
        check(&after, kind, &machine, &events).await?;
        Ok(scene)
    })
}

/// The name of the interface of a neighbour.
const PORT: &str = "p0";

/// ISC's client gets an address, renews it and gives it back; its kernel learns the network from our advertisements.
fn serves_another_client() -> anyhow::Result<()> {
    let mut subnet = Site::subnet6();
    // So short that it is renewed while we look; the settings allow no less than a minute.
    subnet.lease_time = Duration::from_secs(10);
    let site = |site: Site| site.with_subnets(Vec::new()).with_subnets6(vec![subnet]);
    let (send, receive) = std::sync::mpsc::channel();
    let neighbour = move |lab: &mut Lab| {
        let neighbour = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
        send.send((neighbour, lab.directory().to_owned()))?;
        Ok(())
    };
    Scene::play_among(neighbour, site, Vec::new(), async |scene| {
        let (neighbour, dir) = receive.recv()?;
        let ip = |arguments: &[&str]| -> anyhow::Result<String> {
            let output = neighbour.command("ip").args(arguments).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let deadline = Scene::deadline();
        until(deadline, async || {
            let addresses = ip(&["-6", "address", "show", "dev", PORT])?;
            let ready = addresses.contains("fe80::") && !addresses.contains("tentative");
            Ok(ready.then_some(()))
        })
        .await?;
        let client = |more: &[&str]| {
            let mut command = neighbour.command("dhclient");
            command.args(["-6", "-d", "-cf", "/dev/null", "-sf", "/bin/true"]);
            command.arg("-lf").arg(dir.join("dhclient6.leases"));
            command.arg("-pf").arg(dir.join("dhclient6.pid"));
            command.args(more).arg(PORT).stdin(Stdio::null()).stderr(Stdio::null());
            command
        };
        let mut asks = Ended(client(&[]).spawn().context("cannot run dhclient")?);
        let lease = async || -> anyhow::Result<Option<Lease6>> {
            let (leases, _) = scene.inventory().leases6().await?;
            ensure!(leases.len() <= 1, "one client has {leases:?}");
            Ok(leases.into_iter().next())
        };
        let first = until(deadline, lease).await.context("no lease")?;
        ensure!(first.address.segments()[6] == 1, "not of the pool: {first:?}");
        ensure!(first.mac.is_some(), "its hardware address is not known: {first:?}");
        let renewed = until(deadline, async || {
            Ok(lease().await?.filter(|lease| lease.expires > first.expires))
        });
        let renewed = renewed.await.context("not renewed")?;
        ensure!(renewed.address == first.address, "it was moved: {first:?} {renewed:?}");
        drop(asks.0.kill());
        drop(asks.0.wait());
        let released = client(&["-r"]).status()?;
        ensure!(released.success(), "dhclient -r: {released}");
        until(deadline, async || {
            let now = i64::try_from(UNIX_EPOCH.elapsed()?.as_secs())?;
            // Some seconds before it would have ended by itself.
            Ok(lease()
                .await?
                .filter(|lease| lease.expires <= now && lease.expires < renewed.expires))
        })
        .await
        .context("not given back")?;
        let routes = ip(&["-6", "route", "show", "dev", PORT])?;
        let told =
            routes.lines().any(|line| line.starts_with("fd77::/64") && line.contains("expires"));
        ensure!(told, "its kernel has not heard of the network:\n{routes}");
        ensure!(!routes.contains("default"), "we are no router:\n{routes}");
        Ok(scene)
    })
}

/// A program that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
