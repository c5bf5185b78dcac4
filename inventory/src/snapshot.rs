mod known;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use self::known::Known;
use crate::effective::beaten::{BeatenRow, beaten};
use crate::identity::{other_number, telling_number};
use crate::{
    Artifact, Asker, Bake, Effective, Group, Loader, Machine, MachineId, Netconsole, NewMachine,
    Sighting, netconsole,
};

/// Everything that a decision depends on, at one moment. Cheap to share and never changed: a new one replaces it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    known: Arc<Known>,
    /// The number of the newest change of the inventory that it has in it; 0 where nobody has said.
    pub change: i64,
    /// What each image and channel names, by architecture.
    pub images: BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>,
    /// What machines get that the inventory does not know.
    pub unknown: UnknownMachines,
    /// The version that each cordoned machine last ran well, where it is still there.
    pub kept: HashMap<MachineId, Kept>,
    /// What the server is about to build, by name of the image and architecture.
    pub bakes: BTreeMap<String, BTreeMap<Arch, Bake>>,
    /// The loaders that the server has no files of, by architecture.
    pub absent: Vec<(Loader, Arch)>,
    /// What machines run that nobody has added, where they run something.
    pub stranger: Option<Arc<Effective>>,
    /// Where the server hears what kernels print, if it does.
    pub netconsole: Option<Netconsole>,
    /// Interfaces of machines that nobody has added and that get no answer, whatever others get.
    pub ignored: HashSet<Mac>,
}

impl Snapshot {
    /// Indexes the machines, none of which is in a group. Where two of them claim one address, the older machine has it.
    pub fn new(
        machines: Vec<Arc<Machine>>,
        images: BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>,
        unknown: UnknownMachines,
    ) -> Self {
        Self::with_groups(machines, &[], images, unknown)
    }

    /// Indexes the machines, and lays their settings over those of their groups.
    pub fn with_groups(
        machines: Vec<Arc<Machine>>,
        groups: &[Group],
        images: BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>,
        unknown: UnknownMachines,
    ) -> Self {
        let known = Arc::new(Known::new(machines, groups.to_vec()));
        Self { known, images, unknown, ..Self::default() }
    }

    /// Returns the same with some machines as they are after a change of the inventory, or without them, and with other
    /// groups where there are some. All that did not change is shared.
    #[must_use]
    pub fn changed(
        &self,
        change: i64,
        machines: Vec<(MachineId, Option<Machine>)>,
        groups: Option<Vec<Group>>,
    ) -> Self {
        let known = match (machines.is_empty(), &groups) {
            (true, None) => self.known.clone(),
            _ => Arc::new(self.known.changed(machines, groups)),
        };
        Self { known, change, ..self.clone() }
    }

    /// Returns the machine that has an interface with this hardware address.
    pub fn machine_by_mac(&self, mac: Mac) -> Option<&Arc<Machine>> {
        self.known.machine(*self.known.index.by_mac.get(&mac)?)
    }

    /// Returns the settings that hold for a machine.
    pub fn settings_of(&self, id: MachineId) -> Option<&Arc<Effective>> {
        let index = self.known.machines.binary_search_by_key(&id, |machine| machine.id).ok()?;
        self.known.settings.get(index)
    }

    /// Returns what is said of a machine and does not count, because something stronger says otherwise.
    pub fn beaten(&self, machine: &Machine) -> Vec<BeatenRow> {
        beaten(&self.known.groups, machine)
    }

    /// Returns the machine that has an interface with this hardware address, and the settings that hold for it.
    pub fn known(&self, mac: Mac) -> Option<(&Arc<Machine>, &Arc<Effective>)> {
        let place = *self.known.index.by_mac.get(&mac)?;
        Some((self.known.machine(place)?, self.known.settings(place)?))
    }

    /// Returns the machine whose name, address and DHCP options a client gets: the one with its hardware address, else
    /// the one with its UUID, its client identifier, or its port of a switch. What the client boots goes by its hardware
    /// address alone (see [`decide`](crate::decide)), since later requests tell no more.
    pub fn claimed_by(&self, claim: &Claim<'_>) -> Option<&Arc<Machine>> {
        let index = &self.known.index;
        let by_uuid =
            || claim.uuids.iter().find_map(|uuid| index.by_uuid.get(&telling_number(uuid)?));
        let place = index
            .by_mac
            .get(&claim.mac)
            .or_else(by_uuid)
            .or_else(|| index.by_client_id.get(claim.client_id?))
            .or_else(|| index.by_circuit_id.get(claim.circuit_id?))?;
        self.known.machine(*place)
    }

