//! Other DHCP servers in networks where this one gives the addresses, as far as it hears of them: a client that takes
//! the address of another one says so to everybody, with the name of that server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One that no client has chosen for so long is gone.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Servers that are remembered. Whoever names more of them makes them up.
const MOST: usize = 64;

/// The other servers, and when each was chosen last.
#[derive(Debug)]
pub struct Rivals(Mutex<BTreeMap<Ipv4Addr, Instant>>);

impl Rivals {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Notes that a client has chosen another server, and returns whether that is news.
    pub fn chosen(&self, server: Ipv4Addr, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, last| now.duration_since(*last) < FORGOTTEN);
        if known.len() >= MOST && !known.contains_key(&server) {
            return false;
        }
        known.insert(server, now).is_none()
    }

    /// Returns how many there are.
    pub fn count(&self, now: Instant) -> usize {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|last| now.duration_since(**last) < FORGOTTEN).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_server_counts_until_nobody_has_chosen_it_for_an_hour() {
        let (rivals, start) = (Rivals::new(), Instant::now());
        let [one, other] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
        assert!(rivals.chosen(one, start));
        assert!(!rivals.chosen(one, start + FORGOTTEN / 2));
        assert!(rivals.chosen(other, start + FORGOTTEN / 2));
        assert_eq!(rivals.count(start + FORGOTTEN), 2);
        assert_eq!(rivals.count(start + FORGOTTEN * 2), 0);
        assert!(rivals.chosen(one, start + FORGOTTEN * 2), "it is back");
        for address in 0..1000 {
            rivals.chosen(Ipv4Addr::from_bits(address), start + FORGOTTEN * 2);
        }
        assert_eq!(rivals.count(start + FORGOTTEN * 2), MOST);
    }
}
