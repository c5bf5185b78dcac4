//! How many machines boot, run or have failed, by what this server has seen.

use kiln_inventory::{MachineId, Outcome};
use tokio::sync::oneshot;

use super::message::Message;
use super::tracker::Tracker;
use super::{Boots, PATIENCE};

/// What the newest boot of a machine came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The machine.
    pub machine: MachineId,
    /// What it came to.
    pub outcome: Outcome,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
}

impl Tracker {
    pub(super) fn census(&self) -> Vec<Standing> {
        let standing = |(machine, active): (&MachineId, &super::active::Active)| {
            // Anybody may ask for a script: the system that runs goes on until another one proves itself.
            let boot = &active.running().unwrap_or(active).boot;
            let since = boot.ended.unwrap_or(boot.started);
            Standing { machine: *machine, outcome: boot.outcome, since }
        };
        self.active.iter().map(standing).collect()
    }
}

impl Boots {
    /// Returns what the newest boot of each machine came to that this server knows of; nothing where the task does not
    /// answer.
    pub async fn census(&self) -> Vec<Standing> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.queue.send(Message::Census { reply }).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default()
    }
}
