//! A subnet like the one of the recordings, with three machines, for the tests of this folder.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use kiln_inventory::{Duid, Machine, MachineId, NewMachine, Snapshot};
use kiln_ipxe::Endpoints;
use kiln_types::Mac;

use super::engine::{Outcome, View, respond};
use super::subnet::{Mode, Subnet};
use super::table::LeaseTable;
use super::wire::Request;
use crate::dhcp::Timestamp;
use crate::dhcp::replay::snapshot;

pub(super) const NOW: Timestamp = Timestamp(1_000_000);

pub(super) struct World {
    pub(super) subnet: Subnet,
    pub(super) snapshot: Snapshot,
    pub(super) leases: LeaseTable,
    pub(super) endpoints: Endpoints,
    pub(super) server: Duid,
}

pub(super) fn address(last: u16) -> Ipv6Addr {
    [0xfd77, 0, 0, 0, 0, 0, 0, last].into()
}

impl World {
    /// Machines 2 and 3 boot an image, 2 has an address reserved; nothing else is known.
    pub(super) fn new() -> Self {
        let machine = |(last, name, reserved): (u8, &str, Option<u16>)| {
            Arc::new(Machine {
                id: MachineId(last.into()),
                revision: 1,
                spec: NewMachine {
                    image: Some("demo".parse().unwrap()),
                    address6: reserved.map(address),
                    uuid: (last == 3).then(|| "11223344-5566-7788-99AA-BBCCDDEEFF02".to_owned()),
                    ..NewMachine::new(name, [Mac::new([0x52, 0x54, 0, 0x77, 0, last])])
                },
            })
        };
        let machines = [(2, "ovmf", Some(0x200)), (3, "aavmf", None)].map(machine).to_vec();
        let own = address(1);
        Self {
            subnet: Subnet {
                network: address(0),
                prefix: 64,
                address: own,
                mode: Mode::Stateful,
                relayed: false,
                pool: vec![address(0x100)..=address(0x1ff)],
                dns: vec![own],
                domain: Some("lab.example".to_owned()),
                lease_time: Duration::from_secs(3600),
                preference: 255,
                rapid_commit: false,
            },
            snapshot: snapshot(machines),
            leases: LeaseTable::default(),
            endpoints: Endpoints::new(own, 8080),
            server: Duid::new(&[0, 4, 0xaa, 0xbb]).unwrap(),
        }
    }

    /// Answers one packet and lets its outcome happen.
    pub(super) fn take(&mut self, packet: &[u8], from: &str, now: Timestamp) -> Option<Outcome> {
        let request = Request::decode(packet).ok()?;
        let source = SocketAddrV6::new(from.parse().unwrap(), 546, 0, 7);
        let view = View {
            subnet: &self.subnet,
            snapshot: &self.snapshot,
            leases: &self.leases,
            endpoints: &self.endpoints,
            server: &self.server,
            source,
        };
        let outcome = respond(&request, &view, now);
        for (address, who) in outcome.holds.clone() {
            self.leases.hold(address, who, now);
        }
        outcome.leases.iter().cloned().for_each(|lease| self.leases.insert(lease));
        if let Some(network) = outcome.full {
            self.leases.ours.note_full(network, now);
        }
        outcome.quarantine.iter().for_each(|address| self.leases.quarantine(*address, now));
        Some(outcome)
    }
}

/// Returns the options of a message, each as it is.
pub(super) fn options(mut area: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while let [a, b, c, d, rest @ ..] = area {
        let (value, after) = rest.split_at(u16::from_be_bytes([*c, *d]).into());
        all.push((u16::from_be_bytes([*a, *b]), value.to_vec()));
        area = after;
    }
    assert!(area.is_empty(), "options end where the message does");
    all
}

/// Returns the options of a reply that is not relayed.
pub(super) fn told(outcome: &Outcome) -> Vec<(u16, Vec<u8>)> {
    options(&outcome.reply.as_ref().expect("a reply").encode()[4..])
}

/// Returns an option of a reply.
pub(super) fn option(outcome: &Outcome, code: u16) -> Option<Vec<u8>> {
    told(outcome).into_iter().find(|option| option.0 == code).map(|option| option.1)
}
