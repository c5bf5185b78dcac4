//! Machines that nobody has added: the queue in which they wait, and the task that keeps it.
//!
//! ```text
//!  DHCP ─▶ Discovery::seen ─(bounded)─▶ keeper ─▶ store ─▶ rules and lists ─▶ a machine, ignored, held
//! ```
//!
//! Anyone on the network can make machines up. So nothing waits for this task, what it has not written yet is bounded,
//! and after a crowd it rests, so that most of the time is left to machines that want to boot.

mod judge;
mod like;
#[cfg(test)]
mod tests;
mod vendor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_inventory::{Glimpse, Place, Sighting};
use kiln_types::Mac;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::judge::Judge;
use crate::boots::now_ms;
use crate::trouble::Trouble;
use crate::view::View;

pub use self::like::LooksLike;
pub use self::vendor::Vendors;

/// Messages that may wait.
const QUEUE: usize = 1024;
/// Interfaces that may wait to be written.
const MOST_WAITING: usize = 512;
/// How long it rests at least, and at most.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Message {
    Seen(Box<Glimpse>),
    /// More is known of an entry.
    News(i64),
}

/// The way to the task that keeps the queue. Clones share it.
#[derive(Clone, Debug)]
pub struct Discovery {
    queue: mpsc::Sender<Message>,
}

/// The task's own state.
#[derive(Debug)]
pub struct Keeper {
    messages: mpsc::Receiver<Message>,
    waiting: HashMap<Mac, Glimpse>,
    news: Vec<i64>,
    judge: Judge,
    most: u32,
    unkept: Trouble,
    unsettled: Trouble,
}

impl Discovery {
    /// Makes the queue, of at most so many entries, and the task that keeps it.
    pub fn new(view: Arc<View>, vendors: Vendors, most: u32) -> (Self, Keeper) {
        let (queue, messages) = mpsc::channel(QUEUE);
        let judge = Judge::new(view, vendors);
        let (waiting, news) = (HashMap::new(), Vec::new());
        let unkept = Trouble::new(
            "machines that nobody has added are not kept now",
            "machines that nobody has added are kept again",
        );
        let unsettled = Trouble::new(
            "rules for machines that nobody has added are not applied now",
            "rules for machines that nobody has added are applied again",
        );
        let keeper = Keeper { messages, waiting, news, judge, most, unkept, unsettled };
        (Self { queue }, keeper)
    }

    /// Notes a machine that nobody has added and that wants to boot. Never waits: it repeats itself.
    pub fn seen(&self, sighting: &Sighting, place: Place) {
        let (at, sighting) = (now_ms(), sighting.clone());
        let glimpse = Glimpse { at, times: 1, sighting, place };
        let _ = self.queue.try_send(Message::Seen(Box::new(glimpse)));
    }

    /// Notes that more is known of an entry than before.
    pub fn news(&self, entry: i64) {
        let _ = self.queue.try_send(Message::News(entry));
    }
}

impl Keeper {
    /// Keeps the queue until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rest: Option<Instant> = None;
        // What was seen last may not have been settled when the server before ended.
        let before = self.judge.unsettled().await;
        self.news.extend(self.unkept.note(before).unwrap_or_default());
        loop {
            let due = rest.unwrap_or_else(Instant::now);
            let idle = self.waiting.is_empty() && self.news.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                message = self.messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                () = tokio::time::sleep_until(due), if !idle => {
                    let begun = Instant::now();
                    self.write().await;
                    rest = Some(Instant::now() + rest_after(begun.elapsed()));
                }
            }
        }
        self.write().await;
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::News(entry) => {
                if self.news.len() < MOST_WAITING && !self.news.contains(&entry) {
                    self.news.push(entry);
                }
            }
            Message::Seen(seen) => {
                let mac = seen.sighting.mac;
                if let Some(known) = self.waiting.get_mut(&mac) {
                    join(known, *seen);
                } else if self.waiting.len() < MOST_WAITING {
                    self.waiting.insert(mac, *seen);
                }
            }
        }
    }

    async fn write(&mut self) {
        let mut seen: Vec<Glimpse> = self.waiting.drain().map(|(_, seen)| seen).collect();
        // Entries are numbered in the order in which their machines came.
        seen.sort_by_key(|seen| (seen.at, seen.sighting.mac));
        let mut news = std::mem::take(&mut self.news);
        if !seen.is_empty() {
            let more = self.judge.store().take_glimpses(&seen, self.most).await;
            news.extend(self.unkept.note(more).into_iter().flatten());
        }
        news.sort_unstable();
        news.dedup();
        if !news.is_empty() && self.unsettled.note(self.judge.settle(&news).await).is_none() {
            self.news = news;
        }
    }
}

/// Takes what was seen again into what was seen before and is not written yet.
fn join(known: &mut Glimpse, seen: Glimpse) {
    known.times = known.times.saturating_add(seen.times);
    let Place { subnet, relay, circuit_id, address, hostname, vendor_class, duid } = seen.place;
    let place = &mut known.place;
    place.subnet = subnet.or_else(|| place.subnet.take());
    place.relay = relay.or(place.relay);
    place.circuit_id = circuit_id.or_else(|| place.circuit_id.take());
    place.address = address.or(place.address);
    place.hostname = hostname.or_else(|| place.hostname.take());
    place.vendor_class = vendor_class.or_else(|| place.vendor_class.take());
    place.duid = duid.or_else(|| place.duid.take());
    known.sighting.uuid = known.sighting.uuid.take().or(seen.sighting.uuid);
    known.sighting.firmware = known.sighting.firmware.or(seen.sighting.firmware);
}

/// Returns how long it rests after work that took so long: it is to take no more than a twentieth of the time.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(19).clamp(REST, LONGEST_REST)
}
