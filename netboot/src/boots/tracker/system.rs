//! What systems that boot are given, and what they tell.

use std::net::IpAddr;

use kiln_inventory::{
    BootEvent, BootId, MachineId, Outcome, Phase, SeenFacts, StoreError, StoredFacts,
};
use kiln_types::{Digest, Mac};

use super::Tracker;
use crate::boots::late::{Denial, soon};
use crate::boots::message::Told;
use crate::boots::secret::same;
use crate::boots::{BootsError, Identity, Report, Reports, align};

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

impl Tracker {
    pub(super) async fn identity(
        &mut self,
        at: i64,
        peer: IpAddr,
        boot: BootId,
        key: &str,
    ) -> Result<Identity, BootsError> {
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
            self.refuse(at, peer, boot, refused);
            return Err(BootsError::Forbidden);
        }
        if active.secrets.as_ref().is_some_and(|secrets| !secrets.given) {
            let (machine, sha256) = (active.boot.machine, active.token_hash);
            // Before the machine has it: a server that starts anew must know it.
            if let Err(error) = self.keep_token(machine, boot, sha256).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, boot = boot.0, "not kept");
                return Err(BootsError::NotKept);
            }
        }
        let active = self.find(boot).ok_or(BootsError::Unknown)?;
        let secrets = active.secrets.as_mut().ok_or(BootsError::Forbidden)?;
        secrets.given = true;
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

    /// Remembers by what a system proves itself. A boot does not wait for a database that is away; only a server that
    /// starts anew before it is back does not know the system then.
    async fn keep_token(
        &mut self,
        machine: MachineId,
        boot: BootId,
        sha256: Digest,
    ) -> Result<(), StoreError> {
        if self.pending.late().is_lost(boot) {
            return Ok(());
        }
        if !self.pending.is_behind() {
            match soon(self.store.keep_token(boot, &sha256)).await {
                Err(error) if error.is_unavailable() => self.pending.failed(&error),
                kept => return kept,
            }
        }
        self.pending.late().token(machine, boot, sha256);
        Ok(())
    }

    /// Writes down that somebody was refused what belongs to a boot: in its timeline, where it takes no time and is no
    /// step of the machine, and in the log of changes.
    pub(in crate::boots) fn refuse(&mut self, at: i64, peer: IpAddr, boot: BootId, why: &str) {
        let Some(active) = self.find(boot) else { return };
        active.intruders += 1;
        if active.intruders > MAX_INTRUDERS {
            return;
        }
        let name = active.boot.machine_name.clone();
        let detail = format!("refused {peer}, which came {why}");
        tracing::warn!(%peer, boot = boot.0, machine = name, reason = why, "refused");
        self.pending.event(boot, BootEvent::new(at, Phase::Warning, detail));
        let asked = serde_json::json!({"boot": boot.0, "why": why});
        self.pending.late().denial(Denial { peer, machine: name, asked });
    }

    pub(super) fn reports(&mut self, at: i64, boot: BootId, Reports { uptime, reports }: Reports) {
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
    pub(super) async fn told(
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
        if self.pending.late().is_lost(boot) {
            return Ok(());
        }
        if self.pending.is_behind() {
            return Err(BootsError::NotKept);
        }
        let result = match told {
            Told::Facts(text) if machine.is_unknown() => match serde_json::from_str(&text) {
                Ok(facts) => soon(self.describe(mac, SeenFacts { boot, at, facts })).await,
                Err(_) => Ok(()),
            },
            Told::Facts(facts) => {
                soon(self.store.set_facts(machine, &StoredFacts { boot, at, facts })).await
            }
            Told::KernelLog(log) => soon(self.store.add_kernel_log(boot, at, &log)).await,
        };
        result.map_err(|error| {
            if error.is_unavailable() {
                self.pending.failed(&error);
            }
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
}
