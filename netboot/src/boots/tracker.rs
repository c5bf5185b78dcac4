//! The task that owns what is known of running boots.

mod begin;
mod system;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use kiln_inventory::{
    Boot, BootEvent, BootId, Database, MachineId, Outcome, Phase, Sighting, SpareBoots, Store,
    StoreError, TakenUp,
};
use tokio::sync::mpsc;

use super::active::Active;
use super::late::{patiently, soon};
use super::message::Message;
use super::pending::Pending;
use super::{Transfer, now_ms};
use crate::discovery::Discovery;
use crate::observe::COUNTS;

/// Messages that are written in one go.
const BATCH: usize = 256;
/// Events kept of one boot, so that a machine in a loop does not fill the disk.
const MAX_EVENTS: usize = 400;
/// Those among them of files that were asked for in vain.
const MAX_VAIN: usize = 40;

/// The task's own state. Bounded by the number of machines in the inventory and of addresses in the subnets.
pub(super) struct Tracker {
    pub(super) store: Store,
    pub(super) active: HashMap<MachineId, Active>,
    /// Boots that running systems were told to start. Each takes the place of the one that runs when it reports.
    pub(super) next: HashMap<MachineId, Active>,
    pub(super) by_boot: HashMap<BootId, MachineId>,
    by_address: HashMap<IpAddr, MachineId>,
    /// What the firmware or loader said that got an address last.
    who: HashMap<IpAddr, Sighting>,
    pub(super) pending: Pending,
    /// For boots that begin while the database cannot be written.
    pub(super) spare: SpareBoots,
    discovery: Option<Discovery>,
    /// Whether the boots of the server before are taken up.
    pub(super) taken_up: bool,
    #[cfg(feature = "otel")]
    ended: Option<crate::otel::Ended>,
}

