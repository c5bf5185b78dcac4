//! Machines as they can be recognised: by what the inventory says of them, and by what their systems said of themselves.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_inventory::{MachineId, Recogniser, Snapshot, StoreError, Traits};
use kiln_types::facts::Facts;

use super::View;

/// Facts that are read at a time: those of one machine may be long.
const PAGE: u32 = 200;

/// What was learnt, and from what.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    of: Option<Arc<Snapshot>>,
    told: HashMap<MachineId, Traits>,
    newest: i64,
    recogniser: Arc<Recogniser>,
}

impl View {
    /// Returns what recognises the machines that there are, learnt anew where something has changed.
    ///
    /// # Errors
    ///
    /// When the inventory cannot be read.
    pub(crate) async fn recogniser(&self) -> Result<Arc<Recogniser>, StoreError> {
        let mut learnt = self.learnt.lock().await;
        let snapshot = self.snapshot();
        let mut is_new = learnt.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, &snapshot));
        let (mut behind, since) = (MachineId(0), learnt.newest);
        loop {
            let page = self.inventory().facts_since(behind, since, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            behind = *last;
            for (machine, told) in page {
                learnt.newest = learnt.newest.max(told.at);
                // What makes no sense says nothing.
                let facts: Facts = serde_json::from_str(&told.facts).unwrap_or_default();
                let traits = Traits::default().with_facts(&facts);
                is_new |= learnt.told.get(&machine) != Some(&traits);
                learnt.told.insert(machine, traits);
            }
        }
        if is_new {
            let known = snapshot.machines().iter().map(|machine| {
                let mut traits = Traits::known(&machine.spec);
                if let Some(told) = learnt.told.get(&machine.id) {
                    traits = traits.or(told);
                }
                (machine.spec.name.clone(), traits)
            });
            learnt.recogniser = Arc::new(Recogniser::new(known));
            learnt.of = Some(snapshot);
        }
        Ok(learnt.recogniser.clone())
    }
}
