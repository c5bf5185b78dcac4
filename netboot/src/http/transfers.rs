//! How many files are sent at a time, and how fast: so that a rack that is turned on at once neither fills the
//! network nor makes every machine wait until the last one is done.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::settings::TransferSettings;

/// Files that are no longer than this are sent whatever else is.
const SMALL: u64 = 1 << 20;
/// How long a request waits for its turn before it is told to come back. Loaders give up at 20 s. Tests wait less.
const PATIENCE: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// A turn ends when its file would be there at this speed, and so much later: who reads more slowly than that goes on
/// without one, and the next begins.
const SLOWEST: u64 = 1_000_000;
const GRACE: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// Requests that wait for their turn; more are told at once to come back.
const MAX_WAITING: usize = 2048;
/// What may be sent at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// The transfers of the whole server.
#[derive(Debug)]
pub struct Transfers {
    turns: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    all: Option<Bucket>,
    each: Option<u64>,
    clients: Mutex<HashMap<IpAddr, Client>>,
}

#[derive(Debug)]
struct Client {
    transfers: usize,
    bucket: Arc<Bucket>,
}

impl Transfers {
    /// Makes it as the settings say.
    pub fn new(settings: &TransferSettings) -> Arc<Self> {
        Arc::new(Self {
            turns: settings.at_once.map(|turns| Arc::new(Semaphore::new(turns))),
            waiting: AtomicUsize::new(0),
            all: settings.bandwidth.map(Bucket::new),
            each: settings.bandwidth_per_client,
            clients: Mutex::default(),
        })
    }

    /// Returns whether a large file would have to wait now.
    pub(super) fn are_full(&self) -> bool {
        self.turns.as_ref().is_some_and(|turns| turns.available_permits() == 0)
    }

    /// Returns how many requests wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for the turn of a transfer, in the order of the requests, and returns what paces it; nothing when it has
    /// to come back later.
    pub(super) async fn turn(self: &Arc<Self>, peer: IpAddr, len: u64) -> Option<Pace> {
        let turn = match &self.turns {
            Some(turns) if len > SMALL => Some(Turn::new(self.wait(turns).await?, len)),
            _ => None,
        };
        let client = self.each.map(|rate| {
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let client = clients
                .entry(peer)
                .or_insert_with(|| Client { transfers: 0, bucket: Arc::new(Bucket::new(rate)) });
            client.transfers += 1;
            Arc::clone(&client.bucket)
        });
        Some(Pace { transfers: Arc::clone(self), peer, client, _turn: turn })
    }

    async fn wait(&self, turns: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(turns).try_acquire_owned() {
            return Some(turn);
        }
        let _waits = Waits::new(&self.waiting)?;
        tokio::time::timeout(PATIENCE, Arc::clone(turns).acquire_owned()).await.ok()?.ok()
    }
}

/// Counts one that waits, as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Option<Self> {
        let waits = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One transfer: its place among those that are under way, and its speed.
#[derive(Debug)]
pub(super) struct Pace {
    transfers: Arc<Transfers>,
    peer: IpAddr,
    client: Option<Arc<Bucket>>,
    _turn: Option<Turn>,
}

/// A place among those that are served, until the transfer ends or has had its time.
#[derive(Debug)]
struct Turn {
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    end: AbortHandle,
}

