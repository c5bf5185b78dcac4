//! Who proves to be the system of a boot, and the boots that running systems are told to start.

use std::net::IpAddr;

use kiln_inventory::{BootEvent, BootId, Firmware, MachineId, NewBoot, OrderId, Phase, StoreError};
use kiln_ipxe::BootTicket;

use super::active::Active;
use super::tracker::Tracker;
use super::{BootsError, NextPlan};

impl Tracker {
    /// Returns the machine whose system proves that it runs this boot. The first proof of a boot that the system
    /// before was told to start ends that system's boot.
    pub(super) async fn proven(
        &mut self,
        at: i64,
        peer: IpAddr,
        boot: BootId,
        token: &str,
    ) -> Result<MachineId, BootsError> {
        if !self.taken_up && self.take_up().await.is_err() {
            return Err(BootsError::NotKept);
        }
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        let refused = match (active.is_from(peer), active.knows(token)) {
            (true, true) => None,
            (_, false) => Some("with a token that is not that of this boot"),
            (false, true) => {
                Some("with the token of this boot, from an address that is not the machine's")
            }
        };
        if let Some(why) = refused {
            self.refuse(at, peer, boot, why).await;
            return Err(BootsError::Forbidden);
        }
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        let machine = active.boot.machine;
        if self.next.get(&machine).is_some_and(|next| next.boot.id == boot)
            && let Err(error) = self.follow(at, machine).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, boot = boot.0, "not kept");
            return Err(BootsError::NotKept);
        }
        Ok(machine)
    }

    /// Lets the boot that a running system was told to start take its place.
    async fn follow(&mut self, at: i64, machine: MachineId) -> Result<(), StoreError> {
        let Some(boot) = self.next.get(&machine).map(|next| next.boot.id) else { return Ok(()) };
        self.store.forget_tokens(machine, boot).await?;
        self.store.close_orders(machine, boot, at).await?;
        if let Some(next) = self.next.remove(&machine)
            && let Some(old) = self.active.insert(machine, next)
        {
            self.by_boot.remove(&old.boot.id);
            self.give_up(at, old.boot);
        }
        Ok(())
    }

    /// Opens the boot that a running system is told to start. The same order has the same boot.
    pub(super) async fn next(
        &mut self,
        at: i64,
        machine: MachineId,
        plan: NextPlan,
        order: OrderId,
    ) -> Result<Option<BootTicket>, StoreError> {
        let Some(running) = self.active.get(&machine) else { return Ok(None) };
        if self.next.get(&machine).is_none_or(|next| next.order != Some(order)) {
            let (other, given) = (running.other, running.given.clone());
            let new = NewBoot {
                machine,
                machine_name: running.boot.machine_name.clone(),
                mac: running.boot.mac,
                firmware: Some(Firmware::Kexec),
                image: Some(plan.image),
                version: Some(plan.version),
                arch: Some(plan.arch),
                address: running.boot.address,
                started: at,
            };
            let boot = self.store.open_boot(&new).await?;
            let id = boot.id;
            let name = &boot.machine_name;
            tracing::info!(boot = id.0, machine = name, %order, "boot begins by kexec");
            self.by_boot.insert(id, machine);
            let next = Active { order: Some(order), other, given, ..Active::new(boot) };
            if let Some(old) = self.next.insert(machine, next) {
                self.by_boot.remove(&old.boot.id);
                self.give_up(at, old.boot);
            }
            self.event(id, BootEvent::new(at, Phase::Kexec, format!("order {order}")));
        }
        Ok(self.next.get(&machine).and_then(|next| {
            let machine_key = next.secrets.as_ref()?.key.clone();
            Some(BootTicket { boot: next.boot.id, machine_key })
        }))
    }

    /// Ends the boot that a running system could not start.
    pub(super) fn next_failed(&mut self, at: i64, machine: MachineId, detail: String) {
        let Some(boot) = self.next.get(&machine).map(|next| next.boot.id) else { return };
        self.event(boot, BootEvent::new(at, Phase::Failed, detail));
        self.by_boot.remove(&boot);
        self.next.remove(&machine);
    }
}
