//! What a server counts, from its start on.

use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering};

use super::End;

/// Counters that every thread may move.
#[derive(Debug, Default)]
pub struct Stats {
    pub(super) requests: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) not_found: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) probes: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) active: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) resent: AtomicU64,
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests to read.
    pub requests: u64,
    /// Packets that are no such request.
    pub malformed: u64,
    /// Requests for files that are not served.
    pub not_found: u64,
    /// Requests without an answer because of a limit.
    pub refused: u64,
    /// Transfers that came to their end.
    pub done: u64,
    /// Requests for the size of a file only.
    pub probes: u64,
    /// Transfers that broke off.
    pub broken: u64,
    /// Transfers under way.
    pub active: u64,
    /// Bytes that clients have acknowledged.
    pub bytes: u64,
    /// Blocks that were sent more than once.
    pub resent: u64,
}

impl Sum for Counts {
    /// Adds up what the servers of several addresses count.
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            requests: sum.requests + one.requests,
            malformed: sum.malformed + one.malformed,
            not_found: sum.not_found + one.not_found,
            refused: sum.refused + one.refused,
            done: sum.done + one.done,
            probes: sum.probes + one.probes,
            broken: sum.broken + one.broken,
            active: sum.active + one.active,
            bytes: sum.bytes + one.bytes,
            resent: sum.resent + one.resent,
        })
    }
}

impl Stats {
    /// Returns them all.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: get(&self.requests),
            malformed: get(&self.malformed),
            not_found: get(&self.not_found),
            refused: get(&self.refused),
            done: get(&self.done),
            probes: get(&self.probes),
            broken: get(&self.broken),
            active: get(&self.active),
            bytes: get(&self.bytes),
            resent: get(&self.resent),
        }
    }

    pub(super) fn ended(&self, end: &End, taken: u64, resent: u64) {
        let counter = match end {
            End::Done => &self.done,
            End::Probe | End::AskedAnew => &self.probes,
            End::GaveUp { .. } | End::Silent | End::Displaced | End::Stopped | End::Broken(_) => {
                &self.broken
            }
        };
        add(counter, 1);
        add(&self.bytes, taken);
        add(&self.resent, resent);
    }
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_several_addresses_are_counted_together() {
        let stats = [Stats::default(), Stats::default()];
        for one in &stats {
            add(&one.requests, 3);
            one.ended(&End::Done, 100, 1);
        }
        stats[1].ended(&End::Probe, 0, 0);
        let sum: Counts = stats.iter().map(Stats::counts).sum();
        assert_eq!((sum.requests, sum.done, sum.bytes, sum.resent), (6, 2, 200, 2));
        assert_eq!((sum.probes, sum.broken), (1, 0));
    }
}
