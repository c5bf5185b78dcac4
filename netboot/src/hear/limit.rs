//! How much one machine may say: a burst, and after that so much in a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes that an address may send at once, as a kernel does that panics.
const BURST: u64 = 256 << 10;
/// Bytes that it may send in a second from then on.
const RATE: u64 = 32 << 10;
/// A packet costs at least this much, however short it is.
const LEAST: u64 = 128;
/// Addresses that are remembered. More at a time are not heard until others have been silent for a while.
const MOST: usize = 4096;

/// What each address has used up.
#[derive(Debug, Default)]
pub(super) struct Limits {
    used: HashMap<IpAddr, (u64, Instant)>,
}

impl Limits {
    /// Returns whether a packet of this length is heard.
    pub(super) fn admits(&mut self, peer: IpAddr, length: usize, now: Instant) -> bool {
        if self.used.len() >= MOST && !self.used.contains_key(&peer) {
            self.used.retain(|_, (used, since)| left(*used, now - *since) > 0);
            if self.used.len() >= MOST {
                return false;
            }
        }
        let (used, since) = self.used.entry(peer).or_insert((0, now));
        let now_used = left(*used, now - *since) + LEAST.max(length as u64);
        if now_used > BURST {
            return false;
        }
        (*used, *since) = (now_used, now);
        true
    }
}

/// Returns what of the use is still there after a time.
fn left(used: u64, after: Duration) -> u64 {
    let back = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).saturating_mul(RATE) / 1000;
    used.saturating_sub(back)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_machine_that_talks_without_end_is_cut_short_and_the_others_are_not() {
        let mut limits = Limits::default();
        let (loud, calm) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Instant::now();
        let heard = (0..10_000).filter(|_| limits.admits(loud, 1_000, now)).count();
        assert_eq!(heard, 262);
        assert!(limits.admits(calm, 1_000, now));
        assert!(!limits.admits(loud, 1_000, now));
        let later = now + Duration::from_secs(1);
        let heard = (0..10_000).filter(|_| limits.admits(loud, 1_000, later)).count();
        assert_eq!(heard, 32);
    }

    #[test]
    fn made_up_addresses_do_not_fill_the_memory() {
        let mut limits = Limits::default();
        let now = Instant::now();
        for number in 0..100_000_u32 {
            limits.admits(Ipv4Addr::from_bits(number).into(), 10, now);
        }
        assert_eq!(limits.used.len(), MOST);
        let later = now + Duration::from_secs(1);
        assert!(limits.admits(IpAddr::from([10, 9, 9, 9]), 10, later));
    }
}
