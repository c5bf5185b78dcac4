//! What waits to be written to the inventory: a disk that is full or a backup that holds the database for a while must
//! not cost a boot its timeline.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_inventory::{Asker, Boot, BootEvent, BootId, Sighting, Store, StoreError};
use kiln_types::Mac;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::late::{Late, given_up, soon};
use crate::observe::COUNTS;
use crate::trouble::Trouble;

/// Events that may wait; more are lost, and how many is told.
const MOST_EVENTS: usize = 20_000;
/// Sightings that may wait: a machine that is not remembered now repeats itself.
const MOST_SIGHTINGS: usize = 4096;
/// So many sightings at once are a crowd, after which the next are written only after a while: so long that no more than
/// a twentieth of the time goes into it.
const CROWD: usize = 64;
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(20);
/// Sightings, or events of one boot, that are written in one step: the database has to answer soon. Fewer where it did
/// not.
const AT_ONCE: usize = 128;
/// So long is written in one go.
const GO: Duration = Duration::from_secs(1);
/// So long is written before the server stops, and one answer of the database more.
const LAST: Duration = Duration::from_secs(5);
/// The first wait after a failure, doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Sightings, events and boots that are not on disk yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// What is written before anything else.
    late: Late,
    events: HashMap<BootId, Vec<BootEvent>>,
    boots: HashMap<BootId, Boot>,
    sightings: HashMap<(Mac, Asker), (Sighting, i64)>,
    waiting: usize,
    lost: usize,
    retry: Duration,
    trouble: Trouble,
    /// When to try again after a failure.
    again: Option<Instant>,
    /// Whether there was more to write than one go may take.
    unfinished: bool,
    /// How many events of a boot were being written when the database did not answer: they may be there.
    doubt: Option<(BootId, usize)>,
    /// How much is written in one step now.
    at_once: usize,
    /// Asks the database whether it is there again, so that no boot waits for the answer.
    probe: Option<JoinHandle<Result<(), StoreError>>>,
    /// When sightings are written next, after there were many at once.
    rest: Option<Instant>,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            late: Late::default(),
            events: HashMap::new(),
            boots: HashMap::new(),
            sightings: HashMap::new(),
            waiting: 0,
            lost: 0,
            retry: FIRST_RETRY,
            trouble: Trouble::new(
                "cannot keep the timelines of boots; they wait in memory, and are tried again",
                "the timelines of boots are written again",
            ),
            again: None,
            unfinished: false,
            doubt: None,
            at_once: AT_ONCE,
            probe: None,
            rest: None,
        }
    }

    /// Returns whether the database was away when it was last asked, and is not asked yet again.
    pub(super) const fn waits(&self) -> bool {
        self.again.is_some()
    }

    /// Returns whether what is written now would come before what waits, or would fail: the database was away when it
    /// was last asked.
    pub(super) fn is_behind(&self) -> bool {
        self.again.is_some() || !self.late.is_empty()
    }

    /// Returns what is written before events, once the database is there.
    pub(super) const fn late(&mut self) -> &mut Late {
        &mut self.late
    }

    pub(super) fn sighting(&mut self, sighting: Sighting, at: i64) {
        let key = (sighting.mac, sighting.asker);
        if self.sightings.len() < MOST_SIGHTINGS || self.sightings.contains_key(&key) {
            self.sightings.insert(key, (sighting, at));
        }
    }

    pub(super) fn event(&mut self, boot: BootId, event: BootEvent) {
        if self.waiting >= MOST_EVENTS {
            self.lost += 1;
            COUNTS.lost.add(1);
            return;
        }
        self.waiting += 1;
        self.events.entry(boot).or_default().push(event);
    }

    /// Remembers how far a boot is now.
    pub(super) fn boot(&mut self, boot: &Boot) {
        self.boots.insert(boot.id, boot.clone());
    }

    /// Waits until there is something to write without being asked by anything new.
    pub(super) async fn is_due(&mut self) {
        if let Some(probe) = &mut self.probe {
            let answer = probe.await;
            self.probe = None;
            match answer {
                Ok(Ok(())) | Err(_) => self.again = None,
                Ok(Err(error)) => self.failed(&error),
            }
            return;
        }
        if self.unfinished && self.again.is_none() {
            return;
        }
        match self.again() {
            Some(again) => tokio::time::sleep_until(again).await,
            None => std::future::pending().await,
        }
    }

    fn again(&self) -> Option<Instant> {
        self.again.or_else(|| self.rest.filter(|_| !self.sightings.is_empty()))
    }

    /// Notes that the database is there, as far as others know.
    pub(super) fn hurry(&mut self) {
        (self.again, self.probe) = (None, None);
    }

    /// Notes that the database could not be written, so that nothing waits for it in vain until it is there again.
    pub(super) fn failed(&mut self, error: &StoreError) {
        COUNTS.store_failures.add(1);
        if matches!(error, StoreError::Silent) {
            self.at_once = (self.at_once / 2).max(1);
        }
        self.trouble.failed(None, &crate::cli::chain(error));
        self.again = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
    }

    /// Writes what it can. What cannot be written now is kept and tried again later, the wait growing.
    pub(super) async fn write(&mut self, store: &Store) {
        COUNTS.backlog.store(i64::try_from(self.waiting).unwrap_or(i64::MAX), Ordering::Relaxed);
        if let Some(again) = self.again {
            if again <= Instant::now() && self.probe.is_none() {
                let store = store.clone();
                self.probe = Some(tokio::spawn(async move { soon(store.is_writable()).await }));
            }
            return;
        }
        let begin = Instant::now();
        let written = self.try_to_write(store).await;
        COUNTS.store.observe(begin.elapsed());
        COUNTS.backlog.store(i64::try_from(self.waiting).unwrap_or(i64::MAX), Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.at_once = (self.at_once * 2).min(AT_ONCE);
                self.trouble.over(None);
                if self.lost > 0 {
                    tracing::error!(
                        events = self.lost,
                        "lost, as more had to wait than there is room for"
                    );
                }
                (self.retry, self.lost) = (FIRST_RETRY, 0);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Tries a last time, whatever failed before.
    pub(super) async fn write_at_last(&mut self, store: &Store) {
        let until = Instant::now() + LAST;
        if self.rest.take().is_some() {
            self.write(store).await;
        }
        if let Some(again) = self.again {
            tokio::time::sleep_until(again.min(Instant::now() + FIRST_RETRY)).await;
            self.hurry();
            self.write(store).await;
        }
        while self.unfinished && self.again.is_none() && Instant::now() < until {
            self.write(store).await;
        }
        if self.waiting > 0 || self.late.boots() > 0 {
            let (events, boots) = (self.waiting, self.late.boots());
            tracing::error!(events, boots, "lost, as the server stops");
        }
    }

    fn are_written(&mut self, boot: BootId, part: usize) {
        let Some(events) = self.events.get_mut(&boot) else { return };
        events.drain(..part.min(events.len()));
        self.waiting -= part;
        if events.is_empty() {
            self.events.remove(&boot);
        }
    }

    /// Goes on for a second or so, and the next time with the rest: boots wait meanwhile.
    async fn try_to_write(&mut self, store: &Store) -> Result<(), StoreError> {
        let until = Instant::now() + GO;
        self.unfinished = true;
        while self.late.write_one(store).await? {
            if Instant::now() >= until {
                return Ok(());
            }
        }
        if let Some((boot, part)) = self.doubt {
            let events = self.events.get(&boot).and_then(|all| all.get(..part)).unwrap_or_default();
            let are_there = soon(store.ends_in(boot, events)).await?;
            if are_there {
                self.are_written(boot, part);
            }
            self.doubt = None;
        }
        while let Some(boot) = self.events.keys().next().copied() {
            if Instant::now() >= until {
                return Ok(());
            }
            let Some(events) = self.events.get(&boot) else { break };
            let part = events.len().min(self.at_once);
            if !self.late.is_lost(boot) {
                let written =
                    soon(store.add_events(boot, events.get(..part).unwrap_or_default())).await;
                if matches!(written, Err(StoreError::Silent)) {
                    self.doubt = Some((boot, part));
                }
                given_up(written)?;
            }
            self.are_written(boot, part);
        }
        while let Some(id) = self.boots.keys().next().copied() {
            if Instant::now() >= until {
                return Ok(());
            }
            if let Some(boot) = self.boots.get(&id).filter(|_| !self.late.is_lost(id)) {
                given_up(soon(store.update_boot(boot)).await)?;
            }
            self.boots.remove(&id);
        }
        if self.rest.is_none_or(|rest| rest <= Instant::now()) {
            let (count, begun) = (self.sightings.len(), Instant::now());
            while !self.sightings.is_empty() {
                if Instant::now() >= until {
                    self.rest = Some(Instant::now() + rest_after(begun.elapsed()));
                    return Ok(());
                }
                let part = self.sightings.iter().take(self.at_once);
                let (keys, seen): (Vec<_>, Vec<_>) =
                    part.map(|(key, seen)| (*key, seen.clone())).unzip();
                let seen: Vec<_> = seen.iter().map(|(seen, at)| (seen, *at)).collect();
                given_up(soon(store.record_sightings(&seen)).await)?;
                keys.iter().for_each(|key| drop(self.sightings.remove(key)));
            }
            // A flood of made-up machines must not keep disk and processor from those that want an address.
            self.rest = (count > CROWD).then(|| Instant::now() + rest_after(begun.elapsed()));
        }
        self.unfinished = false;
        Ok(())
    }
}

/// Returns how long sightings wait after a crowd that took so long to write.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(19).clamp(REST, LONGEST_REST)
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
