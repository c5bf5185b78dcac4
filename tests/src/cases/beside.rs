//! Firmware boots beside another DHCP server, and from behind a relay.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::ensure;
use kiln::lab::{ADDRESS, BRIDGE, FirmwareKind, Lab, MachineConfig, MachineKind, Neighbour, Site};
use kiln::settings::{DhcpMode, SubnetSettings};
use kiln_inventory::{LoaderChoice, NewMachine, Phase};
use kiln_types::{Arch, Mac};

use crate::rig::{Case, Dnsmasq, Need, Scene, image};

/// How the machine gets its address.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From another server; the boot file is in our offer.
    Proxy,
    /// From another server; the boot file is told at port 4011.
    BootServer,
    /// From us, through a relay.
    Relay,
}

pub(super) fn cases() -> Vec<Case> {
    let ways = [
        ("boots_beside_another_dhcp_server", Way::Proxy),
        ("boots_by_port_4011", Way::BootServer),
        ("boots_behind_a_relay", Way::Relay),
    ];
    let firmware = [
        ("x86_64_bios", Arch::X86_64, FirmwareKind::Bios),
        ("x86_64_uefi", Arch::X86_64, FirmwareKind::Uefi),
        ("x86_64_uefi_http", Arch::X86_64, FirmwareKind::Http),
        ("arm64_uefi", Arch::Arm64, FirmwareKind::Uefi),
    ];
    let every = ways.into_iter().flat_map(|way| firmware.map(|firmware| (way, firmware)));
    let files =
        [("uefi_one_file", FirmwareKind::Uefi), ("uefi_one_file_by_http", FirmwareKind::Http)];
    let one_file = ways.into_iter().flat_map(|way| files.map(|file| (way, file)));
    let one_file = one_file.filter_map(|((does, way), (what, firmware))| {
        if firmware == FirmwareKind::Http && matches!(way, Way::Relay) {
            return None;
        }
        let kind = |arch| MachineKind::new(arch, firmware).ok();
        let kinds = [kind(Arch::X86_64)?, kind(Arch::Arm64)?];
        let needs = kinds.iter().flat_map(|&kind| {
            [Need::Root, Need::Machine(kind), Need::KilnInit(kind.arch()), DNSMASQ]
        });
        // HTTP Boot is told all at port 67, also where PXE is sent to another port.
        let does = match (firmware, way) {
            (FirmwareKind::Http, Way::BootServer) => "boots_where_pxe_is_sent_to_port_4011",
            _ => does,
        };
        let name = format!("beside::{what}_{does}");
        Some(Case::new(name, &needs.collect::<Vec<_>>(), move || boots_one_file(way, kinds)))
    });
    every
        .filter_map(|((does, way), (what, arch, firmware))| {
            // HTTP Boot knows no port 4011, and a relay changes nothing about it.
            if firmware == FirmwareKind::Http && !matches!(way, Way::Proxy) {
                return None;
            }
            let kind = MachineKind::new(arch, firmware).ok()?;
            let needs = [Need::Root, Need::Machine(kind), Need::KilnInit(arch), DNSMASQ];
            let run = move || becomes_healthy(way, kind);
            Some(Case::new(format!("beside::{what}_{does}"), &needs, run))
        })
        .chain(one_file)
        .collect()
}

const DNSMASQ: Need = Need::Tool("dnsmasq", "dnsmasq-base");
const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The bridge behind the relay, and its network.
const FAR: &str = "kiln1";
const FAR_NETWORK: &str = "10.78.0.0/24";

fn becomes_healthy(way: Way, kind: MachineKind) -> anyhow::Result<()> {
    let image = image(kind.arch())?;
    let machines = vec![Scene::machine("n1", MAC, &image)];
    let network = |lab: &mut Lab| neighbourhood(way, lab);
    Scene::play_among(
        network,
        |site| site.with_subnets(subnets(way)),
        machines,
        async |mut scene| {
            let mut config = MachineConfig::new("n1", kind, MAC);
            if matches!(way, Way::Relay) {
                config.bridge = FAR.to_owned();
            }
            let mut machine = scene.start(&config)?;
            let (boot, events) = scene.healthy(&mut machine, MAC).await?;
            let expected = if matches!(way, Way::Relay) { [10, 78, 0] } else { [10, 77, 0] };
            let has = boot.address;
            let is_there =
                |address| matches!(address, IpAddr::V4(ip) if ip.octets().starts_with(&expected));
            ensure!(has.is_some_and(is_there), "it is at {has:?}");
            let leases = scene.leases();
            ensure!(leases.is_empty() != matches!(way, Way::Relay), "the leases are {leases:?}");
            let loaders = events.iter().filter(|event| event.phase == Phase::Loader).count();
            let fetches = usize::from(kind.firmware() != FirmwareKind::Bios);
            ensure!(loaders >= fetches, "the loader is not in the timeline");
            Ok(scene)
        },
    )
}

