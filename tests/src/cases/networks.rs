//! Two networks on two interfaces and one behind a relay, at once, each answered from where it is.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use anyhow::{Context as _, bail, ensure};
use kiln::lab::{ADDRESS, BRIDGE, FirmwareKind, Lab, MachineConfig, MachineKind, Neighbour, Site};
use kiln::settings::{DiscoverySettings, SubnetSettings};
use kiln_inventory::{Lease, UnknownMachines};
use kiln_types::{Arch, Mac};
use serde_json::Value;

use crate::rig::{Case, Dnsmasq, Need, Scene, image, program};

/// How many machines that are not there ask on each wire, while a real one boots.
const RACK: usize = 40;
/// What a client of each network writes down of its answer.
const SAY: &str = "#!/bin/sh\n[ \"$1\" != bound ] || \
                   echo \"from=$serverid mask=$subnet router=$router dns=$dns\"";

/// A wire with a network of its own, by its third byte.
#[derive(Clone, Copy, Debug)]
struct Wire {
    bridge: &'static str,
    third: u8,
    /// The server's address there, or where its relay reaches it.
    server: Ipv4Addr,
    relay: bool,
    kind: (Arch, FirmwareKind),
}

const WIRES: [Wire; 3] = [
    Wire {
        bridge: BRIDGE,
        third: 0,
        server: ADDRESS,
        relay: false,
        kind: (Arch::X86_64, FirmwareKind::Bios),
    },
    Wire {
        bridge: "kiln1",
        third: 1,
        server: Ipv4Addr::new(10, 77, 1, 1),
        relay: false,
        kind: (Arch::X86_64, FirmwareKind::Uefi),
    },
    Wire {
        bridge: "kiln2",
        third: 2,
        server: ADDRESS,
        relay: true,
        kind: (Arch::X86_64, FirmwareKind::Bios),
    },
];
/// The relay, as the server sees it.
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

impl Wire {
    const fn at(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.third, host)
    }

    /// Returns the router that it tells, which is of this network alone.
    const fn router(self) -> Ipv4Addr {
        self.at(if self.relay { 2 } else { 1 })
    }

    const fn mac(self) -> Mac {
        Mac::new([0x52, 0x54, 0, 0x77, self.third, 1])
    }

    /// Returns the first address of its machines that are not there; the others follow.
    const fn rack(self) -> Mac {
        Mac::new([0x02, 0x4b, self.third, 0, 0, 0])
    }

    fn subnet(self) -> SubnetSettings {
        SubnetSettings {
            network: self.at(0),
            interface: if self.relay { BRIDGE } else { self.bridge }.to_owned(),
            address: self.server,
            relay: self.relay,
            pool: vec![self.at(100)..=self.at(199)],
            router: vec![self.router()],
            dns: vec![self.at(53)],
            ..Site::subnet()
        }
    }

    fn holds(self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(ip) if ip.octets().starts_with(&[10, 77, self.third]))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut needs = vec![
        Need::Root,
        Need::Program,
        Need::Tool("dnsmasq", "dnsmasq-base"),
        Need::Tool("udhcpc", "udhcpc"),
        Need::KilnInit(Arch::X86_64),
    ];
    let kinds =
        WIRES.into_iter().filter_map(|wire| MachineKind::new(wire.kind.0, wire.kind.1).ok());
    needs.extend(kinds.map(Need::Machine));
    let name = "networks::two_interfaces_and_a_relay_are_each_answered_rightly_at_once";
    vec![Case::new(name, &needs, play)]
}

