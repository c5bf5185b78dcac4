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

    /// Goes on for a second or so, and the next time with the rest: boots wait meanwhile.
    async fn try_to_write(&mut self, store: &Store) -> Result<(), StoreError> {
        let until = Instant::now() + GO;
        self.unfinished = true;
        while self.late.write_one(store).await? {
            if Instant::now() >= until {
                return Ok(());
            }
        }
        while let Some(boot) = self.events.keys().next().copied() {
            if Instant::now() >= until {
                return Ok(());
            }
            let Some(events) = self.events.get_mut(&boot) else { break };
            let part = events.len().min(self.at_once);
            if !self.late.is_lost(boot) {
                given_up(
                    soon(store.add_events(boot, events.get(..part).unwrap_or_default())).await,
                )?;
            }
            events.drain(..part);
            self.waiting -= part;
            if events.is_empty() {
                self.events.remove(&boot);
            }
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
mod tests {
    use kiln_inventory::{MachineId, NewBoot, Phase};

    use super::*;
    use crate::boots::tests::open_boot;

    async fn store() -> (tempfile::TempDir, Store, Boot) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let boot = NewBoot::new(MachineId(1), "n1", Mac::new([2; 6]), 1);
        let boot = open_boot(&store, boot).await;
        (dir, store, boot)
    }

    /// Another connection to the same database, which makes it fail.
    async fn saboteur(dir: &tempfile::TempDir) -> sqlx::SqlitePool {
        let options = sqlx::sqlite::SqliteConnectOptions::new();
        let pool =
            sqlx::SqlitePool::connect_with(options.filename(dir.path().join("inventory.db")));
        pool.await.unwrap()
    }

    #[tokio::test]
    async fn events_that_cannot_be_written_are_kept_in_order_and_written_later() {
        let (dir, store, boot) = store().await;
        let other = saboteur(&dir).await;
        let fail = "CREATE TRIGGER full BEFORE INSERT ON boot_events \
                    BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
        sqlx::query(fail).execute(&other).await.unwrap();
        let mut pending = Pending::new();
        pending.event(boot.id, BootEvent::new(1, Phase::Dhcp, "a"));
        pending.write(&store).await;
        let again = pending.again().unwrap();
        pending.event(boot.id, BootEvent::new(2, Phase::Script, "b"));
        pending.write(&store).await;
        assert_eq!(pending.again(), Some(again), "it does not try before its time");
        sqlx::query("DROP TRIGGER full").execute(&other).await.unwrap();
        while pending.is_behind() {
            pending.is_due().await;
            pending.write(&store).await;
        }
        assert_eq!((pending.again(), pending.waiting), (None, 0));
        let (_, events) = store.boot(boot.id).await.unwrap().unwrap();
        assert_eq!(events.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_database_that_answers_late_is_asked_for_less_at_once() {
        let (_dir, store, boot) = store().await;
        let mut pending = Pending::new();
        for steps in [64, 32, 16, 8, 4, 2, 1, 1] {
            pending.failed(&StoreError::Silent);
            assert_eq!(pending.at_once, steps);
        }
        for number in 0..5 {
            pending.event(boot.id, BootEvent::new(number, Phase::Dhcp, ""));
        }
        pending.hurry();
        while pending.waiting > 0 {
            pending.write(&store).await;
        }
        assert_eq!(store.boot(boot.id).await.unwrap().unwrap().1.len(), 5);
        assert!(pending.at_once >= 2, "{}", pending.at_once);
    }

    #[tokio::test]
    async fn events_of_a_boot_that_is_gone_do_not_hold_up_others() {
        let (_dir, store, boot) = store().await;
        let mut pending = Pending::new();
        pending.event(BootId(99), BootEvent::new(1, Phase::Dhcp, ""));
        pending.event(boot.id, BootEvent::new(1, Phase::Dhcp, ""));
        pending.write(&store).await;
        while pending.unfinished && pending.again().is_none() {
            pending.write(&store).await;
        }
        assert_eq!((pending.again(), pending.waiting), (None, 0));
        assert_eq!(store.boot(boot.id).await.unwrap().unwrap().1.len(), 1);
    }

    #[test]
    fn a_crowd_of_sightings_takes_a_twentieth_of_the_time() {
        assert_eq!(rest_after(Duration::from_millis(5)), REST);
        assert_eq!(rest_after(Duration::from_millis(200)), Duration::from_millis(3800));
        assert_eq!(rest_after(Duration::from_secs(60)), LONGEST_REST);
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let mut pending = Pending::new();
        for number in 0..MOST_EVENTS + 5 {
            let boot = BootId(i64::try_from(number % 100).unwrap());
            pending.event(boot, BootEvent::new(1, Phase::Dhcp, ""));
        }
        assert_eq!((pending.waiting, pending.lost), (MOST_EVENTS, 5));
        for number in 0..=MOST_SIGHTINGS {
            let number = u32::try_from(number).unwrap().to_be_bytes();
            let mac = Mac::new([2, 0, number[0], number[1], number[2], number[3]]);
            let sighting = Sighting { mac, asker: Asker::Ipxe, firmware: None, uuid: None };
            pending.sighting(sighting, 1);
        }
        assert_eq!(pending.sightings.len(), MOST_SIGHTINGS);
    }
}
