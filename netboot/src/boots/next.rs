//! Who proves to be the system of a boot, and the boots that running systems are told to start.

use std::net::IpAddr;

use kiln_inventory::{BootEvent, BootId, Firmware, MachineId, NewBoot, OrderId, Phase, StoreError};
use kiln_ipxe::BootTicket;

use super::active::Active;
use super::tracker::Tracker;
use super::{BootsError, NextPlan};
use crate::observe::COUNTS;

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
        if !self.taken_up && self.find(boot).is_none() {
            self.may_take_up().await;
            if !self.taken_up {
                return Err(BootsError::NotKept);
            }
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
            self.refuse(at, peer, boot, why);
            return Err(BootsError::Forbidden);
        }
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        let is_first = std::mem::replace(&mut active.proven, at) == 0;
        let machine = active.boot.machine;
        if is_first && !self.taken_up {
            // What the server before knew of the machine is over, whatever that is.
            self.pending.late().follows(machine, boot, at);
        }
        if let Err(error) = self.follow(at, machine, boot).await {
            tracing::error!(error = &error as &dyn std::error::Error, boot = boot.0, "not kept");
            return Err(BootsError::NotKept);
        }
        Ok(machine)
    }

    /// Lets a boot that proves itself take the place of those before it.
    async fn follow(
        &mut self,
        at: i64,
        machine: MachineId,
        boot: BootId,
    ) -> Result<(), StoreError> {
        let is_it = |active: &Active| active.boot.id == boot;
        if self.next.get(&machine).is_some_and(is_it) {
            self.follows(at, machine, boot).await?;
            if let Some(next) = self.next.remove(&machine)
                && let Some(old) = self.active.insert(machine, next)
            {
                self.is_over(at, old);
            }
        } else if self.active.get(&machine).is_some_and(|it| is_it(it) && it.before.is_some()) {
            self.follows(at, machine, boot).await?;
            if let Some(old) = self.next.remove(&machine) {
                self.is_over(at, old);
            }
            let before = self.active.get_mut(&machine).and_then(|active| active.before.take());
            if let Some(old) = before {
                self.is_over(at, *old);
            }
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
        let Some(running) = self.active.get(&machine).and_then(Active::running) else {
            return Ok(None);
        };
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
            let boot = self.number(new, false).await?;
            COUNTS.boots.begins(&boot);
            let id = boot.id;
            let name = &boot.machine_name;
            tracing::info!(boot = id.0, machine = name, %order, "boot begins by kexec");
            self.by_boot.insert(id, machine);
            let next = Active { order: Some(order), other, given, ..Active::new(boot) };
            if let Some(old) = self.next.insert(machine, next) {
                self.is_over(at, old);
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
