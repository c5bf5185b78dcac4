//! Pools that several servers share: each gives the addresses of the blocks that it has claimed, and no others. What
//! makes that safe is told in docs/adr/0014.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_inventory::{BLOCK, Store, StoreError};
use nix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::leases::{LeaseTable, Timestamp};
use super::ledger::Ledger;
use super::subnet::{Role, Subnet};

/// With less time left, an address is not given: its client would have to ask again at once.
const SHORTEST: Duration = Duration::from_secs(60);
/// By how much we count on less time than the database has written down.
const MARGIN: Duration = Duration::from_secs(60);
/// How often the claims are made to last longer.
const BEAT: Duration = Duration::from_secs(5);
/// How often it is seen whether there are enough free addresses.
const LOOK: Duration = Duration::from_millis(250);
/// The most free addresses that a server keeps ready.
const READY: u32 = 1024;

/// The blocks of this server, and how long their addresses may be leased from now on.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    pub(super) blocks: HashSet<u32>,
    pub(super) left: Duration,
}

impl Claims {
    pub(super) fn allow(&self, address: Ipv4Addr) -> bool {
        self.left >= SHORTEST && self.blocks.contains(&block(address))
    }
}

const fn block(address: Ipv4Addr) -> u32 {
    address.to_bits() / BLOCK
}

/// Returns a time that goes on while the computer sleeps, and that nobody sets.
pub(super) fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// What a server should change about its claims.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Blocks to claim.
    claim: Vec<u32>,
    /// Blocks in which nobody has an address, of which there are too many.
    give_back: Vec<u32>,
}

/// Decides what to claim and what to give back, so that every pool has free addresses and no server hoards them. Where
/// servers begin to look differs, so that they seldom want the same.
fn plan(
    table: &LeaseTable,
    subnets: &[Subnet],
    others: &HashSet<u32>,
    place: usize,
    now: Timestamp,
) -> Plan {
    let Some(claims) = table.claims() else { return Plan::default() };
    let mut plan = Plan::default();
    for subnet in subnets.iter().filter(|subnet| matches!(subnet.role, Role::Server)) {
        let mut blocks: Vec<u32> = Vec::new();
        for range in &subnet.pool {
            blocks.extend(block(*range.start())..=block(*range.end()));
        }
        blocks.sort_unstable();
        blocks.dedup();
        let size = u32::try_from(blocks.len()).unwrap_or(u32::MAX).saturating_mul(BLOCK);
        let wanted = (size / 8).clamp(BLOCK, READY);
        let idle = |block: u32| {
            let first = block.saturating_mul(BLOCK);
            let all = (first..=first.saturating_add(BLOCK - 1)).map(Ipv4Addr::from_bits);
            all.filter(|address| subnet.pool_has(*address) && table.is_idle(*address, now)).count()
        };
        let mut free = 0;
        let mut unused = Vec::new();
        for block in blocks.iter().filter(|block| claims.blocks.contains(block)) {
            free += u32::try_from(idle(*block)).unwrap_or(0);
            if !table.is_block_used(*block, now) {
                unused.push(*block);
            }
        }
        if free < wanted / 2 || free == 0 {
            let length = blocks.len().max(1);
            blocks.rotate_left(place % length);
            let open = |block: &&u32| !claims.blocks.contains(*block) && !others.contains(*block);
            let lacking = (wanted - free).div_ceil(BLOCK);
            let lacking = usize::try_from(lacking).unwrap_or(usize::MAX);
            plan.claim.extend(blocks.iter().filter(open).take(lacking));
        } else if free > 2 * wanted + BLOCK {
            let more = usize::try_from((free - 2 * wanted) / BLOCK).unwrap_or(0);
            plan.give_back.extend(unused.into_iter().rev().take(more));
        }
    }
    plan
}

/// Keeps the claims of a server: they last as long as it beats, and grow as its addresses are given.
#[derive(Debug)]
pub struct Claimer {
    store: Store,
    ledger: Ledger,
    subnets: Vec<Subnet>,
    /// How long a claim lasts after the last beat.
    lasting: Duration,
    place: usize,
    lost: bool,
}

impl Claimer {
    /// Makes the claims that the server needs to begin. Until then it gives no address of a pool: where the database
    /// cannot be reached, until it can be.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn start(
        store: Store,
        ledger: Ledger,
        subnets: Vec<Subnet>,
        place: usize,
    ) -> Result<Self, StoreError> {
        ledger.share();
        let longest = subnets.iter().map(|subnet| subnet.rules.longest_lease(subnet.lease_time));
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
        self.beat().await?;
        self.look().await
    }

    /// Goes on until told to stop. What was claimed stays claimed until its time is over, since leases last too.
    pub async fn run(mut self, stop: CancellationToken) {
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
        let blocks = self.store.renew_claims(self.lasting).await?;
        self.ledger.set_claims(blocks.into_iter().collect(), until);
        Ok(())
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let see = |others: &HashSet<u32>| {
            let (subnets, place) = (&self.subnets, self.place);
            self.ledger.with(|table, now| {
                let plan = plan(table, subnets, others, place, now);
                // From here on no address of them is given, before another server may do so.
                table.unclaim(&plan.give_back);
                plan
            })
        };
        let first = see(&HashSet::new());
        self.store.give_back(&first.give_back).await?;
        if first.claim.is_empty() {
            return Ok(());
        }
        let others: HashSet<u32> = self.store.claimed_by_others().await?.into_iter().collect();
        let wanted = see(&others).claim;
        if !wanted.is_empty() {
            let claimed = self.store.claim(&wanted, self.lasting).await?;
            self.ledger.with(|table, _| table.claim(&claimed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kiln_inventory::Lease;
    use kiln_types::Mac;

    use super::*;

    const NOW: Timestamp = Timestamp(1000);

    fn subnet(pool: std::ops::RangeInclusive<Ipv4Addr>) -> Subnet {
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

    fn table(blocks: impl IntoIterator<Item = u32>) -> LeaseTable {
        let mut table = LeaseTable::default();
        table.set_claims(blocks.into_iter().collect());
        table.set_left(Duration::from_secs(3600));
        table
    }

    const FIRST: u32 = 0x0a00_0000 / BLOCK;

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
            address: Ipv4Addr::from_bits((FIRST + 29) * BLOCK),
            mac: Mac::new([2; 6]),
            expires: 2000,
            hostname: None,
        };
        many.insert(lease);
        let plan = plan(&many, &subnets, &HashSet::new(), 0, NOW);
        assert!(plan.claim.is_empty() && !plan.give_back.is_empty());
        assert!(!plan.give_back.contains(&(FIRST + 29)), "somebody has an address there");
        many.unclaim(&plan.give_back);
        let address = Ipv4Addr::from_bits(plan.give_back[0] * BLOCK + 3);
        assert!(!many.may_lease(address));
    }

    #[test]
    fn without_claims_that_last_no_address_is_given() {
        let address = Ipv4Addr::from_bits(FIRST * BLOCK + 3);
        assert!(LeaseTable::default().may_lease(address), "a server that shares no pool");
        let mut table = table([FIRST]);
        assert!(table.may_lease(address));
        assert_eq!(table.longest(), Some(Duration::from_secs(3600)));
        table.set_left(Duration::from_secs(59));
        assert!(!table.may_lease(address));
    }
}