impl Tracker {
    pub(super) fn new(store: Store, spare: SpareBoots) -> Self {
        Self {
            store,
            active: HashMap::new(),
            next: HashMap::new(),
            by_boot: HashMap::new(),
            by_address: HashMap::new(),
            who: HashMap::new(),
            pending: Pending::new(),
            spare,
            discovery: None,
            taken_up: false,
            #[cfg(feature = "otel")]
            ended: None,
        }
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        self.may_take_up().await;
        self.refill().await;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = messages.recv_many(&mut batch, BATCH) => if taken == 0 { break },
                () = self.pending.is_due() => {}
            }
            for message in batch.drain(..) {
                if let Err(error) = self.take(message).await {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot open a boot");
                }
            }
            self.write().await;
            self.refill().await;
        }
        self.pending.write_at_last(&self.store).await;
    }

    /// Writes what waits. What the server before left is taken up first: it would end boots of this one.
    async fn write(&mut self) {
        self.may_take_up().await;
        self.pending.write(&self.store).await;
    }

    /// Takes up what the server before left, where that could not be done yet and the database is not known to be away.
    pub(super) async fn may_take_up(&mut self) {
        if !self.taken_up
            && !self.pending.waits()
            && let Err(error) = self.take_up().await
        {
            self.pending.failed(&error);
        }
    }

    /// Sees to it that boots can begin when the database goes away.
    pub(super) async fn refill(&mut self) {
        if self.pending.is_behind() || !self.spare.wants_more() {
            return;
        }
        match soon(self.store.spare_boots()).await {
            Ok(more) => self.spare.add(more),
            Err(error) => self.pending.failed(&error),
        }
    }

    /// Takes up the boots whose systems have their token: they go on reporting. Every other boot that the server before
    /// left under way is ended, however young: its secrets were in that server's memory only, so that the machine
    /// cannot fetch its own segment any more. Its next try is a new boot.
    pub(super) async fn take_up(&mut self) -> Result<(), StoreError> {
        let TakenUp { running, abandoned } = patiently(self.store.take_up_boots(now_ms())).await?;
        for (boot, token_hash) in running {
            let machine = boot.machine;
            self.by_boot.insert(boot.id, machine);
            if let Some(address) = boot.address {
                self.by_address.insert(address, machine);
            }
            let known = Active::known(boot, token_hash);
            // The machine has begun another one while the database was away, or somebody has asked for its script.
            if let Some(active) = self.active.get_mut(&machine).filter(|it| it.secrets.is_some()) {
                match &active.before {
                    None if active.by_script && active.proven == 0 => {
                        active.before = Some(Box::new(known));
                    }
                    // One that has proved itself follows by that.
                    Some(_) => self.is_over(now_ms(), known),
                    None => {
                        let boot = active.boot.id;
                        self.pending.late().follows(machine, boot, now_ms());
                        self.is_over(now_ms(), known);
                    }
                }
                continue;
            }
            // Only a boot that never reported has one before it that still can.
            match self.active.entry(machine) {
                Entry::Vacant(free) => {
                    free.insert(known);
                }
                Entry::Occupied(_) => {
                    self.next.insert(machine, known);
                }
            }
        }
        if abandoned > 0 {
            tracing::info!(boots = abandoned, "boots abandoned at restart");
        }
        self.taken_up = true;
        Ok(())
    }

    /// Here, so that no boot is opened before those of the server before are taken up.
    async fn go_on(&mut self, database: &Database) -> Result<(), StoreError> {
        soon(self.store.reached(database)).await?;
        self.pending.hurry();
        // A database that went away again in between is reached once more. What has begun since then is ours.
        if self.taken_up {
            return Ok(());
        }
        let taken_up = async {
            self.take_up().await?;
            // The numbers that it began with may be of a database that was put back since.
            self.spare = soon(self.store.spare_boots()).await?;
            Ok(())
        };
        taken_up.await.inspect_err(|error| self.pending.failed(error))
    }

    async fn take(&mut self, message: Message) -> Result<(), StoreError> {
        match message {
            Message::Discovery(discovery) => self.discovery = Some(discovery),
            Message::GoOn { database, reply } => {
                let _ = reply.send(self.go_on(&database).await);
            }
            #[cfg(feature = "otel")]
            Message::Ends(ended) => self.ended = Some(ended),
            Message::Seen { at, sighting, decision, fresh, address, exchange } => {
                self.pending.sighting(sighting.clone(), at);
                if let Some(address) = address {
                    self.note_who(address, &sighting);
                }
                if let Some(decision) = decision {
                    self.seen(at, &sighting, &decision, fresh, address, exchange).await?;
                    let machine = decision.machine.as_ref();
                    let active = machine.and_then(|machine| self.active.get_mut(&machine.id));
                    if let (Some(active), Some(address)) = (active, address) {
                        active.was_given(address);
                        // It may be the system that goes on which has renewed it.
                        if let Some(before) = &mut active.before {
                            before.was_given(address);
                        }
                    }
                }
            }
            Message::Warn { at, boot, detail } => self.warn(at, boot, detail),
            Message::Loader { at, peer, transfer } => {
                let machine = self.by_address.get(&peer);
                let active = machine.and_then(|machine| self.active.get(machine));
                if let Some(boot) = active.map(|active| active.boot.id) {
                    self.sent(at, boot, transfer);
                }
            }
            Message::Untrusted { at, peer, detail } => self.untrusted(at, peer, detail),
            Message::Who { peer, reply } => {
                let _ = reply.send(self.who.get(&peer).cloned());
            }
            Message::At { peer, reply } => {
                let active = self.by_address.get(&peer).and_then(|it| self.active.get(it));
                let _ = reply.send(active.and_then(|active| active.at(peer)).map(|it| it.boot.id));
            }
            Message::Script { at, peer, sighting, decision, by, reply } => {
                let ticket = self.script(at, peer, &sighting, &decision, by).await;
                let (ticket, result) = match ticket {
                    Ok(ticket) => (ticket, Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // A loader that has gone away needs no ticket.
                let _ = reply.send(ticket);
                result?;
            }
            Message::Transfer { at, peer, boot, transfer } => {
                if self.find(boot).is_some_and(|active| active.is_from(peer)) {
                    self.sent(at, boot, transfer);
                }
            }
            Message::LoaderFailed { at, peer, boot, detail } => {
                self.loader_failed(at, peer, boot, detail);
            }
            Message::Identity { at, peer, boot, key, reply } => {
                let _ = reply.send(self.identity(at, peer, boot, &key).await);
            }
            Message::Gave { peer, boot, reply } => {
                let gave = self.find(boot).is_some_and(|active| active.given.contains(&peer));
                let _ = reply.send(gave);
            }
            Message::Reports { at, peer, boot, token, reports, reply } => {
                let proven = self.proven(at, peer, boot, &token).await;
                if proven.is_ok() {
                    self.reports(at, boot, reports);
                }
                let _ = reply.send(proven.map(drop));
            }
            Message::Told { at, peer, boot, token, told, reply } => {
                let _ = reply.send(self.told(at, peer, boot, &token, told).await);
            }
            Message::Proof { at, peer, boot, token, reply } => {
                let _ = reply.send(self.proven(at, peer, boot, &token).await);
            }
            Message::Running { machine, reply } => {
                let running = self.active.get(&machine).and_then(Active::running);
                let _ = reply.send(running.map(|running| running.boot.clone()));
            }
            Message::Addresses { reply } => {
                let of = |(machine, active): (&MachineId, &Active)| {
                    Some((*machine, active.running()?.address()?))
                };
                let _ = reply.send(self.active.iter().filter_map(of).collect());
            }
            Message::Next { at, machine, plan, order, reply } => {
                let ticket = self.next(at, machine, plan, order).await?;
                let _ = reply.send(ticket);
            }
            Message::Census { reply } => {
                let _ = reply.send(self.census());
            }
            Message::NextFailed { at, machine, detail } => self.next_failed(at, machine, detail),
        }
        Ok(())
    }

    /// Ends a boot that another one follows.
    pub(super) fn give_up(&mut self, at: i64, mut boot: Boot) {
        if boot.ended.is_none() {
            boot.outcome = Outcome::Abandoned;
            COUNTS.boots.ends(&boot);
            boot.ended = Some(at);
            self.pending.boot(&boot);
            #[cfg(feature = "otel")]
            if let Some(ended) = &self.ended {
                ended.tell(&boot);
            }
        }
    }

    pub(super) fn find(&mut self, boot: BootId) -> Option<&mut Active> {
        let machine = self.by_boot.get(&boot)?;
        let both = [self.active.get_mut(machine), self.next.get_mut(machine)];
        both.into_iter().flatten().find_map(|active| active.find(boot))
    }

    fn sent(&mut self, at: i64, boot: BootId, transfer: Transfer) {
        let Transfer { phase, detail, bytes, millis, resent } = transfer;
        if let Some(active) = self.find(boot) {
            active.loading = active.loading.max(at);
        }
        let event = BootEvent::new(at, phase, detail);
        let (bytes, millis) = (Some(bytes), Some(millis));
        let resent = Some(resent).filter(|resent| *resent > 0);
        self.event(
            boot,
            match phase {
                Phase::Absent => event,
                _ => BootEvent { bytes, millis, resent, ..event },
            },
        );
    }

    /// Ends the boot of an address whose firmware has got no loader yet.
    fn untrusted(&mut self, at: i64, peer: IpAddr, detail: String) {
        let machine = self.by_address.get(&peer);
        let Some(active) = machine.and_then(|machine| self.active.get(machine)) else { return };
        if active.boot.ended.is_none() && active.phase < Phase::Kernel {
            self.event(active.boot.id, BootEvent::new(at, Phase::Failed, detail));
        }
    }

    /// Ends a boot that its loader gave up. Once the system has reported, no loader runs there any more, and nothing
    /// on the machine may end the boot without its token.
    fn loader_failed(&mut self, at: i64, peer: IpAddr, boot: BootId, detail: String) {
        let Some(active) = self.find(boot) else { return };
        if active.is_from(peer) && active.boot.ended.is_none() && active.phase < Phase::Init {
            self.event(boot, BootEvent::new(at, Phase::Failed, detail));
        }
    }

    fn warn(&mut self, at: i64, boot: BootId, detail: String) {
        let Some(active) = self.find(boot).filter(|active| !active.warned) else { return };
        active.warned = true;
        tracing::warn!(boot = boot.0, machine = active.boot.machine_name, "{detail}");
        self.event(boot, BootEvent::new(at, Phase::Warning, detail));
    }

    /// Adds one event to a boot, and lets it end the boot.
    pub(super) fn event(&mut self, id: BootId, event: BootEvent) {
        let machine = self.by_boot.get(&id);
        let both = [&mut self.active, &mut self.next].map(|boots| boots.get_mut(machine?));
        let found = both.into_iter().flatten().find_map(|active| active.find(id));
        let Some(active) = found else { return };
        let ends = matches!(
            (event.phase, active.boot.outcome),
            (Phase::Healthy, Outcome::Booting | Outcome::Failed)
                | (Phase::Failed, Outcome::Booting)
        );
        if event.phase < Phase::Dhcp {
            active.vain += 1;
            if active.vain > MAX_VAIN {
                return;
            }
        }
        active.events += 1;
        if active.events > MAX_EVENTS && !ends {
            return;
        }
        let (boot, machine) = (active.boot.id.0, &active.boot.machine_name);
        if !ends {
            tracing::debug!(boot, machine, phase = %event.phase, detail = event.detail);
        } else if event.phase == Phase::Healthy {
            let took = event.at - active.boot.started;
            tracing::info!(boot, machine, took_ms = took, "healthy");
            active.boot.outcome = Outcome::Healthy;
        } else {
            tracing::warn!(boot, machine, reason = event.detail, "boot failed");
            active.boot.outcome = Outcome::Failed;
        }
        if ends {
            COUNTS.boots.ends(&active.boot);
            if active.boot.outcome == Outcome::Healthy {
                let took = u64::try_from(event.at - active.boot.started).unwrap_or(0);
                COUNTS.healthy.observe(Duration::from_millis(took));
            }
            active.boot.ended = Some(event.at);
            self.pending.boot(&active.boot);
            #[cfg(feature = "otel")]
            if let Some(ended) = &self.ended {
                ended.tell(&active.boot);
            }
        }
        active.phase = active.phase.max(event.phase);
        active.tells(&event);
        self.pending.event(active.boot.id, event);
    }
}
