//! The metrics of machines, of those that nobody has added, and of what keeps the inventory and tells of it.

use std::collections::HashMap;
use std::time::Duration;

use kiln_inventory::{Flag, Machine, Outcome};

use super::Observed;
use super::text::Page;
use crate::boots::{Standing, now_ms};

/// So long the inventory is waited for: who asks for the page comes again every few seconds.
const SOON: Duration = Duration::from_secs(2);
/// The words for what machines are at. Each machine is at one.
const STATES: [&str; 6] = ["booting", "healthy", "failed", "idle", "maintenance", "retired"];
/// Those of them in which a machine ought not to stay.
const PASSING: [&str; 2] = ["booting", "failed"];

impl Observed {
    /// Writes the families; of the inventory those that it answers soon, where it is there.
    pub(super) async fn fleet(&self, page: &mut Page, is_there: bool) {
        self.machines(page).await;
        let both = async {
            let webhooks = crate::api::webhook_states(&self.inventory);
            tokio::join!(self.inventory.count_discovered(), webhooks)
        };
        let (unknown, webhooks) = match is_there {
            true => tokio::time::timeout(SOON, both).await.ok().unzip(),
            false => (None, None),
        };
        page.gauge(
            "unknown_macs",
            "Hardware addresses of machines that nobody has added, by what becomes of them.",
        );
        for (state, count) in unknown.into_iter().flatten().flatten() {
            page.sample(&[("state", state)], count);
        }
        page.gauge("webhooks", "Webhooks, by whether their messages arrive.");
        for (state, count) in webhooks.into_iter().flatten().flatten() {
            page.sample(&[("state", state)], count);
        }
        let (taken, at) = match &self.files {
            Some(files) => (files.get().is_none(), files.taken()),
            None => (true, self.since),
        };
        page.gauge("config_reload_success", "Whether the files of the inventory are applied.")
            .sample(&[], taken);
        page.gauge(
            "config_reload_timestamp_seconds",
            "When the files of the inventory were applied last, or the settings were read.",
        )
        .sample(&[], at as f64 / 1000.0);
    }

    async fn machines(&self, page: &mut Page) {
        let standings = self.boots.census().await;
        let standings: HashMap<_, _> = standings.iter().map(|it| (it.machine, *it)).collect();
        let (now, snapshot) = (now_ms(), self.view.snapshot());
        let (mut all, mut late) = ([0_u64; STATES.len()], [0_u64; PASSING.len()]);
        for machine in snapshot.machines() {
            let standing = standings.get(&machine.id);
            let state = state(machine, standing);
            add(&STATES, state, &mut all);
            if standing.is_some_and(|standing| is_late(standing, now, self.late_after)) {
                add(&PASSING, state, &mut late);
            }
        }
        page.gauge("machines", "Machines of the inventory, by what this server sees them at.");
        for (state, count) in STATES.iter().zip(all) {
            page.sample(&[("state", *state)], count);
        }
        page.gauge(
            "machines_over_sla",
            "Machines that boot, or have failed to, for longer than `late-after` of [metrics].",
        );
        for (state, count) in PASSING.iter().zip(late) {
            page.sample(&[("state", *state)], count);
        }
    }
}

fn add(words: &[&str], word: &str, counts: &mut [u64]) {
    let at = words.iter().position(|it| *it == word);
    if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
        *count += 1;
    }
}

/// Returns what a machine is at. What an operator said of it comes first.
fn state(machine: &Machine, standing: Option<&Standing>) -> &'static str {
    if machine.spec.is(Flag::Retired) {
        return "retired";
    }
    if machine.spec.is(Flag::Maintenance) {
        return "maintenance";
    }
    match standing.map(|standing| standing.outcome) {
        Some(Outcome::Booting) => "booting",
        Some(Outcome::Healthy) => "healthy",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Abandoned) | None => "idle",
    }
}

fn is_late(standing: &Standing, now: i64, after: Duration) -> bool {
    let lasted = u128::try_from(now.saturating_sub(standing.since)).unwrap_or(0);
    lasted > after.as_millis()
}

#[cfg(test)]
mod tests {
    use kiln_inventory::{MachineId, NewMachine};

    use super::*;

    #[test]
    fn a_machine_is_at_what_its_operator_says_and_else_at_what_its_newest_boot_came_to() {
        let mac = "52:54:00:00:00:07".parse().unwrap();
        let machine = |flags: &[Flag]| Machine {
            id: MachineId(1),
            revision: 1,
            spec: NewMachine {
                flags: flags.iter().copied().collect(),
                ..NewMachine::new("n1", [mac])
            },
        };
        let at = |outcome| Standing { machine: MachineId(1), outcome, since: 1000 };
        for (flags, outcome, expected) in [
            (vec![], None, "idle"),
            (vec![], Some(Outcome::Abandoned), "idle"),
            (vec![], Some(Outcome::Booting), "booting"),
            (vec![Flag::Cordoned, Flag::Locked], Some(Outcome::Healthy), "healthy"),
            (vec![], Some(Outcome::Failed), "failed"),
            (vec![Flag::Maintenance], Some(Outcome::Booting), "maintenance"),
            (vec![Flag::Maintenance, Flag::Retired], Some(Outcome::Failed), "retired"),
        ] {
            let standing = outcome.map(at);
            let told = state(&machine(&flags), standing.as_ref());
            assert_eq!(told, expected, "{flags:?} {outcome:?}");
            assert!(STATES.contains(&told));
        }
        let (minute, booting) = (Duration::from_secs(60), at(Outcome::Booting));
        let late = [0, 61_000, 61_001].map(|now| is_late(&booting, now, minute));
        assert_eq!(late, [false, false, true]);
    }
}
