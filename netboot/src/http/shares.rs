use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections of each address, and refuses more than so many: somebody who opens all he can does not keep the
/// others out.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
}

/// One connection of an address.
#[derive(Debug)]
pub(crate) struct Share(Shares, IpAddr);

impl Shares {
    pub(crate) fn of(most: usize) -> Self {
        Self { counts: Arc::default(), most }
    }

    pub(crate) fn take(&self, peer: IpAddr) -> Option<Share> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        (*count < self.most).then(|| {
            *count += 1;
            Share(self.clone(), peer)
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_a_place_again_when_one_is_free() {
        let (shares, [one, two]) =
            (Shares::of(2), [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from));
        let held = [shares.take(one), shares.take(one)];
        assert!(held.iter().all(Option::is_some) && shares.take(one).is_none());
        let other = shares.take(two);
        assert!(other.is_some());
        drop(held);
        assert_eq!(shares.counts.lock().unwrap().len(), 1, "nothing is kept of who has left");
        assert!(shares.take(one).is_some());
    }
}