    /// Returns what stands for a machine that nobody has added while it runs the discovery image, and its settings. It has
    /// no disk to write to, and no group.
    pub(crate) fn stranger(&self, sighting: &Sighting) -> Option<(Arc<Machine>, Arc<Effective>)> {
        let mac = sighting.mac;
        let settings = self.stranger.as_ref().filter(|_| {
            self.unknown == UnknownMachines::Boot
                && sighting.asker != Asker::System
                && mac.is_unicast()
                && !self.ignored.contains(&mac)
                && self.machine_by_mac(mac).is_none()
        })?;
        let digits: String = mac.octets().iter().map(|octet| format!("{octet:02x}")).collect();
        let mut spec = NewMachine::new(format!("unknown-{digits}"), [mac]);
        spec.image = settings.image.as_ref().map(|said| said.value.clone());
        let machine = Machine { id: MachineId::of_unknown(mac), revision: 0, spec };
        Some((Arc::new(machine), settings.clone()))
    }

    /// Returns the machine that a UUID names, in whatever order of bytes it is told. One that is void or that two machines
    /// have names none.
    pub fn machine_by_uuid(&self, uuid: &str) -> Option<&Arc<Machine>> {
        let uuid = telling_number(uuid)?;
        let by_uuid = &self.known.index.by_uuid;
        let place = by_uuid.get(&uuid).or_else(|| by_uuid.get(&other_number(uuid)))?;
        self.known.machine(*place)
    }

    /// Puts what the kernel reads in the place of the word `netconsole` among arguments, where the server hears it.
    pub fn with_netconsole(&self, arguments: &str) -> String {
        netconsole::settle(arguments, self.netconsole).0
    }

    /// Returns whether an address is reserved for some machine.
    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.known.index.reserved.contains(&address)
    }

    /// The same for an address of IPv6.
    pub fn is_reserved6(&self, address: Ipv6Addr) -> bool {
        self.known.index.reserved6.contains(&address)
    }

    /// Returns every machine, oldest first.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.known.machines
    }

    /// Returns the same as [`machines`](Self::machines), for who keeps them longer than the snapshot.
    pub fn shared_machines(&self) -> Arc<[Arc<Machine>]> {
        self.known.machines.clone()
    }
}

/// By what a DHCP client can be known.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Hardware address.
    pub mac: Mac,
    /// SMBIOS UUID, in each order of bytes that firmware may have meant.
    pub uuids: &'a [String],
    /// What it calls itself.
    pub client_id: Option<&'a [u8]>,
    /// Port of a switch.
    pub circuit_id: Option<&'a [u8]>,
}

/// One version of an image: what its manifest says that matters to booting it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageVersion {
    /// Digest of the manifest.
    pub version: Digest,
    /// The kernel.
    pub kernel: Artifact,
    /// Whether UEFI can start the kernel: it has an EFI stub.
    pub efi_stub: bool,
    /// The initrd, in order.
    pub segments: Vec<Artifact>,
    /// Kernel arguments.
    pub cmdline: String,
}

/// A version that a machine stays at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The image that it ran, by the channel that it came by.
    pub image: ImageRef,
    /// What it was built for.
    pub arch: Arch,
    /// The version; without one it is no longer in the store.
    pub version: Option<Arc<ImageVersion>>,
}

/// What machines get that the inventory does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownMachines {
    /// No answer to anything that wants to boot. It is recorded.
    #[default]
    Ignore,
    /// An address and a script that shows how to add the machine, and asks again until someone does.
    Hold,
    /// The discovery image, which tells what the machine is made of. It may write to no disk.
    Boot,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_thousand_machines_is_found_by_what_it_tells() {
        let machine = |number: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            let spec = NewMachine {
                uuid: Some(format!("4C4C4544-0000-1000-8000-{number:012X}")),
                address: Some(Ipv4Addr::from_bits(0x0a00_0000 + number)),
                address6: Some(Ipv6Addr::from_bits(u128::from(number) + 1)),
                ..NewMachine::new(format!("node-{number}"), [Mac::new([2, 0, 0, a, b, c])])
            };
            Arc::new(Machine { id: MachineId(i64::from(number) + 1), revision: 1, spec })
        };
        let all = (0..100_000).rev().map(machine).collect();
        let snapshot = Snapshot::new(all, BTreeMap::new(), UnknownMachines::Ignore);
        assert_eq!(snapshot.machines().len(), 100_000);
        for number in [0, 1, 65_535, 99_999] {
            let wanted = machine(number);
            let mac = *wanted.spec.macs.first().unwrap();
            assert_eq!(snapshot.machine_by_mac(mac), Some(&wanted));
            let uuids = [wanted.spec.uuid.clone().unwrap().to_lowercase()];
            let claim =
                Claim { mac: Mac::new([6; 6]), uuids: &uuids, client_id: None, circuit_id: None };
            assert_eq!(snapshot.claimed_by(&claim), Some(&wanted));
            assert!(snapshot.is_reserved(wanted.spec.address.unwrap()));
            assert!(snapshot.is_reserved6(wanted.spec.address6.unwrap()));
        }
        assert!(!snapshot.is_reserved([10, 9, 0, 0].into()));
        assert!(!snapshot.is_reserved6(Ipv6Addr::UNSPECIFIED));
    }
}
