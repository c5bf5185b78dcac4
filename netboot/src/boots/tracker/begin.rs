//! How boots begin: by what DHCP sees, and by what loaders ask for.

use std::net::IpAddr;

use kiln_inventory::{
    Asker, Boot, BootEvent, BootId, Decision, MachineId, NewBoot, Phase, Plan, Sighting,
    SpareBoots, StoreError,
};
use kiln_ipxe::BootTicket;
use kiln_types::ImageRef;

use super::Tracker;
use crate::boots::Exchange;
use crate::boots::active::{Active, begins_anew};
use crate::boots::late::soon;
use crate::boots::message::ScriptBy;
use crate::observe::COUNTS;

/// Boots of machines that nobody has added, which run at a time, and how long each has its place at least.
const MAX_STRANGERS: usize = 64;
const STRANGER_MS: i64 = 600_000;
/// Numbers that are kept for boots that begin by DHCP while the database is away.
const FOR_DHCP: usize = 64;
/// Addresses of which is known who has them; in a network of another server anyone may claim any.
const MAX_WHO: usize = 1 << 16;

impl Tracker {
    pub(super) async fn seen(
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
                self.open(at, sighting, decision, address, false).await?;
            }
        }
        if !self.active.contains_key(&id) {
            return Ok(());
        }
        if let Some(address) = address {
            self.finds(address, id);
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

    /// Begins a boot: by a packet of the machine's own, or by a script's request that names it, which anybody can make.
    async fn open(
        &mut self,
        at: i64,
        sighting: &Sighting,
        decision: &Decision,
        address: Option<IpAddr>,
        by_script: bool,
    ) -> Result<(), StoreError> {
        let Some(machine) = decision.machine.as_ref() else { return Ok(()) };
        if !self.has_room(at, machine.id) {
            return Ok(());
        }
        let plan = match &decision.plan {
            Plan::Boot(plan) => Some(plan),
            _ => None,
        };
        let new = NewBoot {
            machine: machine.id,
            machine_name: machine.spec.name.clone(),
            mac: sighting.mac,
            firmware: sighting.firmware,
            image: plan.map(|p| p.image.clone()).or_else(|| wanted_image(decision)),
            version: plan.map(|p| p.version),
            arch: plan.map(|p| p.arch),
            address,
            started: at,
        };
        let boot = self.number(new, by_script).await?;
        tracing::info!(boot = boot.id.0, machine = boot.machine_name, mac = %boot.mac, "boot begins");
        COUNTS.boots.begins(&boot);
        let id = boot.id;
        let scripts = self.active.get(&machine.id).map_or((0, 0), |old| old.scripts);
        let before = if by_script {
            self.still_runs(at, machine.id)
        } else {
            // The machine came through its firmware, whatever its system was told to start.
            let known = [self.next.remove(&machine.id), self.active.remove(&machine.id)];
            known.into_iter().flatten().for_each(|old| self.is_over(at, old));
            None
        };
        // Whether another one runs is not known before the boots of the server before are.
        let follows = before.is_none() && (self.taken_up || !by_script);
        self.by_boot.insert(id, machine.id);
        let refused = plan.is_none();
        let active = Active { refused, before, by_script, scripts, ..Active::new(boot) };
        self.active.insert(machine.id, active);
        if plan.is_none() {
            let why: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
            let detail = format!("refused: {}", why.join("; "));
            self.event(id, BootEvent::new(at, Phase::Failed, detail));
        }
        if follows {
            self.follows(at, machine.id, id).await?;
        }
        Ok(())
    }

    /// Numbers and writes a boot that begins. While the database cannot be written it is written later.
    pub(in crate::boots) async fn number(
        &mut self,
        new: NewBoot,
        by_script: bool,
    ) -> Result<Boot, StoreError> {
        // What could not be done at the start is done before there are boots of this server.
        self.may_take_up().await;
        let mut again = true;
        loop {
            if self.spare.is_empty() {
                self.refill().await;
            }
            // Anybody can ask for scripts; those that come by DHCP have the rest.
            if by_script && self.pending.is_behind() && self.spare.len() <= FOR_DHCP {
                return Err(StoreError::NoSpareBoot);
            }
            let boot = new.clone().numbered(self.spare.take().ok_or(StoreError::NoSpareBoot)?);
            if !self.pending.is_behind() {
                match soon(self.store.begin_boot(&boot)).await {
                    Ok(()) => return Ok(boot),
                    Err(error) if error.is_unavailable() => self.pending.failed(&error),
                    // Numbers of a database that was put back: it has given them to others.
                    Err(error) if error.is_conflict() && again => {
                        self.spare = SpareBoots::default();
                        again = false;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.pending.late().begins(boot.clone());
            return Ok(boot);
        }
    }

    /// Forgets the tokens of all other boots of a machine, and ends what was ordered in them.
    pub(in crate::boots) async fn follows(
        &mut self,
        at: i64,
        machine: MachineId,
        boot: BootId,
    ) -> Result<(), StoreError> {
        if !self.pending.is_behind() {
            match soon(self.store.begins_anew(machine, boot, at)).await {
                Err(error) if error.is_unavailable() => self.pending.failed(&error),
                written => return written,
            }
        }
        self.pending.late().follows(machine, boot, at);
        Ok(())
    }

    /// Returns the boot that goes on reporting until the one that a script begins proves itself. One that cannot
    /// report is over.
    fn still_runs(&mut self, at: i64, machine: MachineId) -> Option<Box<Active>> {
        let mut old = self.active.remove(&machine)?;
        let before = old.before.take();
        if before.is_none() && old.may_run() && old.phase >= Phase::Segment {
            return Some(Box::new(old));
        }
        self.is_over(at, old);
        before
    }

    /// Ends a boot, and the one that it was to follow: nobody can prove to be their system any more.
    pub(in crate::boots) fn is_over(&mut self, at: i64, mut old: Active) {
        if let Some(before) = old.before.take() {
            self.is_over(at, *before);
        }
        self.by_boot.remove(&old.boot.id);
        self.give_up(at, old.boot);
    }

    pub(super) async fn script(
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
            // A refusal that DHCP did not tell, because another server gives the addresses. Nothing of a boot that is
            // known changes by it: anybody may ask.
            if known.is_none() {
                self.seen(at, sighting, decision, false, Some(peer), None).await?;
            }
            return Ok(None);
        };
        let current = self.active.get(&machine.id);
        // Without its secrets it goes on from a server before, and its loader is done, as it is where a system reports.
        let loads = current.is_some_and(|it| it.secrets.is_some() && it.proven == 0);
        let goes_on = loads && current.is_some_and(|active| active.boot.ended.is_none());
        if !goes_on {
            let current = self.active.get_mut(&machine.id);
            let too_often = current.is_some_and(|active| active.begins_too_often(at));
            // One that ended may be loaded once more instead.
            if too_often && !loads {
                return Ok(None);
            }
            if !too_often {
                self.open(at, sighting, decision, Some(peer), true).await?;
            }
        }
        let Some(active) = self.active.get_mut(&machine.id) else { return Ok(None) };
        // What is booted is settled here; the inventory may have changed since the DHCP packet.
        active.boot.image = Some(plan.image.clone());
        active.boot.version = Some(plan.version);
        active.boot.arch = Some(plan.arch);
        // The firmware said what it is before the loader did: iPXE after HTTP Boot says nothing of HTTP.
        active.boot.firmware = active.boot.firmware.or(sighting.firmware);
        let before = [active.boot.address, active.other];
        active.fetches_from(peer);
        let now = [active.boot.address, active.other];
        let boot = active.boot.id;
        let secrets = active.secrets.as_ref();
        let ticket = secrets.map(|secrets| BootTicket { boot, machine_key: secrets.key.clone() });
        active.loading = active.loading.max(at);
        self.pending.boot(&active.boot);
        // Who asks from ever new addresses has one at a time.
        for address in before.into_iter().flatten().filter(|address| !now.contains(&Some(*address)))
        {
            if self.by_address.get(&address) == Some(&machine.id) {
                self.by_address.remove(&address);
            }
        }
        self.finds(peer, machine.id);
        if by != ScriptBy::Firmware {
            self.event(boot, BootEvent::new(at, Phase::Script, plan.image.to_string()));
        }
        Ok(ticket)
    }

    /// Finds the machine by an address from now on.
    fn finds(&mut self, address: IpAddr, machine: MachineId) {
        if self.by_address.len() < MAX_WHO || self.by_address.contains_key(&address) {
            self.by_address.insert(address, machine);
        }
    }

    /// Keeps what the program at an address said. The system that boots from it has nothing to add.
    pub(super) fn note_who(&mut self, address: IpAddr, sighting: &Sighting) {
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
            self.is_over(at, old);
        }
        true
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