impl Turn {
    fn new(permit: OwnedSemaphorePermit, len: u64) -> Self {
        let time = Duration::from_millis(len / (SLOWEST / 1000)) + GRACE;
        let permit = Arc::new(Mutex::new(Some(permit)));
        let held = Arc::clone(&permit);
        let end = async move {
            tokio::time::sleep(time).await;
            held.lock().unwrap_or_else(PoisonError::into_inner).take();
        };
        Self { permit, end: tokio::spawn(end).abort_handle() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end.abort();
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Pace {
    /// Returns how much to send in one step, so that a slow transfer is slow all the time and not in jerks.
    pub(super) fn step(&self) -> u64 {
        let rates = [self.transfers.all.as_ref(), self.client.as_deref()];
        let slowest = rates.into_iter().flatten().map(|bucket| bucket.rate).min();
        slowest.map_or(u64::MAX, |rate| (rate / 20).max(4 << 10))
    }

    /// Takes so many bytes, and returns how long to wait before they are sent.
    pub(super) fn take(&self, bytes: usize) -> Option<Duration> {
        let free = self.transfers.all.is_none() && self.client.is_none();
        if free { None } else { self.take_at(bytes, Instant::now()) }
    }

    fn take_at(&self, bytes: usize, now: Instant) -> Option<Duration> {
        let bytes = bytes as u64;
        let buckets = [self.transfers.all.as_ref(), self.client.as_deref()];
        let wait = buckets.into_iter().flatten().map(|bucket| bucket.take(bytes, now)).max()?;
        (!wait.is_zero()).then_some(wait)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if self.client.is_none() {
            return;
        }
        let mut clients = self.transfers.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(&self.peer) {
            client.transfers = client.transfers.saturating_sub(1);
            // A client that only comes back at once begins anew, with no more than a burst.
            if client.transfers == 0 {
                clients.remove(&self.peer);
            }
        }
    }
}

/// Bytes per second.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// When all that was taken will have been sent.
    empty: Mutex<Option<Instant>>,
}

impl Bucket {
    const fn new(rate: u64) -> Self {
        Self { rate, empty: Mutex::new(None) }
    }

    /// Takes bytes and returns how long to wait before they are sent.
    fn take(&self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate.max(1) as f64);
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let after = empty.unwrap_or(earliest).max(earliest) + cost;
        *empty = Some(after);
        after.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn settings(at_once: Option<usize>, all: Option<u64>, each: Option<u64>) -> TransferSettings {
        TransferSettings { at_once, bandwidth: all, bandwidth_per_client: each }
    }

    /// Sends so many bytes for each of these clients at the same time, by a clock of its own, and returns when each was
    /// done.
    async fn send(transfers: &Arc<Transfers>, clients: &[u8], bytes: u64) -> Vec<Duration> {
        let start = Instant::now();
        let mut all = Vec::new();
        for client in clients {
            let pace = transfers.turn(peer(*client), bytes).await.unwrap();
            all.push((Duration::ZERO, bytes, pace));
        }
        // The one whose turn is next sends its next part.
        while let Some((at, left, pace)) =
            all.iter_mut().filter(|(_, left, _)| *left > 0).min_by_key(|(at, ..)| *at)
        {
            let step = (*left).min(pace.step()).min(512 << 10);
            let wait = pace.take_at(usize::try_from(step).unwrap(), start + *at);
            *at += wait.unwrap_or_default();
            *left -= step;
        }
        all.into_iter().map(|(at, ..)| at).collect()
    }

    #[tokio::test]
    async fn every_client_gets_its_rate_and_all_together_theirs() {
        let settings = settings(None, Some(20_000_000), Some(10_000_000));
        let near = |times: &[Duration], millis: u128| {
            let all = times.iter().all(|time| time.as_millis().abs_diff(millis) < 300);
            assert!(all, "{times:?}, not {millis} ms");
        };
        near(&send(&Transfers::new(&settings), &[1], 100_000_000).await, 10_000);
        // Two transfers of one client share its rate, four clients share that of the server, and none is ahead.
        near(&send(&Transfers::new(&settings), &[1, 1], 50_000_000).await, 10_000);
        let transfers = Transfers::new(&settings);
        near(&send(&transfers, &[1, 2, 3, 4], 50_000_000).await, 10_000);
        assert!(transfers.clients.lock().unwrap().is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn a_rack_that_is_turned_on_at_once_is_served_in_turn_and_nobody_is_forgotten() {
        let transfers = Transfers::new(&settings(Some(8), None, None));
        let under_way = Arc::new(AtomicUsize::new(0));
        let mut machines = tokio::task::JoinSet::new();
        for last in 0..200 {
            let (transfers, under_way) = (Arc::clone(&transfers), Arc::clone(&under_way));
            machines.spawn(async move {
                let mut refused = 0;
                loop {
                    // As a boot script does: ask again when told to.
                    let Some(pace) = transfers.turn(peer(last), 50_000_000).await else {
                        refused += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
                    assert!(now <= 8, "{now} at once");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    drop(pace);
                    return refused;
                }
            });
        }
        let mut refused = 0;
        while let Some(machine) = machines.join_next().await {
            refused += machine.unwrap();
        }
        assert!(refused > 0, "some had to come back");
        assert_eq!(transfers.waiting.load(Ordering::Relaxed), 0);
        assert!(!transfers.are_full());
    }

    #[tokio::test]
    async fn who_reads_slowly_holds_up_the_next_for_a_bounded_time() {
        let transfers = Transfers::new(&settings(Some(1), None, None));
        let begun = Instant::now();
        let slow = transfers.turn(peer(1), 1_100_000).await.unwrap();
        let mut refused = 0;
        while transfers.turn(peer(2), 1_100_000).await.is_none() {
            refused += 1;
        }
        // At a megabyte a second it would have been there; it still sends.
        assert!(begun.elapsed() >= Duration::from_millis(1100) && refused > 0, "{refused}");
        drop(slow);
        assert!(!transfers.are_full());
    }

    #[tokio::test]
    async fn a_small_file_waits_for_nobody() {
        let transfers = Transfers::new(&settings(Some(1), None, None));
        let first = transfers.turn(peer(1), 50 << 20).await.unwrap();
        assert!(transfers.are_full());
        let small = transfers.turn(peer(2), SMALL).await.unwrap();
        assert_eq!((small.step(), small.take(1 << 20)), (u64::MAX, None), "no rate is set");
        assert!(transfers.turn(peer(2), SMALL + 1).await.is_none());
        drop(first);
        assert!(!transfers.are_full());
        assert!(transfers.turn(peer(2), SMALL + 1).await.is_some());
    }
}
