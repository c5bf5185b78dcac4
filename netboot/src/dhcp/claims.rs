//! Pools that several servers share: each gives the addresses of the blocks that it has claimed, and no others. What
//! makes that safe is told in docs/adr/0018.
//!
//! Addresses of IPv4 and IPv6 are numbers here, so that one piece of code claims for both.

mod plan;

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use kiln_inventory::{BLOCK, Pools, Store, StoreError};
use nix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::plan::place;
use self::plan::plan;
use super::leases::Timestamp;

/// With less time left, an address is not given: its client would have to ask again at once.
const SHORTEST: Duration = Duration::from_secs(60);
/// By how much we count on less time than the database has written down.
const MARGIN: Duration = Duration::from_secs(60);
/// How often the claims are made to last longer.
const BEAT: Duration = Duration::from_secs(5);
/// How often it is seen whether there are enough free addresses.
const LOOK: Duration = Duration::from_millis(250);
const BLOCK_SIZE: u128 = BLOCK as u128;

/// What of the pools is ours to give: all, or where other servers have the rest, some blocks for some time.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    claims: Option<Claims>,
    /// Networks in which no address was found, and when.
    full: HashMap<u128, Timestamp>,
}

/// The blocks of this server, and how long their addresses may be leased from now on.
#[derive(Clone, Debug, Default)]
struct Claims {
    blocks: HashSet<u128>,
    left: Duration,
}

impl Ours {
    /// Returns whether an address of a pool is ours to give.
    pub(super) fn may_lease(&self, address: impl Into<u128>) -> bool {
        self.claims.as_ref().is_none_or(|claims| {
            claims.left >= SHORTEST && claims.blocks.contains(&(address.into() / BLOCK_SIZE))
        })
    }

    /// Returns how long an address of a pool may be leased at most, where that is bounded.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.claims.as_ref().map(|claims| claims.left)
    }

    /// Returns the blocks that are ours, where other servers have the rest.
    pub(super) fn blocks(&self) -> Option<&HashSet<u128>> {
        self.claims.as_ref().map(|claims| &claims.blocks)
    }

    /// Gives only what is claimed from now on, which is nothing at first, and then these blocks.
    pub(super) fn set_claims(&mut self, blocks: HashSet<u128>) {
        self.claims.get_or_insert_default().blocks = blocks;
        self.full.clear();
    }

    /// Notes how long the claims last from now on.
    pub(super) fn set_left(&mut self, left: Duration) {
        if let Some(claims) = &mut self.claims {
            claims.left = left;
        }
    }

    /// Gives the addresses of these blocks too from now on.
    fn claim(&mut self, blocks: &[u128]) {
        if let Some(claims) = &mut self.claims {
            claims.blocks.extend(blocks);
            self.full.clear();
        }
    }

    /// Gives no address of these blocks from now on.
    fn unclaim(&mut self, blocks: &[u128]) {
        if let Some(claims) = &mut self.claims {
            claims.blocks.retain(|block| !blocks.contains(block));
        }
    }

    /// Notes that a network has no address left, so that not every request looks through all of its pool.
    pub(super) fn note_full(&mut self, network: impl Into<u128>, now: Timestamp) {
        self.full.insert(network.into(), now);
    }

    /// Notes that an address may have become free.
    pub(super) fn note_free(&mut self) {
        self.full.clear();
    }

    /// Returns whether a network was found to have no address left in this second, and none has become free since.
    pub(super) fn is_full(&self, network: impl Into<u128>, now: Timestamp) -> bool {
        self.full.get(&network.into()) == Some(&now)
    }
}

/// Returns the addresses of a block.
pub(super) fn addresses(block: u128) -> impl Iterator<Item = u128> {
    let first = block.saturating_mul(BLOCK_SIZE);
    first..=first.saturating_add(BLOCK_SIZE - 1)
}

/// Returns a time that goes on while the computer sleeps, and that nobody sets.
pub(super) fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A subnet with a pool.
pub trait Pooled {
    /// The ranges of its pool.
    fn ranges(&self) -> Vec<RangeInclusive<u128>>;
    /// Returns whether a machine without a reservation may have this address of its pool.
    fn gives(&self, address: u128) -> bool;
    /// The longest lease of its addresses.
    fn longest_lease(&self) -> Duration;
}

/// Who has which address, and what of the pools is ours.
pub trait Shares {
    /// Returns what is ours.
    fn ours(&self) -> &Ours;
    /// Returns what is ours, to be changed.
    fn ours_mut(&mut self) -> &mut Ours;
    /// Returns whether nobody has the address, was offered it, or was found to use it.
    fn is_idle(&self, address: u128, now: Timestamp) -> bool;
}

