//! The task that owns what is known of running boots.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use kiln_inventory::{
    Asker, Boot, BootEvent, BootId, Database, Decision, MachineId, NewBoot, Outcome, Phase, Plan,
    SeenFacts, Sighting, Store, StoreError, StoredFacts,
};
use kiln_ipxe::BootTicket;
use kiln_types::{ImageRef, Mac};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::active::{Active, begins_anew};
use super::align;
use super::pending::Pending;
use super::secret::same;
use super::{BootsError, Exchange, Identity, Message, Report, Reports, ScriptBy, Told, Transfer};
use crate::discovery::Discovery;
use crate::observe::COUNTS;

/// Messages that are written in one go.
const BATCH: usize = 256;
/// Events kept of one boot, so that a machine in a loop does not fill the disk.
const MAX_EVENTS: usize = 400;
/// Those among them of files that were asked for in vain.
const MAX_VAIN: usize = 40;
/// Characters of what a system says in one event.
const MAX_DETAIL: usize = 512;
/// Times that one boot may tell something besides its timeline.
const MAX_TOLD: usize = 32;
/// Refusals that are told of one boot.
const MAX_INTRUDERS: usize = 3;
/// Times that a loader may fetch the machine's own segment: what broke off is fetched again.
const MAX_SEGMENTS: usize = 16;
/// How long the key for it works after the loader was seen at work last.
const KEY_LIFETIME_MS: i64 = 15 * 60_000;
/// Boots of machines that nobody has added, which run at a time, and how long each has its place at least.
const MAX_STRANGERS: usize = 64;
const STRANGER_MS: i64 = 600_000;
/// Addresses of which is known who has them; in a network of another server anyone may claim any.
const MAX_WHO: usize = 1 << 16;
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
    pending: Pending,
    discovery: Option<Discovery>,
}

