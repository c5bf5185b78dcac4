//! How boots begin: by what DHCP sees, and by what loaders ask for.

use std::net::IpAddr;

use kiln_inventory::{
    Asker, BootEvent, Decision, MachineId, NewBoot, Phase, Plan, Sighting, StoreError,
};
use kiln_ipxe::BootTicket;
use kiln_types::ImageRef;

use super::Tracker;
use crate::boots::Exchange;
use crate::boots::active::{Active, begins_anew};
use crate::boots::message::ScriptBy;
use crate::observe::COUNTS;

/// Boots of machines that nobody has added, which run at a time, and how long each has its place at least.
const MAX_STRANGERS: usize = 64;
const STRANGER_MS: i64 = 600_000;
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
        // What could not be done at the start is done before there are boots of this server.
        if !self.taken_up {
            self.take_up().await?;
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
        self.by_address.insert(peer, machine.id);
        if by != ScriptBy::Firmware {
            self.event(boot, BootEvent::new(at, Phase::Script, plan.image.to_string()));
        }
        Ok(ticket)
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
            self.by_boot.remove(&old.boot.id);
            self.give_up(at, old.boot);
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
