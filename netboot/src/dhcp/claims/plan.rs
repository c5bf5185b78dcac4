//! Which blocks a server should claim, and which it should give back.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kiln_inventory::BLOCK;

use super::super::leases::Timestamp;
use super::{BLOCK_SIZE, Pooled, Shares, addresses};

/// The most free addresses that a server keeps ready.
pub(super) const READY: usize = 1024;

/// What a server should change about its claims.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Blocks to claim.
    pub(super) claim: Vec<u128>,
    /// Blocks in which nobody has an address, of which there are too many.
    pub(super) give_back: Vec<u128>,
}

/// Decides what to claim and what to give back, so that every pool has free addresses and no server hoards them. Where
/// servers begin to look differs, so that they seldom want the same. A pool may be too large to be listed.
pub(super) fn plan(
    table: &dyn Shares,
    subnets: &[impl Pooled],
    others: &HashSet<u128>,
    place: usize,
    now: Timestamp,
) -> Plan {
    let Some(claimed) = table.ours().blocks() else { return Plan::default() };
    let mut plan = Plan::default();
    for subnet in subnets {
        let ranges: Vec<RangeInclusive<u128>> = subnet
            .ranges()
            .iter()
            .map(|range| range.start() / BLOCK_SIZE..=range.end() / BLOCK_SIZE)
            .collect();
        let all = ranges.iter().map(blocks_in).fold(0, u128::saturating_add);
        let size = usize::try_from(all.saturating_mul(BLOCK_SIZE)).unwrap_or(usize::MAX);
        let wanted = (size / 8).clamp(BLOCK as usize, READY);
        let in_pool = |block: &&u128| ranges.iter().any(|range| range.contains(*block));
        let mut own: Vec<u128> = claimed.iter().filter(in_pool).copied().collect();
        own.sort_unstable();
        let mut free = 0;
        let mut unused = Vec::new();
        for block in own {
            let idle = |address: &u128| table.is_idle(*address, now);
            free += addresses(block).filter(|it| subnet.gives(*it) && idle(it)).count();
            if addresses(block).all(|address| idle(&address)) {
                unused.push(block);
            }
        }
        if free < wanted / 2 || free == 0 {
            let lacking = (wanted - free).div_ceil(BLOCK as usize);
            let mut wants = Vec::new();
            for block in once_around(&ranges, all, place) {
                if wants.len() == lacking {
                    break;
                }
                if !claimed.contains(&block) && !others.contains(&block) && !wants.contains(&block)
                {
                    wants.push(block);
                }
            }
            plan.claim.extend(wants);
        } else if free > 2 * wanted + BLOCK as usize {
            let more = (free - 2 * wanted) / BLOCK as usize;
            plan.give_back.extend(unused.into_iter().rev().take(more));
        }
    }
    plan
}

fn blocks_in(range: &RangeInclusive<u128>) -> u128 {
    range.end().saturating_sub(*range.start()).saturating_add(1)
}

/// Returns every block of these ranges once, from a place on that is another one for each server.
pub(super) fn once_around(
    ranges: &[RangeInclusive<u128>],
    all: u128,
    place: usize,
) -> impl Iterator<Item = u128> {
    let at = |mut index: u128| {
        ranges.iter().find_map(|range| {
            let length = blocks_in(range);
            if index >= length {
                index -= length;
                return None;
            }
            Some(range.start().saturating_add(index))
        })
    };
    // In a large pool the places are far from each other.
    let step = (all / PLACES as u128).max(1);
    let start = (place as u128).saturating_mul(step).checked_rem(all).unwrap_or(0);
    (start..all).chain(0..start).filter_map(at)
}

/// Places at which servers begin.
pub(super) const PLACES: usize = 65_521;

/// Returns the place of the server with this identity.
pub fn place(identity: &[u8]) -> usize {
    identity.iter().fold(0, |place, byte| (place << 8 | usize::from(*byte)) % PLACES)
}
