//! What boots did while the database could not be written, in the order in which it is written later.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use kiln_inventory::{Boot, BootId, MachineId, Store, StoreError};
use kiln_types::Digest;

/// The longest that anything waits for one answer of the database: one that hangs is as good as away. Longer than the
/// database itself waits for what somebody else holds, which it can name.
const PATIENCE: Duration = Duration::from_secs(6);
/// Refusals that may wait; of more only the log tells.
const MOST_DENIALS: usize = 256;

/// Somebody who was refused what belongs to a boot.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) peer: IpAddr,
    pub(super) machine: String,
    pub(super) asked: serde_json::Value,
}

/// Boots that began under spare numbers, and what they have taken the place of.
#[derive(Debug, Default)]
pub(super) struct Late {
    begun: BTreeMap<BootId, Boot>,
    /// By machine: the boot that follows all others of it, and when.
    follows: HashMap<MachineId, (BootId, i64)>,
    tokens: BTreeMap<BootId, (MachineId, Digest)>,
    denials: VecDeque<Denial>,
    /// Boots whose numbers others have: nothing of them is written.
    lost: HashSet<BootId>,
}

impl Late {
    /// Returns whether nothing waits that has to be written before what comes now.
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.tokens.is_empty() && self.follows.is_empty()
    }

    /// Returns how many boots wait to be written.
    pub(super) fn boots(&self) -> usize {
        self.begun.len()
    }

    pub(super) fn is_lost(&self, boot: BootId) -> bool {
        self.lost.contains(&boot)
    }

    pub(super) fn begins(&mut self, boot: Boot) {
        self.begun.insert(boot.id, boot);
    }

    pub(super) fn follows(&mut self, machine: MachineId, boot: BootId, at: i64) {
        self.tokens.retain(|id, (of, _)| *of != machine || *id >= boot);
        self.follows.insert(machine, (boot, at));
    }

    pub(super) fn token(&mut self, machine: MachineId, boot: BootId, sha256: Digest) {
        self.tokens.insert(boot, (machine, sha256));
    }

    pub(super) fn denial(&mut self, denial: Denial) {
        if self.denials.len() < MOST_DENIALS {
            self.denials.push_back(denial);
        }
    }

    /// Writes one thing, and returns whether there was any.
    pub(super) async fn write_one(&mut self, store: &Store) -> Result<bool, StoreError> {
        if let Some((id, boot)) = self.begun.first_key_value() {
            let id = *id;
            match soon(store.begin_boot(boot)).await {
                Err(error) if error.is_lasting() || error.is_conflict() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, boot = id.0, "a boot is not written, and given up");
                    self.lost.insert(id);
                    self.tokens.remove(&id);
                }
                written => written?,
            }
            self.begun.remove(&id);
            return Ok(true);
        }
        // Before the tokens, of which those of the boots that follow are.
        if let Some((machine, (boot, at))) = self.follows.iter().next() {
            let machine = *machine;
            soon(store.begins_anew(machine, *boot, *at)).await?;
            self.follows.remove(&machine);
            return Ok(true);
        }
        if let Some((boot, (_, sha256))) = self.tokens.first_key_value() {
            let boot = *boot;
            given_up(soon(store.keep_token(boot, sha256)).await)?;
            self.tokens.remove(&boot);
            return Ok(true);
        }
        if let Some(Denial { peer, machine, asked }) = self.denials.front() {
            let store = store.acting(&peer.to_string());
            given_up(soon(store.record_denial("boot", machine, asked.clone())).await)?;
            self.denials.pop_front();
            return Ok(true);
        }
        Ok(false)
    }
}

/// Takes an answer of the database, if it comes soon.
pub(super) async fn soon<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(StoreError::Silent))
}

/// The same where all boots are looked through, which takes a while where there are many.
pub(super) async fn patiently<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE * 3, answer).await.unwrap_or(Err(StoreError::Silent))
}

/// What the database will never take, such as events of a boot that was deleted, must not hold up the rest.
pub(super) fn given_up(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.is_lasting() => {
            tracing::error!(error = &error as &dyn std::error::Error, "not written, and given up");
            Ok(())
        }
        result => result,
    }
}