/// The leases of all subnets of one family, with what of their pools is ours.
pub trait SharedLedger: Send + 'static {
    /// Which pools.
    const POOLS: Pools;
    /// What a subnet is.
    type Subnet: Pooled + Send + Sync;

    /// Lends the table, with the time.
    fn lend<T>(&self, work: impl FnOnce(&mut dyn Shares, Timestamp) -> T) -> T;
    /// Takes the blocks that are claimed, and until when: a time since the host was started.
    fn set_claims(&self, blocks: HashSet<u128>, until: Duration);
    /// Returns whether every lease that this server gave is known. Nothing is claimed before.
    fn is_whole(&self) -> bool {
        true
    }
}

/// Keeps the claims of a server: they last as long as it beats, and grow as its addresses are given.
#[derive(Debug)]
pub struct Claimer<L: SharedLedger> {
    store: Store,
    ledger: L,
    subnets: Vec<L::Subnet>,
    /// How long a claim lasts after the last beat.
    lasting: Duration,
    place: usize,
    lost: bool,
}

impl<L: SharedLedger> Claimer<L> {
    /// Makes the claims that the server needs to begin. Until then it gives no address of a pool: where the database
    /// cannot be reached, until it can be.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn start(
        store: Store,
        ledger: L,
        subnets: Vec<L::Subnet>,
        place: usize,
    ) -> Result<Self, StoreError> {
        ledger.set_claims(HashSet::new(), Duration::ZERO);
        let longest = subnets.iter().map(Pooled::longest_lease);
        // Half of it may pass without the database before a lease is shorter than it should be.
        let lasting = longest.max().unwrap_or_default() * 2 + 2 * MARGIN;
        let mut claimer = Self { store, ledger, subnets, lasting, place, lost: false };
        match claimer.begin().await {
            Ok(()) => {}
            Err(error) if error.is_unavailable() => claimer.lost = true,
            Err(error) => return Err(error),
        }
        Ok(claimer)
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        if !self.ledger.is_whole() {
            self.lost = true;
            return Ok(());
        }
        self.beat().await?;
        self.look().await
    }

    /// Goes on until told to stop. What was claimed stays claimed until its time is over, since leases last too.
    pub async fn run(mut self, stop: CancellationToken) {
        // Blocks in which somebody has an address that is not known yet must not be given back.
        while !self.ledger.is_whole() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        let mut beats = tokio::time::interval(BEAT);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                _ = beats.tick() => self.beat().await,
                _ = looks.tick(), if !self.lost => self.look().await,
            };
            match done {
                Ok(()) if self.lost => {
                    info!("the inventory is reached again");
                    self.lost = false;
                }
                Err(error) if !self.lost => {
                    let error = crate::cli::chain(&error);
                    warn!(
                        error,
                        "the claims of addresses cannot be renewed; leases go on and become shorter in time"
                    );
                    self.lost = true;
                }
                _ => {}
            }
        }
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        // Counted from before the database counts.
        let until = (boot_time() + self.lasting).saturating_sub(MARGIN);
        let blocks = self.store.renew_claims(L::POOLS, self.lasting).await?;
        self.ledger.set_claims(blocks.into_iter().collect(), until);
        Ok(())
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let see = |others: &HashSet<u128>| {
            let (subnets, place) = (&self.subnets, self.place);
            self.ledger.lend(|table, now| {
                let plan = plan(table, subnets, others, place, now);
                // From here on no address of them is given, before another server may do so.
                table.ours_mut().unclaim(&plan.give_back);
                plan
            })
        };
        let first = see(&HashSet::new());
        self.store.give_back(L::POOLS, &first.give_back).await?;
        if first.claim.is_empty() {
            return Ok(());
        }
        let others = self.store.claimed_by_others(L::POOLS).await?.into_iter().collect();
        let wanted = see(&others).claim;
        if !wanted.is_empty() {
            let claimed = self.store.claim(L::POOLS, &wanted, self.lasting).await?;
            self.ledger.lend(|table, _| table.ours_mut().claim(&claimed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kiln_inventory::Lease;
    use kiln_types::Mac;

    use super::super::leases::LeaseTable;
    use super::super::subnet::{Role, Subnet};
    use super::plan::{PLACES, Plan, READY, once_around};
    use super::*;

    const NOW: Timestamp = Timestamp(1000);

    fn subnet(pool: RangeInclusive<Ipv4Addr>) -> Subnet {
        Subnet {
            network: "10.0.0.0/16".parse().unwrap(),
            interface: "lan0".into(),
            address: [10, 0, 255, 1].into(),
            role: Role::Server,
            relayed: false,
            pool: vec![pool],
            router: vec![],
            dns: vec![],
            domain: None,
            lease_time: Duration::from_secs(3600),
            rules: crate::dhcp::Rules::default(),
        }
    }

    fn table(blocks: impl IntoIterator<Item = u128>) -> LeaseTable {
        let mut table = LeaseTable::default();
        table.ours.set_claims(blocks.into_iter().collect());
        table.ours.set_left(Duration::from_secs(3600));
        table
    }

    const FIRST: u128 = 0x0a00_0000 / BLOCK_SIZE;

    fn in_block(block: u128, number: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::try_from(block * BLOCK_SIZE + number).unwrap())
    }

    #[test]
    fn a_server_claims_an_eighth_of_a_pool_and_not_what_others_have() {
        // 64 blocks: an eighth are 128 addresses in 8 blocks.
        let subnets = [subnet([10, 0, 0, 0].into()..=[10, 0, 3, 255].into())];
        let others = (FIRST..FIRST + 10).collect();
        let first = plan(&table([]), &subnets, &others, 0, NOW);
        assert_eq!(first.claim, (FIRST + 10..FIRST + 18).collect::<Vec<_>>());
        let far = plan(&table([]), &subnets, &HashSet::new(), 60, NOW);
        assert_eq!(far.claim[..5], [FIRST + 60, FIRST + 61, FIRST + 62, FIRST + 63, FIRST]);
        let enough = plan(&table(FIRST..FIRST + 8), &subnets, &HashSet::new(), 0, NOW);
        assert_eq!(enough, Plan::default());
    }

    #[test]
    fn more_is_claimed_when_half_is_given_and_what_nobody_uses_is_given_back() {
        let subnets = [subnet([10, 0, 0, 0].into()..=[10, 0, 3, 255].into())];
        let mut used = table(FIRST..FIRST + 8);
        for number in 0..80_u8 {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + u32::from(number));
            let mac = Mac::new([2, 0, 0, 0, 0, number]);
            used.insert(Lease { address, mac, expires: 2000, hostname: None });
        }
        // Of 128 one cannot be given: the address of the network.
        assert_eq!(plan(&used, &subnets, &HashSet::new(), 0, NOW).claim.len(), 5);
        let mut many = table(FIRST..FIRST + 30);
        let lease = Lease {
            address: in_block(FIRST + 29, 0),
            mac: Mac::new([2; 6]),
            expires: 2000,
            hostname: None,
        };
        many.insert(lease);
        let plan = plan(&many, &subnets, &HashSet::new(), 0, NOW);
        assert!(plan.claim.is_empty() && !plan.give_back.is_empty());
        assert!(!plan.give_back.contains(&(FIRST + 29)), "somebody has an address there");
        many.ours.unclaim(&plan.give_back);
        let address = in_block(plan.give_back[0], 3);
        assert!(!many.may_lease(address));
    }

    #[test]
    fn without_claims_that_last_no_address_is_given() {
        let address = in_block(FIRST, 3);
        assert!(LeaseTable::default().may_lease(address), "a server that shares no pool");
        let mut table = table([FIRST]);
        assert!(table.may_lease(address));
        assert_eq!(table.ours.longest(), Some(Duration::from_secs(3600)));
        table.ours.set_left(Duration::from_secs(59));
        assert!(!table.may_lease(address));
    }

    #[test]
    fn a_pool_that_is_too_large_to_be_listed_is_shared_too() {
        struct Huge;
        impl Pooled for Huge {
            fn ranges(&self) -> Vec<RangeInclusive<u128>> {
                vec![0xfd77 << 112..=(0xfd77 << 112) + u128::from(u64::MAX)]
            }
            fn gives(&self, address: u128) -> bool {
                self.ranges()[0].contains(&address)
            }
            fn longest_lease(&self) -> Duration {
                Duration::ZERO
            }
        }
        let claims = |place| plan(&table([]), &[Huge], &HashSet::new(), place, NOW).claim;
        let (one, other) = (claims(1), claims(2));
        assert_eq!((one.len(), other.len()), (READY / 16, READY / 16));
        assert!(other[0] - one[0] > 1 << 40, "they are far apart");
        let next = plan(&table([]), &[Huge], &one.iter().copied().collect(), 1, NOW).claim;
        assert_eq!(next[0], one[one.len() - 1] + 1);
    }

    #[test]
    fn every_block_comes_once_from_any_place_on() {
        let ranges = [5..=6, 20..=22];
        let walk = |place| once_around(&ranges, 5, place).collect::<Vec<_>>();
        assert_eq!(walk(0), [5, 6, 20, 21, 22]);
        assert_eq!(walk(8), [21, 22, 5, 6, 20]);
        assert_eq!(once_around(&[], 0, 3).count(), 0);
        assert!(place(&[0xff; 40]) < PLACES);
    }
}
