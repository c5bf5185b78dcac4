use crate::{Decision, Plan, Sighting, Snapshot};

/// Settles what the machine behind a sighting gets, and says why.
pub fn decide(snapshot: &Snapshot, sighting: &Sighting) -> Decision {
    let _ = (snapshot, sighting);
    Decision { machine: None, plan: Plan::Address, reasons: Vec::new() }
}
