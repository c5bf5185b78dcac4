//! How long a decision takes with 100 000 machines in the snapshot, and how long the snapshot takes to make.
//!
//! `cargo bench -p kiln-inventory`; `./dev bench` runs it, and docs/benchmarks.md quotes it.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints a table, and a failure may end it"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use kiln_inventory::{
    Asker, Firmware, Group, Machine, MachineId, NewMachine, Settings, Sighting, Snapshot,
    UnknownMachines, decide,
};
use kiln_types::Mac;
use tokio::time::Instant;

const MACHINES: u32 = 100_000;
const RACKS: u32 = 100;
const ROUNDS: usize = 11;
const DECISIONS: u32 = 100_000;

fn mac(number: u32) -> Mac {
    let [_, a, b, c] = number.to_be_bytes();
    Mac::new([2, 0, 0, a, b, c])
}

fn machine(number: u32) -> Arc<Machine> {
    let labels = [("rack", number % RACKS), ("row", number % 7)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_string()));
    let spec = NewMachine {
        labels: labels.into(),
        cmdline: "console=ttyS0".to_owned(),
        ..NewMachine::new(format!("node-{number}"), [mac(number)])
    };
    Arc::new(Machine { id: MachineId(i64::from(number) + 1), revision: 1, spec })
}

fn group(number: u32) -> Group {
    let image = "web:stable".parse().ok();
    Group {
        name: format!("rack-{number}"),
        selector: format!("rack={number}").parse().unwrap(),
        priority: 0,
        settings: Settings { image, cmdline: "quiet".to_owned(), ..Settings::default() },
    }
}

fn main() {
    let machines: Vec<_> = (0..MACHINES).map(machine).collect();
    let groups: Vec<_> = (0..RACKS).map(group).collect();
    let begun = Instant::now();
    let snapshot =
        Snapshot::with_groups(machines, &groups, BTreeMap::new(), UnknownMachines::Ignore);
    println!("a snapshot of {MACHINES} machines in {RACKS} groups: {:?}", begun.elapsed());

    for (what, range) in [("known machines", MACHINES), ("unknown machines", u32::MAX >> 8)] {
        let mut rounds: Vec<_> = (0..ROUNDS)
            .map(|round| {
                let mut number = u32::try_from(round).unwrap();
                let begun = Instant::now();
                for _ in 0..DECISIONS {
                    // Not one beside the other, so that caches do not know which comes next.
                    number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let sighting = Sighting {
                        mac: mac(number % range),
                        asker: Asker::Firmware,
                        firmware: Some(Firmware::UefiX64),
                        uuid: None,
                    };
                    black_box(decide(&snapshot, black_box(&sighting)));
                }
                begun.elapsed() / DECISIONS
            })
            .collect();
        rounds.sort_unstable();
        println!("a decision for {what}: {:?} (median of {ROUNDS} rounds)", rounds[ROUNDS / 2]);
    }
}
