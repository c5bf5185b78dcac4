//! Where the time of a boot went: its events, as steps that add up to the whole.
//!
//! ```text
//!  firmware │ fetch loader │ loader │ fetch kernel │ fetch SEGMENT … │ handover │ kernel │ init, modules, network … │ services
//!  ─────────── what the server sees for itself ─────────────────────────────────┼── what the machine reports ──────────────
//! ```
//!
//! Up to the services one thing follows the other. Services start side by side; of them only the chain that ended last
//! made the machine wait, and only its steps have a share of the whole.

mod afterwards;
mod chain;
mod steps;

use kiln_inventory::{Boot, BootEvent, Outcome, Phase};
use serde::{Deserialize, Serialize};

use self::afterwards::afterwards;
use self::steps::Steps;

/// A step that takes this much longer than usual, and twice as long, is worth a word.
const SLOW_MS: u64 = 1_000;

/// One step of a boot. Times are milliseconds since the first packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = BreakdownStep)]
pub struct Step {
    /// What went on, such as `firmware`, `fetch init` or `service web`.
    pub name: String,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// What it adds to the length of the boot; less than it took where something else went on at the same time.
    pub share: u64,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Bytes moved, for a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes a second, for a transfer that took long enough to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// The median of what the same step took in earlier healthy boots of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<u64>,
}

impl Step {
    /// Returns how long it took, in milliseconds.
    pub const fn took(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// A boot in steps, in the order in which they began. Their shares add up to the total.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Breakdown {
    /// Milliseconds from the first packet to the end, or to the last that was heard.
    pub total: u64,
    /// The steps.
    pub steps: Vec<Step>,
    /// Events after the end, which are in no step.
    #[serde(default)]
    pub later: usize,
    /// Those of them in which something went wrong or was made good, the latest 20. They take no time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<Step>,
    /// The median of what earlier healthy boots of this machine took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<u64>,
}

impl Breakdown {
    /// Returns the breakdown of a boot.
    pub fn of(boot: &Boot, events: &[BootEvent]) -> Self {
        let clock = Clock::of(boot, events);
        let total = clock.total;
        let end = boot.started.saturating_add(i64::try_from(total).unwrap_or(i64::MAX));
        let (events, later): (Vec<_>, Vec<_>) =
            events.iter().partition(|event| clock.moment(event) <= end);
        let mut steps = Steps::new(&clock);
        steps.seen_by_server(&events);
        steps.reported(boot, &events);
        if boot.outcome == Outcome::Healthy {
            steps.until("init", total);
        } else {
            steps.silence(total);
        }
        let afterwards = afterwards(&clock, &later);
        Self { total, steps: steps.in_order(), later: later.len(), afterwards, usual: None }
    }

    /// Notes what the steps took in other boots.
    pub fn compare(&mut self, earlier: &[Self]) {
        self.usual = median(earlier.iter().map(|boot| boot.total).collect());
        for index in 0..self.steps.len() {
            let Some(name) = self.steps.get(index).map(|step| step.name.clone()) else { continue };
            let called = |step: &&Step| step.name == name;
            // What comes several times, as `init` between other steps, compares with the one in the same place, where
            // there are as many.
            let count = self.steps.iter().filter(called).count();
            let place = self.steps.iter().take(index).filter(called).count();
            let same = |boot: &Self| {
                let found: Vec<&Step> = boot.steps.iter().filter(called).collect();
                (found.len() == count).then(|| found.get(place).map(|step| step.took())).flatten()
            };
            let usual = median(earlier.iter().filter_map(same).collect());
            if let Some(step) = self.steps.get_mut(index) {
                step.usual = usual;
            }
        }
    }

    /// Returns the steps that took much longer than they usually do on this machine, the worst first.
    pub fn slower(&self) -> Vec<&Step> {
        let excess = |step: &Step| step.took().saturating_sub(step.usual.unwrap_or(u64::MAX));
        let is_slow = |step: &&Step| {
            step.usual.is_some_and(|usual| excess(step) >= SLOW_MS && step.took() / 2 >= usual)
        };
        let mut steps: Vec<&Step> = self.steps.iter().filter(is_slow).collect();
        steps.sort_by_key(|step| std::cmp::Reverse(excess(step)));
        steps
    }

    /// Returns the steps that make up most of the boot, the longest first.
    pub fn longest(&self, most: usize) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.steps.iter().filter(|step| step.share > 0).collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step.share));
        steps.truncate(most);
        steps
    }
}

/// Puts events on one line: milliseconds since the first packet.
struct Clock {
    started: i64,
    kernel_start: Option<i64>,
    total: u64,
}

impl Clock {
    fn of(boot: &Boot, events: &[BootEvent]) -> Self {
        let mut clock = Self { started: boot.started, kernel_start: boot.kernel_start, total: 0 };
        let last = events.iter().map(|event| clock.moment(event)).max();
        let end = boot.ended.or(last).unwrap_or(boot.started);
        clock.total = u64::try_from(end - boot.started).unwrap_or(0);
        clock
    }

    /// Returns when an event was, in milliseconds since 1970.
    fn moment(&self, event: &BootEvent) -> i64 {
        let reported = event.phase >= Phase::Init;
        match (self.kernel_start, event.millis.map(i64::try_from)) {
            // When the boot ended, the kernel's start was settled, so that this is what `at` says, or closer.
            (Some(start), Some(Ok(millis))) if reported => {
                start.saturating_add(millis).min(event.at)
            }
            _ => event.at,
        }
    }

    /// Returns when an event ended.
    fn end(&self, event: &BootEvent) -> u64 {
        self.since(self.moment(event))
    }

    fn since(&self, at: i64) -> u64 {
        u64::try_from(at.saturating_sub(self.started)).unwrap_or(0).min(self.total)
    }
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests;
