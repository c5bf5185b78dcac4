//! What a machine reports after its boot has ended. Of that only counts here how well its services are.

use kiln_inventory::{BootEvent, Phase};

use super::steps::step;
use super::{Clock, Step};

/// Rows of it: the latest, which say how it is now.
const MOST: usize = 20;

/// Returns the moments after the end in which something went wrong or was made good.
pub(super) fn afterwards(clock: &Clock, later: &[&BootEvent]) -> Vec<Step> {
    let mut steps: Vec<Step> = later.iter().filter_map(|event| moment(clock, event)).collect();
    steps.sort_by_key(|step| step.from);
    steps.drain(..steps.len().saturating_sub(MOST));
    steps
}

fn moment(clock: &Clock, event: &BootEvent) -> Option<Step> {
    let (name, detail) = match event.phase {
        Phase::Service => (format!("service {}", event.detail), String::new()),
        Phase::Failed | Phase::Restart | Phase::Waiting | Phase::Warning | Phase::Healthy => {
            (event.phase.to_string(), event.detail.clone())
        }
        _ => return None,
    };
    // Later than the end, to which the clock holds all else.
    let at = u64::try_from(clock.moment(event).saturating_sub(clock.started)).unwrap_or(0);
    Some(Step { detail, ..step(&name, at, at) })
}
