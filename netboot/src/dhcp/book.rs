use std::collections::HashSet;
use std::time::Duration;

use tracing::{info, warn};

use super::claims::{Shares, boot_time};
use super::clock::Clock;
use super::leases::Timestamp;

/// The leases of one family, each with its end.
pub(super) trait Table: Shares {
    /// What is kept of an address that is given.
    type Lease;
    /// How the log calls the leases.
    const NAME: &'static str;

    /// Moves the ends of all leases that ran at a moment, because the clock was set, and returns them: clients count
    /// their time by clocks of their own. What was offered or declined moves too.
    fn shift(&mut self, seconds: i64, then: Timestamp) -> Vec<Self::Lease>;
}

/// A table of leases, with the clock by which they end and what of the pools is ours.
#[derive(Debug)]
pub(super) struct Book<T> {
    table: T,
    clock: Clock,
    /// When the claims of this server end, where it shares its pools: a time since the host was started.
    until: Option<Duration>,
}

impl<T: Table> Book<T> {
    pub(super) fn new(table: T) -> Self {
        Self { table, clock: Clock::new(), until: None }
    }

    /// Lends the table with the time. When the clock was set since the last look, all leases end as much later, and `keep`
    /// is called with them; it returns false when it cannot send them on their way to disk.
    pub(super) fn lend(&mut self, keep: impl FnOnce(Vec<T::Lease>) -> bool) -> (&mut T, Timestamp) {
        let (now, set) = self.clock.read();
        if let Some(until) = self.until {
            self.table.ours_mut().set_left(until.saturating_sub(boot_time()));
        }
        if set != 0 {
            let moved = self.table.shift(set, Timestamp(now.0.saturating_sub(set)));
            let (count, leases) = (moved.len(), T::NAME);
            info!(seconds = set, count, "the clock was set; {leases} end as much later");
            if !keep(moved) {
                warn!("the new ends of {leases} could not be kept: too many wait for the disk");
            }
        }
        (&mut self.table, now)
    }

    /// Takes the blocks that are claimed, and until when: a time since the host was started.
    pub(super) fn set_claims(&mut self, blocks: HashSet<u128>, until: Duration) {
        self.until = Some(until);
        self.table.ours_mut().set_claims(blocks);
    }
}

#[cfg(test)]
impl<T> Book<T> {
    /// Pretends that the clock of the system is set forward by so many seconds.
    pub(super) fn clock_is_set(&mut self, seconds: i64) {
        self.clock.is_set(seconds);
    }
}
