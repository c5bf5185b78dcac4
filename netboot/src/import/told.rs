//! What files say of leases. One says also which have ended, so that an older one does not bring them back.

use std::collections::BTreeMap;

/// The leases of addresses, and the addresses whose lease has ended.
#[derive(Debug)]
pub(super) struct Told<A, L>(BTreeMap<A, Said<L>>);

#[derive(Debug)]
struct Said<L> {
    /// Nothing where it has ended.
    lease: Option<L>,
    since: Since,
}

/// Since when something is so, and whether that is the end of a lease, which comes after the lease of the same moment.
/// The same for all of a file that does not say so.
pub(super) type Since = (i64, bool);

impl<A: Ord, L> Default for Told<A, L> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Ord, L> Told<A, L> {
    /// Notes a lease, or that there is none any more. Within a file the last counts.
    pub(super) fn say(&mut self, address: A, lease: Option<L>, since: Since) {
        self.0.insert(address, Said { lease, since });
    }

    /// Takes over what a further file says, unless it is older.
    pub(super) fn extend(&mut self, further: Self) {
        for (address, said) in further.0 {
            if self.0.get(&address).is_none_or(|there| there.since <= said.since) {
                self.0.insert(address, said);
            }
        }
    }

    /// Returns the leases that have not ended.
    pub(super) fn leases(self) -> Vec<L> {
        self.0.into_values().filter_map(|said| said.lease).collect()
    }
}