impl Tracker {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            active: HashMap::new(),
            next: HashMap::new(),
            by_boot: HashMap::new(),
            by_address: HashMap::new(),
            who: HashMap::new(),
            pending: Pending::new(),
            discovery: None,
        }
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        if let Err(error) = self.take_up().await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "cannot take up the boots of the server before");
        }
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let again = self.pending.again();
            let retry = tokio::time::sleep_until(again.unwrap_or_else(Instant::now));
            tokio::select! {
                taken = messages.recv_many(&mut batch, BATCH) => if taken == 0 { break },
                () = retry, if again.is_some() => {}
            }
            for message in batch.drain(..) {
                if let Err(error) = self.take(message).await {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot open a boot");
                }
            }
            self.pending.write(&self.store).await;
        }
        self.pending.write_at_last(&self.store).await;
    }

    /// Takes up the boots whose systems have their token: they go on reporting. Every other boot that the server before
    /// left under way is ended, however young: its secrets were in that server's memory only, so that the machine
    /// cannot fetch its own segment any more. Its next try is a new boot.
    async fn take_up(&mut self) -> Result<(), StoreError> {
        for (boot, token_hash) in self.store.running_boots().await? {
            let machine = boot.machine;
            self.by_boot.insert(boot.id, machine);
            if let Some(address) = boot.address {
                self.by_address.insert(address, machine);
            }
            let known = Active::known(boot, token_hash);
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
        let boots = self.store.abandon_boots(super::now_ms()).await?;
        if boots > 0 {
            tracing::info!(boots, "boots abandoned at restart");
        }
        Ok(())
    }

    /// Here, so that no boot is opened before those of the server before are taken up.
    async fn go_on(&mut self, database: &Database) -> Result<(), StoreError> {
        self.store.reached(database).await?;
        self.take_up().await
    }

    async fn take(&mut self, message: Message) -> Result<(), StoreError> {
        match message {
            Message::Discovery(discovery) => self.discovery = Some(discovery),
            Message::GoOn { database, reply } => {
                let _ = reply.send(self.go_on(&database).await);
            }
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
                let boot = active.filter(|active| active.is_from(peer)).map(|it| it.boot.id);
                let _ = reply.send(boot);
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
                let active = self.active.get(&machine).filter(|active| active.runs());
                let _ = reply.send(active.map(|active| active.boot.clone()));
            }
            Message::Next { at, machine, plan, order, reply } => {
                let ticket = self.next(at, machine, plan, order).await?;
                let _ = reply.send(ticket);
            }
            Message::NextFailed { at, machine, detail } => self.next_failed(at, machine, detail),
        }
        Ok(())
    }

    async fn seen(
        &mut self,
        at: i64,
        sighting: &Sighting,
        decision: &Decision,
        fresh: bool,
        address: Option<IpAddr>,
        exchange: Option<Exchange>,
    ) -> Result<(), StoreError> {
        let Some(machine) = decision.machine.as_ref() else { return Ok(()) };
        let id = machine.id;
        if matches!(decision.plan, Plan::Boot(_) | Plan::Refuse) {
            let current = self.active.get(&id);
            if current.is_none_or(|active| begins_anew(active, at, sighting.asker, fresh)) {
                self.open(at, sighting, decision, address).await?;
            }
        }
        if let Some(address) = address {
            self.by_address.insert(address, id);
        }
        let Some(active) = self.active.get_mut(&id) else { return Ok(()) };
        if address.is_some_and(|address| active.takes(address)) {
            self.pending.boot(&active.boot);
        }
        if active.boot.firmware.is_none() && sighting.firmware.is_some() {
            active.boot.firmware = sighting.firmware;
            self.pending.boot(&active.boot);
        }
        if active.boot.ended.is_some() {
            return Ok(());
        }
        if sighting.asker != Asker::System {
            active.loading = active.loading.max(at);
        }
        if active.tells_of(sighting.asker, exchange.is_some()) {
            let boot = active.boot.id;
            let detail = in_words(sighting.asker, exchange, address);
            self.event(boot, BootEvent::new(at, Phase::Dhcp, detail));
        }
        Ok(())
    }

    async fn open(
        &mut self,
        at: i64,
        sighting: &Sighting,
        decision: &Decision,
        address: Option<IpAddr>,
    ) -> Result<(), StoreError> {
        let Some(machine) = decision.machine.as_ref() else { return Ok(()) };
        if !self.has_room(at, machine.id) {
            return Ok(());
        }
        let plan = match &decision.plan {
            Plan::Boot(plan) => Some(plan),
            _ => None,
        };
        // The machine came through its firmware, whatever its system was told to start.
        let known = [self.next.remove(&machine.id), self.active.remove(&machine.id)];
        for old in known.into_iter().flatten() {
            self.by_boot.remove(&old.boot.id);
            self.give_up(at, old.boot);
        }
        let boot = self
            .store
            .open_boot(&NewBoot {
                machine: machine.id,
                machine_name: machine.spec.name.clone(),
                mac: sighting.mac,
                firmware: sighting.firmware,
                image: plan.map(|p| p.image.clone()).or_else(|| wanted_image(decision)),
                version: plan.map(|p| p.version),
                arch: plan.map(|p| p.arch),
                address,
                started: at,
            })
            .await?;
        tracing::info!(boot = boot.id.0, machine = boot.machine_name, mac = %boot.mac, "boot begins");
        COUNTS.boot_begins();
        let id = boot.id;
        self.by_boot.insert(id, machine.id);
        self.active.insert(machine.id, Active { refused: plan.is_none(), ..Active::new(boot) });
        self.store.forget_tokens(machine.id, id).await?;
        self.store.close_orders(machine.id, id, at).await?;
        if plan.is_none() {
            let why: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
            let detail = format!("refused: {}", why.join("; "));
            self.event(id, BootEvent::new(at, Phase::Failed, detail));
        }
        Ok(())
    }

    /// Ends a boot that another one follows.
    pub(super) fn give_up(&mut self, at: i64, mut boot: Boot) {
        if boot.ended.is_none() {
            boot.outcome = Outcome::Abandoned;
            COUNTS.boot_ends(boot.outcome);
            boot.ended = Some(at);
            self.pending.boot(&boot);
        }
    }

    async fn script(
        &mut self,
        at: i64,
        peer: IpAddr,
        sighting: &Sighting,
        decision: &Decision,
        by: ScriptBy,
    ) -> Result<Option<BootTicket>, StoreError> {
        let Some(machine) = decision.machine.as_ref() else { return Ok(None) };
        let known = self.active.get(&machine.id);
        if by != ScriptBy::Ipxe && known.is_some_and(|active| active.is_anothers(peer)) {
            return Ok(None);
        }
        let Plan::Boot(plan) = &decision.plan else {
            // A refusal that DHCP did not tell, because another server gives the addresses.
            self.seen(at, sighting, decision, false, Some(peer), None).await?;
            return Ok(None);
        };
        let current = self.active.get(&machine.id);
        // Without its secrets it goes on from a server before, and its loader is done.
        if current.is_none_or(|active| active.boot.ended.is_some() || active.secrets.is_none()) {
            self.open(at, sighting, decision, Some(peer)).await?;
        }
        let Some(active) = self.active.get_mut(&machine.id) else { return Ok(None) };
        // What is booted is settled here; the inventory may have changed since the DHCP packet.
        active.boot.image = Some(plan.image.clone());
        active.boot.version = Some(plan.version);
        active.boot.arch = Some(plan.arch);
        // The firmware said what it is before the loader did: iPXE after HTTP Boot says nothing of HTTP.
        active.boot.firmware = active.boot.firmware.or(sighting.firmware);
        active.fetches_from(peer);
        let boot = active.boot.id;
        let secrets = active.secrets.as_ref();
        let ticket = secrets.map(|secrets| BootTicket { boot, machine_key: secrets.key.clone() });
        active.loading = active.loading.max(at);
        self.pending.boot(&active.boot);
        self.by_address.insert(peer, machine.id);
        if by != ScriptBy::Firmware {
            self.event(boot, BootEvent::new(at, Phase::Script, plan.image.to_string()));
        }
        Ok(ticket)
    }

    /// Keeps what the program at an address said. The system that boots from it has nothing to add.
    fn note_who(&mut self, address: IpAddr, sighting: &Sighting) {
        let before = self.who.get(&address);
        let room = before.is_some() || self.who.len() < MAX_WHO;
        let adds = sighting.asker != Asker::System
            || before.is_none_or(|before| before.mac != sighting.mac);
        // What the firmware said counts: it is what decides about its loader.
        let by_loader = sighting.asker == Asker::Ipxe
            && before.is_some_and(|it| it.mac == sighting.mac && it.asker == Asker::Firmware);
        if room && adds && !by_loader {
            self.who.insert(address, sighting.clone());
        }
    }

    pub(super) fn find(&mut self, boot: BootId) -> Option<&mut Active> {
        let machine = self.by_boot.get(&boot)?;
        let both = [self.active.get_mut(machine), self.next.get_mut(machine)];
        both.into_iter().flatten().find(|active| active.boot.id == boot)
    }

    fn sent(&mut self, at: i64, boot: BootId, transfer: Transfer) {
        let Transfer { phase, detail, bytes, millis } = transfer;
        if let Some(active) = self.find(boot) {
            active.loading = active.loading.max(at);
        }
        let event = BootEvent::new(at, phase, detail);
        let (bytes, millis) = (Some(bytes), Some(millis));
        self.event(
            boot,
            match phase {
                Phase::Absent => event,
                _ => BootEvent { bytes, millis, ..event },
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

    async fn identity(
        &mut self,
        at: i64,
        peer: IpAddr,
        boot: BootId,
        key: &str,
    ) -> Result<Identity, BootsError> {
        let store = self.store.clone();
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        let version = active.boot.version.ok_or(BootsError::Unknown)?;
        let (is_from, begun) = (active.is_from(peer), active.phase >= Phase::Init);
        let stale = at - active.loading > KEY_LIFETIME_MS;
        let given = active.given.contains(&peer);
        let refused = match &active.secrets {
            Some(secrets) if !same(&secrets.key, key) => "with a key that is not that of this boot",
            _ if !is_from => "from an address that is not the machine's",
            None => "with a key from before this server started",
            Some(_) if begun => "with a key that is used up: its system has reported already",
            Some(_) if stale => "with a key whose time is over",
            Some(secrets) if secrets.times >= MAX_SEGMENTS => {
                "with a key that is used up: it was used too often"
            }
            Some(_) => "",
        };
        if !refused.is_empty() {
            self.refuse(at, peer, boot, refused).await;
            return Err(BootsError::Forbidden);
        }
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        let secrets = active.secrets.as_mut().ok_or(BootsError::Forbidden)?;
        if !secrets.given {
            // Before the machine has it: a server that starts anew must know it.
            if let Err(error) = store.keep_token(boot, &active.token_hash).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    boot = boot.0,
                    "not kept"
                );
                return Err(BootsError::NotKept);
            }
            secrets.given = true;
        }
        secrets.times += 1;
        Ok(Identity {
            boot,
            peer,
            given,
            token: secrets.token.clone(),
            hostname: active.boot.machine_name.clone(),
            mac: active.boot.mac,
            version,
            address: active.boot.address,
            started: active.boot.started,
        })
    }

    /// Writes down that somebody was refused what belongs to a boot: in its timeline, where it takes no time and is no
    /// step of the machine, and in the log of changes.
    pub(super) async fn refuse(&mut self, at: i64, peer: IpAddr, boot: BootId, why: &str) {
        let Some(active) = self.find(boot) else { return };
        active.intruders += 1;
        if active.intruders > MAX_INTRUDERS {
            return;
        }
        let name = active.boot.machine_name.clone();
        let detail = format!("refused {peer}, which came {why}");
        tracing::warn!(%peer, boot = boot.0, machine = name, why, "refused");
        self.pending.event(boot, BootEvent::new(at, Phase::Warning, detail));
        let asked = serde_json::json!({"boot": boot.0, "why": why});
        let store = self.store.acting(&peer.to_string());
        if let Err(error) = store.record_denial("boot", &name, asked).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a refusal cannot be written down");
        }
    }

    fn warn(&mut self, at: i64, boot: BootId, detail: String) {
        let Some(active) = self.find(boot).filter(|active| !active.warned) else { return };
        active.warned = true;
        tracing::warn!(boot = boot.0, machine = active.boot.machine_name, "{detail}");
        self.event(boot, BootEvent::new(at, Phase::Warning, detail));
    }

    fn reports(&mut self, at: i64, boot: BootId, Reports { uptime, reports }: Reports) {
        let Some(active) = self.find(boot) else { return };
        // An older kiln-init does not say how long its kernel has run; it was at least as long as to its last report.
        let uptime = uptime.or_else(|| reports.iter().filter_map(|report| report.millis).max());
        let mut start = active.boot.kernel_start;
        if let Some(uptime) = uptime
            && active.boot.outcome == Outcome::Booting
        {
            let better = Some(align::kernel_start(start, at, uptime, active.loading));
            if better != start {
                start = better;
                active.boot.kernel_start = better;
                let changed = active.boot.clone();
                self.pending.boot(&changed);
            }
        }
        // What the server sees for itself is not the machine's to say.
        for report in reports.into_iter().filter(|report| report.phase >= Phase::Init) {
            let detail: String =
                report.detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
            let Report { phase, millis, took, .. } = report;
            let at = start.zip(millis).map_or(at, |(start, m)| align::place(start, m, at));
            self.event(boot, BootEvent { millis, took, ..BootEvent::new(at, phase, detail) });
        }
    }

    /// Keeps what a machine tells besides its timeline. Not more often than an honest one does.
    async fn told(
        &mut self,
        at: i64,
        peer: IpAddr,
        boot: BootId,
        token: &str,
        told: Told,
    ) -> Result<(), BootsError> {
        let machine = self.proven(at, peer, boot, token).await?;
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        active.told += 1;
        if active.told > MAX_TOLD {
            return Err(BootsError::TooOften);
        }
        let mac = active.boot.mac;
        let result = match told {
            Told::Facts(text) if machine.is_unknown() => match serde_json::from_str(&text) {
                Ok(facts) => self.describe(mac, SeenFacts { boot, at, facts }).await,
                Err(_) => Ok(()),
            },
            Told::Facts(facts) => {
                self.store.set_facts(machine, &StoredFacts { boot, at, facts }).await
            }
            Told::KernelLog(log) => self.store.add_kernel_log(boot, at, &log).await,
        };
        result.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, boot = boot.0, "not kept");
            BootsError::NotKept
        })
    }

    /// Keeps what a machine says of itself that nobody has added.
    async fn describe(&self, mac: Mac, told: SeenFacts) -> Result<(), StoreError> {
        let news = self.store.describe_discovered(mac, told).await?;
        if let (Some(entry), Some(discovery)) = (news, &self.discovery) {
            discovery.news(entry);
        }
        Ok(())
    }

    /// Makes room for the boot of a machine that nobody has added: anyone can make such machines up. Returns whether there
    /// is any.
    fn has_room(&mut self, at: i64, machine: MachineId) -> bool {
        let strangers = self.active.iter().filter(|(id, _)| id.is_unknown());
        if !machine.is_unknown()
            || self.active.contains_key(&machine)
            || strangers.count() < MAX_STRANGERS
        {
            return true;
        }
        let strangers = self.active.iter().filter(|(id, _)| id.is_unknown());
        let oldest = strangers.min_by_key(|(_, active)| active.boot.started);
        let Some((id, started)) = oldest.map(|(id, active)| (*id, active.boot.started)) else {
            return false;
        };
        if at - started < STRANGER_MS {
            return false;
        }
        if let Some(old) = self.active.remove(&id) {
            self.by_boot.remove(&old.boot.id);
            self.give_up(at, old.boot);
        }
        true
    }

    /// Adds one event to a boot, and lets it end the boot.
    pub(super) fn event(&mut self, id: BootId, event: BootEvent) {
        let machine = self.by_boot.get(&id);
        let both = [&mut self.active, &mut self.next].map(|boots| boots.get_mut(machine?));
        let found = both.into_iter().flatten().find(|active| active.boot.id == id);
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
            COUNTS.boot_ends(active.boot.outcome);
            if active.boot.outcome == Outcome::Healthy {
                let took = u64::try_from(event.at - active.boot.started).unwrap_or(0);
                COUNTS.healthy.observe(Duration::from_millis(took));
            }
            active.boot.ended = Some(event.at);
            self.pending.boot(&active.boot);
        }
        active.phase = active.phase.max(event.phase);
        self.pending.event(active.boot.id, event);
    }
}

/// Returns the image that a machine is to run although it boots nothing now.
fn wanted_image(decision: &Decision) -> Option<ImageRef> {
    decision.settings.as_ref()?.image.as_ref().map(|said| said.value.clone())
}

/// Says what a program of the machine asked by DHCP, and what it got.
fn in_words(asker: Asker, exchange: Option<Exchange>, address: Option<IpAddr>) -> String {
    let asker = match asker {
        Asker::Firmware => "firmware",
        Asker::Ipxe => "ipxe",
        Asker::System => "system",
    };
    match (exchange, address) {
        (None, Some(address)) => format!("{asker} gets {address}"),
        (None, None) => asker.to_owned(),
        (Some(Exchange { asked, answer: Some(answer), .. }), Some(address)) => {
            format!("{asker} {asked}, {answer} {address}")
        }
        (Some(Exchange { asked, answer: Some(answer), note }), None) => {
            format!("{asker} {asked}, {answer}: {note}")
        }
        (Some(Exchange { asked, answer: None, note }), _) => format!("{asker} {asked}: {note}"),
    }
}