/// A machine of each architecture gets the one file that is made for it, by the address that another server or the
/// relay stands between.
fn boots_one_file(way: Way, kinds: [MachineKind; 2]) -> anyhow::Result<()> {
    let macs = [MAC, Mac::new([0x52, 0x54, 0, 0x77, 0, 2])];
    let mut machines = Vec::new();
    for (kind, mac) in kinds.into_iter().zip(macs) {
        let spec = Scene::machine(&format!("n{}", machines.len()), mac, &image(kind.arch())?);
        machines.push(NewMachine { loader: Some(LoaderChoice::Uki), ..spec });
    }
    let network = |lab: &mut Lab| neighbourhood(way, lab);
    let site = |site: Site| site.with_subnets(subnets(way));
    Scene::play_among(network, site, machines, async |mut scene| {
        let mut started = Vec::new();
        for (kind, mac) in kinds.into_iter().zip(macs) {
            let mut config = MachineConfig::new(mac.dashed(), kind, mac);
            // Firmware, stub and kernel each have a copy of the image for a while.
            config.memory_mb = 1024;
            if matches!(way, Way::Relay) {
                config.bridge = FAR.to_owned();
            }
            started.push((scene.start(&config)?, mac));
        }
        for (machine, mac) in &mut started {
            let (_, events) = scene.reaches(machine, *mac, Phase::Init).await?;
            let fetched: Vec<&str> = events
                .iter()
                .filter(|event| (Phase::Loader..Phase::Init).contains(&event.phase))
                .map(|event| event.detail.as_str())
                .collect();
            ensure!(fetched == ["uki"], "{} fetched {fetched:?}", machine.name());
        }
        let leases = scene.leases();
        ensure!(leases.is_empty() != matches!(way, Way::Relay), "the leases are {leases:?}");
        Ok(scene)
    })
}

/// Returns what the server is told of the network.
fn subnets(way: Way) -> Vec<SubnetSettings> {
    let near = Site::subnet();
    match way {
        Way::Proxy => vec![SubnetSettings { dhcp: DhcpMode::Proxy, ..near }],
        Way::BootServer => {
            vec![SubnetSettings { dhcp: DhcpMode::Proxy, boot_server: true, ..near }]
        }
        Way::Relay => {
            let far = SubnetSettings {
                network: Ipv4Addr::new(10, 78, 0, 0),
                relay: true,
                pool: vec![Ipv4Addr::new(10, 78, 0, 100)..=Ipv4Addr::new(10, 78, 0, 199)],
                router: vec![Ipv4Addr::new(10, 78, 0, 2)],
                ..near.clone()
            };
            vec![near, far]
        }
    }
}

/// Makes the other server, or the relay.
fn neighbourhood(way: Way, lab: &mut Lab) -> anyhow::Result<(Neighbour, Dnsmasq)> {
    let near = (BRIDGE, "10.77.0.2/24");
    if matches!(way, Way::Relay) {
        lab.add_bridge(FAR)?;
        let relay = lab.add_neighbour(&[near, (FAR, "10.78.0.2/24")])?;
        lab.route(FAR_NETWORK, NEIGHBOUR)?;
        let lines = format!("dhcp-relay=10.78.0.2,{ADDRESS}\n");
        let dnsmasq = Dnsmasq::at(&relay, lab.directory(), &lines)?;
        return Ok((relay, dnsmasq));
    }
    let server = lab.add_neighbour(&[near])?;
    let lines = "dhcp-authoritative\ndhcp-range=10.77.0.50,10.77.0.90,255.255.255.0\n\
                 dhcp-option=option:router,10.77.0.1\n";
    let dnsmasq = Dnsmasq::at(&server, lab.directory(), lines)?;
    Ok((server, dnsmasq))
}