fn play() -> anyhow::Result<()> {
    let image = image(Arch::X86_64)?;
    let name = |wire: Wire| format!("n{}", wire.third);
    let machines = WIRES.map(|wire| Scene::machine(&name(wire), wire.mac(), &image));
    let subnets = WIRES.map(Wire::subnet).to_vec();
    // Nobody has added the racks.
    let discovery =
        DiscoverySettings { unknown: UnknownMachines::Hold, ..DiscoverySettings::default() };
    let site = move |site: Site| site.with_subnets(subnets).with_discovery(discovery);
    Scene::play_among(wiring, site, machines.to_vec(), async |mut scene| {
        let mut started = Vec::new();
        for wire in WIRES {
            let kind = MachineKind::new(wire.kind.0, wire.kind.1)?;
            let mut config = MachineConfig::new(name(wire), kind, wire.mac());
            config.bridge = wire.bridge.to_owned();
            started.push((wire, scene.start(&config)?));
        }
        let racks = WIRES.map(|wire| Rack::start(&mut scene, wire));
        for rack in racks {
            rack?.was_answered()?;
        }
        for (wire, machine) in &mut started {
            let (boot, _) = scene.healthy(machine, wire.mac()).await?;
            ensure!(boot.address.is_some_and(|at| wire.holds(at)), "{wire:?}: {:?}", boot.address);
        }
        each_has_its_own(&scene.leases())?;
        Ok(scene)
    })
}

/// Makes the wires, the server's second interface, and the relay.
fn wiring(lab: &mut Lab) -> anyhow::Result<(Neighbour, Dnsmasq)> {
    let [near, second, far] = WIRES;
    lab.add_bridge(second.bridge)?;
    let own = format!("{}/24", second.server);
    lab.ip(&["address", "add", &own, "dev", second.bridge])?;
    lab.add_bridge(far.bridge)?;
    let [inside, outside] = [format!("{RELAY}/24"), format!("{}/24", far.router())];
    let relay = lab.add_neighbour(&[(near.bridge, &inside), (far.bridge, &outside)])?;
    lab.route(&format!("{}/24", far.at(0)), RELAY)?;
    let lines = format!("dhcp-relay={},{ADDRESS}\n", far.router());
    let dnsmasq = Dnsmasq::at(&relay, lab.directory(), &lines)?;
    Ok((relay, dnsmasq))
}

/// Many machines that only want an address, and a client that tells what it was answered, on one wire.
struct Rack {
    wire: Wire,
    many: Child,
    client: Child,
    // Last: the programs run in it.
    _host: Neighbour,
}

impl Rack {
    fn start(scene: &mut Scene, wire: Wire) -> anyhow::Result<Self> {
        let lab = scene.lab();
        let host = lab.add_neighbour(&[(wire.bridge, &format!("{}/24", wire.at(250)))])?;
        let count = RACK.to_string();
        let first = wire.rack().to_string();
        let many = host
            .command(program())
            .args(["simulate", "-o", "json", "--yes", "--interface", "p0", "--until", "address"])
            .args(["-n", &count, "--mac", &first])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run kiln simulate")?;
        let script = lab.directory().join(format!("say-{}", wire.third));
        fs::write(&script, SAY)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let client = host
            .command("udhcpc")
            .args(["-f", "-n", "-q", "-t", "20", "-T", "1", "-i", "p0", "-O", "dns", "-s"])
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run udhcpc")?;
        Ok(Self { wire, many, client, _host: host })
    }

    fn was_answered(self) -> anyhow::Result<()> {
        let Self { wire, many, client, _host } = self;
        let many = many.wait_with_output()?;
        let report: Value = serde_json::from_slice(&many.stdout)
            .with_context(|| String::from_utf8_lossy(&many.stderr).into_owned())?;
        ensure!(report["done"] == RACK, "{wire:?}: {report}");
        let said = client.wait_with_output()?;
        let all =
            [said.stdout, said.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        let expected = format!(
            "from={} mask=255.255.255.0 router={} dns={}",
            wire.server,
            wire.router(),
            wire.at(53)
        );
        ensure!(all[0].lines().any(|line| line == expected), "{wire:?}: not {expected}: {all:?}");
        Ok(())
    }
}

/// Looks that every lease is in the network of its machine, and none is missing.
fn each_has_its_own(leases: &[Lease]) -> anyhow::Result<()> {
    for wire in WIRES {
        let its = |mac: Mac| mac == wire.mac() || mac.octets()[..3] == wire.rack().octets()[..3];
        let own: Vec<&Lease> = leases.iter().filter(|lease| its(lease.mac)).collect();
        ensure!(own.len() == RACK + 1, "{wire:?} has {} leases", own.len());
        if let Some(lease) = own.iter().find(|lease| !wire.holds(lease.address.into())) {
            bail!("{} of {wire:?} is at {}", lease.mac, lease.address);
        }
    }
    Ok(())
}
