//! Leases that another server gave, taken over by this one: of both families, where it could have given them itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kiln_inventory::{Lease, Lease6, NewMachine, Snapshot};
use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::{Access, Noun};
use super::change::Dry;
use super::extract::{Body, Params};
use super::leases::{full, write_down};
use super::peer::Caller;
use super::route::{Route, post};
use super::{Control, Fault};
use crate::settings::{Dhcp6Mode, DhcpMode, Subnet6Settings, SubnetSettings};

/// What became of leases of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TakenLeases {
    /// How many were taken over, or would be.
    pub taken: usize,
    /// Those that were not.
    pub skipped: Vec<SkippedLease>,
}

/// A lease that was not taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SkippedLease {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Why.
    pub why: String,
}

/// The longest list of leases that is read.
const MOST_BYTES: usize = 16 << 20;

/// The most ranges of addresses that one row of the log of changes names.
const MOST_RANGES: usize = 256;

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Write(Noun::Lease);
    vec![
        post("/api/v1/leases", write, "Take over leases that another server gave", take_over)
            .query::<Dry>()
            .takes_list::<Lease>()
            .up_to(MOST_BYTES)
            .gives::<TakenLeases>(),
        post(
            "/api/v1/leases6",
            write,
            "Take over leases of IPv6 that another server gave",
            take_over6,
        )
        .query::<Dry>()
        .takes_list::<Lease6>()
        .up_to(MOST_BYTES)
        .gives::<TakenLeases>(),
    ]
}

/// Takes over leases of addresses that this server gives: those of its pools, unless they are reserved for another machine.
async fn take_over(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(leases): Body<Vec<Lease>>,
) -> Result<Json<TakenLeases>, Fault> {
    may_take_over(&caller)?;
    let snapshot = control.view.snapshot();
    let reserved = reservations(&snapshot, |machine| machine.address);
    let gives = |subnet: &SubnetSettings, address: &Ipv4Addr| {
        let in_pool = subnet.pool.iter().any(|pool| pool.contains(address));
        subnet.dhcp == DhcpMode::Server && in_pool
    };
    let refuses = |lease: &Lease| {
        let given = control.endpoints.iter().any(|(subnet, _)| gives(subnet, &lease.address));
        refusal(reserved.get(&lease.address), Some(lease.mac), given)
    };
    let all = leases.iter().map(|lease| lease.address.into()).collect();
    let skipped = control.leases.take_over(leases, dry.dry_run, refuses).ok_or_else(full)?;
    taken(&control, &caller, dry, all, skipped).await
}

/// As [`take_over`], for IPv6.
async fn take_over6(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(leases): Body<Vec<Lease6>>,
) -> Result<Json<TakenLeases>, Fault> {
    may_take_over(&caller)?;
    let snapshot = control.view.snapshot();
    let reserved = reservations(&snapshot, |machine| machine.address6);
    let gives = |subnet: &Subnet6Settings, address: &Ipv6Addr| {
        let in_pool = subnet.pool.iter().any(|pool| pool.contains(address));
        subnet.dhcp == Dhcp6Mode::Stateful && in_pool
    };
    let refuses = |lease: &Lease6| {
        let given = control.endpoints6.iter().any(|(subnet, _)| gives(subnet, &lease.address));
        refusal(reserved.get(&lease.address), lease.mac, given)
    };
    let all = leases.iter().map(|lease| lease.address.into()).collect();
    let skipped = control.leases6.take_over(leases, dry.dry_run, refuses).ok_or_else(full)?;
    taken(&control, &caller, dry, all, skipped).await
}

/// Returns the machine that each reserved address is for.
fn reservations<A: Eq + Hash>(
    snapshot: &Snapshot,
    address: impl Fn(&NewMachine) -> Option<A>,
) -> HashMap<A, &NewMachine> {
    let machines = snapshot.machines().iter().map(|machine| &machine.spec);
    machines.filter_map(|machine| Some((address(machine)?, machine))).collect()
}

/// Says why a lease is not taken over: the machine that its address is reserved for is another one, or none of our pools has
/// it.
fn refusal(reserved: Option<&&NewMachine>, mac: Option<Mac>, in_a_pool: bool) -> Option<String> {
    match reserved {
        Some(machine) if !mac.is_some_and(|mac| machine.macs.contains(&mac)) => {
            Some(format!("the address is reserved for machine `{}`", machine.name))
        }
        _ => (!in_a_pool).then(|| "no pool of this server has the address".to_owned()),
    }
}

fn may_take_over(caller: &Caller) -> Result<(), Fault> {
    if caller.rights.sees_all() {
        return Ok(());
    }
    let text = "leases are of any machine, and you may change some machines only";
    Err(Fault::new(StatusCode::FORBIDDEN, text))
}

/// Writes down what was taken over, and answers.
async fn taken<A: Into<IpAddr>>(
    control: &Control,
    caller: &Caller,
    dry: Dry,
    all: Vec<IpAddr>,
    skipped: Vec<(A, String)>,
) -> Result<Json<TakenLeases>, Fault> {
    let row = |(address, why): (A, String)| SkippedLease { address: address.into(), why };
    let skipped: Vec<SkippedLease> = skipped.into_iter().map(row).collect();
    let taken = all.len() - skipped.len();
    if !dry.dry_run && taken > 0 {
        tracing::info!(taken, by = caller.name, "leases of another server taken over");
        let addresses = ranges(without(all, &skipped));
        let name = addresses.first().cloned().unwrap_or_default();
        let more = addresses.len().saturating_sub(MOST_RANGES);
        let named = addresses.get(..MOST_RANGES).unwrap_or(&addresses);
        let after = json!({
            "taken": taken, "skipped": skipped.len(), "addresses": named, "more-ranges": more,
        });
        let what = (0, name, (None, Some(after)));
        write_down(control, caller, "the leases are taken over", what).await?;
    }
    Ok(Json(TakenLeases { taken, skipped }))
}

/// Returns the addresses that were taken; of one that the list has twice, one may have been skipped.
fn without(all: Vec<IpAddr>, skipped: &[SkippedLease]) -> Vec<IpAddr> {
    let mut left: HashMap<IpAddr, usize> = HashMap::new();
    for lease in skipped {
        *left.entry(lease.address).or_default() += 1;
    }
    let is_taken = |address: &IpAddr| match left.get_mut(address) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    all.into_iter().filter(is_taken).collect()
}

/// Writes addresses as few words, each of one or of all from one to another.
fn ranges(mut addresses: Vec<IpAddr>) -> Vec<String> {
    addresses.sort_unstable();
    addresses.dedup();
    let follows = |a: &IpAddr, b: &IpAddr| match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.to_bits().checked_add(1) == Some(b.to_bits()),
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits().checked_add(1) == Some(b.to_bits()),
        _ => false,
    };
    let word = |range: &[IpAddr]| match range {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(ToString::to_string).collect(),
    };
    addresses.chunk_by(follows).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_follow_each_other_are_one_word() {
        let all = [
            "10.0.0.9",
            "10.0.0.7",
            "10.0.0.8",
            "255.255.255.255",
            "fd00::1",
            "fd00::2",
            "10.0.0.7",
        ];
        let words = ranges(all.map(|it| it.parse().unwrap()).to_vec());
        assert_eq!(words, ["10.0.0.7-10.0.0.9", "255.255.255.255", "fd00::1-fd00::2"]);
        assert!(ranges(Vec::new()).is_empty());
    }
}
