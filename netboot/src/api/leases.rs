//! Leases: list, show, release.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Lease, Lease6, NewMachine, Snapshot};
use kiln_types::Mac;
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::extract::{Body, Key, Params};
use super::page::Which;
use super::peer::Caller;
use super::route::{Route, delete, get, post};
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::settings::{Dhcp6Mode, DhcpMode, Subnet6Settings, SubnetSettings};

/// A lease, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeaseRow {
    /// The lease.
    #[serde(flatten)]
    pub lease: Lease,
    /// Name of the machine with this hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

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

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Lease), Access::Write(Noun::Lease));
    vec![
        get("/api/v1/leases", read, "List leases", list).query::<Which>().lists::<LeaseRow>(),
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
        get("/api/v1/leases/{key}", read, "Show a lease", show).gives::<LeaseRow>(),
        delete("/api/v1/leases/{key}", write, "End a lease", release)
            .tried()
            .with(StatusCode::NO_CONTENT),
    ]
}

async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Result<Json<Vec<LeaseRow>>, Fault> {
    let wanted = which.read()?;
    let mut rows = rows(&control, &caller);
    if !wanted.is_all() {
        let snapshot = control.view.snapshot();
        rows.retain(|row| {
            let machine = snapshot.machine_by_mac(row.lease.mac).map(|machine| &machine.spec);
            machine.is_some_and(|machine| wanted.is(&machine.name, &machine.labels))
        });
    }
    Ok(Json(rows))
}

async fn show(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<LeaseRow>, Fault> {
    Ok(Json(find(&control, &caller, &key)?))
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
    let all = leases.len();
    let skipped = control.leases.take_over(leases, dry.dry_run, refuses).ok_or_else(full)?;
    Ok(Json(taken(&caller, dry, all, skipped)))
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
    let all = leases.len();
    let skipped = control.leases6.take_over(leases, dry.dry_run, refuses).ok_or_else(full)?;
    Ok(Json(taken(&caller, dry, all, skipped)))
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

fn full() -> Fault {
    let text =
        "too many leases wait for the disk, or the leases until now are not known yet; try again";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, text).again_after(1)
}

fn taken<A: Into<IpAddr>>(
    caller: &Caller,
    dry: Dry,
    all: usize,
    skipped: Vec<(A, String)>,
) -> TakenLeases {
    let taken = all - skipped.len();
    if !dry.dry_run {
        tracing::info!(taken, by = caller.name, "leases of another server taken over");
    }
    let skipped = skipped.into_iter();
    let skipped = skipped.map(|(address, why)| SkippedLease { address: address.into(), why });
    TakenLeases { taken, skipped: skipped.collect() }
}

/// Ends a lease. Whose it was may go on using the address until it comes to renew it; then it gets it again, unless
/// someone else has it by now.
async fn release(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let lease = find(&control, &caller, &key)?.lease;
    let address = lease.address;
    let ended =
        || Fault::new(StatusCode::CONFLICT, format!("the lease of {address} has ended already"));
    if dry.dry_run {
        let now = now_ms() / 1000;
        let after = Lease { expires: now, ..lease.clone() };
        let before = Some(&lease).filter(|lease| lease.expires > now).ok_or_else(ended)?;
        return Ok(Preview::of(Some(before), Some(&after)).into_response());
    }
    control.leases.release(address).ok_or_else(ended)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Returns the leases that the caller may see. One of no machine is for those who may see all.
fn rows(control: &Control, caller: &Caller) -> Vec<LeaseRow> {
    let snapshot = control.view.snapshot();
    let row = |lease: Lease| {
        let machine = snapshot.machine_by_mac(lease.mac).map(|machine| &machine.spec);
        let seen = machine.is_some_and(|machine| caller.rights.sees(&machine.labels));
        let machine = machine.map(|machine| machine.name.clone());
        (seen || caller.rights.sees_all()).then_some(LeaseRow { lease, machine })
    };
    control.leases.leases().into_iter().filter_map(row).collect()
}

/// Finds a lease by its address, its hardware address, or the name of the machine.
fn find(control: &Control, caller: &Caller, key: &str) -> Result<LeaseRow, Fault> {
    let is = |row: &LeaseRow| {
        key.parse() == Ok(row.lease.address)
            || key.parse().is_ok_and(|mac| row.lease.mac == mac)
            || row.machine.as_deref() == Some(key)
    };
    let found = rows(control, caller).into_iter().rev().find(is);
    found.ok_or_else(|| Fault::not_found("lease", key))
}
