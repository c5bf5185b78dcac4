//! Whether a machine has the memory that a version needs, as far as it is known before it boots.
//!
//! A kernel that finds no room for its initrd stops or starts half a system, and mostly cannot say so. So what the
//! machine told of itself in an earlier boot is compared with what the builder found out about the version.

use std::sync::Arc;
use std::time::Duration;

use kiln_inventory::{MachineId, StoreError};
use kiln_types::Digest;
use kiln_types::facts::{Facts, MemoryFacts};

use crate::boots::{Boots, Identity};
use crate::view::View;

const MIB: u64 = 1 << 20;
/// A kernel keeps no more of a machine's memory for itself.
const KERNEL: u64 = 64 * MIB;

/// Returns how much memory is in a machine.
fn installed(memory: &MemoryFacts) -> u64 {
    let modules = memory.modules.iter().fold(0, |sum: u64, module| sum.saturating_add(module.size));
    // Without modules it is known only what the kernel has left over.
    if modules > 0 { modules } else { memory.total.saturating_add(KERNEL) }
}

/// Says that memory is short, in a sentence that names what is there and what is needed. `None` where it is not, or
/// where nothing is known.
fn shortage(memory: &MemoryFacts, min_ram: u64) -> Option<String> {
    let there = installed(memory);
    (memory.total > 0 && there < min_ram).then(|| {
        format!(
            "the machine has {} MiB of memory, and this version needs {} MiB: give it more, or a smaller image",
            there / MIB,
            min_ram.div_ceil(MIB)
        )
    })
}

/// Says whether memory is short for a version on a machine that has told of itself.
pub(crate) async fn look_up(
    view: &View,
    machine: MachineId,
    version: &Digest,
) -> Result<Option<String>, StoreError> {
    let Some(version) = view.version(version) else { return Ok(None) };
    let Some(told) = view.inventory().facts(machine).await? else { return Ok(None) };
    let facts = serde_json::from_str::<Facts>(&told.facts).ok();
    Ok(facts.and_then(|facts| shortage(&facts.memory, version.min_ram)))
}

/// The longest that anything is looked up.
const PATIENCE: Duration = Duration::from_secs(6);
/// So long a boot waits for the remark; a database that does not answer must not hold it up.
const SOON: Duration = Duration::from_millis(100);

/// Notes in the timeline of a boot, and in the log, that memory is short.
pub(crate) async fn warn(view: &Arc<View>, boots: &Boots, identity: &Identity) {
    let (view, boots, identity) = (view.clone(), boots.clone(), identity.clone());
    let remark = async move { look_up_and_warn(&view, &boots, &identity).await };
    let remark = tokio::spawn(tokio::time::timeout(PATIENCE, remark));
    let _ = tokio::time::timeout(SOON, remark).await;
}

async fn look_up_and_warn(view: &View, boots: &Boots, identity: &Identity) {
    let snapshot = view.snapshot();
    let Some(machine) = snapshot.machine_by_mac(identity.mac) else { return };
    match look_up(view, machine.id, &identity.version).await {
        Ok(None) => {}
        Ok(Some(text)) => boots.warn(identity.boot, text).await,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, boot = identity.boot.0, "what the machine has is not looked up");
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::facts::MemoryModule;

    use super::*;

    #[test]
    fn memory_is_short_where_all_of_it_is_less_than_the_version_needs() {
        let module = |size| MemoryModule { size, ..MemoryModule::default() };
        let memory = |total: u64, modules: &[u64]| MemoryFacts {
            total: total * MIB,
            modules: modules.iter().map(|size| module(size * MIB)).collect(),
        };
        for (memory, needed, short) in [
            (memory(40, &[64]), 96, true),
            (memory(40, &[64, 64]), 96, false),
            (memory(70, &[96]), 96, false),
            (memory(31, &[]), 96, true),
            (memory(32, &[]), 96, false),
            (memory(0, &[]), 96, false),
            (memory(40, &[64]), 0, false),
        ] {
            let told = shortage(&memory, needed * MIB);
            assert_eq!(told.is_some(), short, "{memory:?}");
            let text = told.unwrap_or_default();
            assert!(!short || text.contains(&format!("needs {needed} MiB")), "{text}");
        }
    }
}
