//! Leases of both families: list, show, release.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Duid, Lease, Lease6, Machine, Snapshot, Step, StoreError};
use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::extract::{Key, Params};
use super::page::{AddressPage, Which};
use super::peer::Caller;
use super::route::{Route, delete, get};
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::dhcp::SharedLedger as _;

/// How the log of changes calls them.
pub(super) const LEASE: &str = "lease";

/// A lease, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeaseRow {
    /// The address, of IPv4 or IPv6.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Hardware address of who has it; of IPv6 where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// What who has it calls himself in DHCPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub duid: Option<Duid>,
    /// Which of his associations, in DHCPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iaid: Option<u32>,
    /// When it ends, in seconds since 1970. A past time keeps the memory of who had the address.
    pub expires: i64,
    /// Host name the client gave, cleaned to a DNS label.
    pub hostname: Option<String>,
    /// Name of the machine with this hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

impl LeaseRow {
    fn runs(&self) -> bool {
        self.expires > now_ms() / 1000
    }

    fn machine_in<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Machine> {
        snapshot.machine_by_mac(self.mac?).map(|machine| &**machine)
    }
}

impl From<Lease> for LeaseRow {
    fn from(Lease { address, mac, expires, hostname }: Lease) -> Self {
        let (address, mac) = (address.into(), Some(mac));
        Self { address, mac, duid: None, iaid: None, expires, hostname, machine: None }
    }
}

impl From<Lease6> for LeaseRow {
    fn from(Lease6 { address, duid, iaid, mac, expires }: Lease6) -> Self {
        let (address, duid, iaid) = (address.into(), Some(duid), Some(iaid));
        Self { address, mac, duid, iaid, expires, hostname: None, machine: None }
    }
}

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Lease), Access::Write(Noun::Lease));
    vec![
        get("/api/v1/leases", read, "List leases, by address", list)
            .query::<AddressPage>()
            .query::<Which>()
            .lists::<LeaseRow>(),
        get("/api/v1/leases/{key}", read, "Show a lease", show).gives::<LeaseRow>(),
        delete("/api/v1/leases/{key}", write, "End a lease", release)
            .tried()
            .with(StatusCode::NO_CONTENT),
    ]
}

async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    uri: Uri,
    Params(page): Params<AddressPage>,
    Params(which): Params<Which>,
) -> Result<Response, Fault> {
    let wanted = which.read()?;
    let mut rows = rows(&control, &caller);
    if !wanted.is_all() {
        let snapshot = control.view.snapshot();
        rows.retain(|row| {
            let machine = row.machine_in(&snapshot).map(|machine| &machine.spec);
            machine.is_some_and(|machine| wanted.is(&machine.name, &machine.labels))
        });
    }
    page.answer::<LeaseRow, _>(&uri, rows.into_iter().map(|row| (row.address, row)))
}

async fn show(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<LeaseRow>, Fault> {
    let found = find(&control, &caller, &key)?;
    first(found).map(Json).ok_or_else(|| Fault::not_found(LEASE, &key))
}

/// Ends a lease. Whose it was may go on using the address until it comes to renew it; then it gets it again, unless
/// someone else has it by now.
async fn release(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let found = find(&control, &caller, &key)?;
    let run: Vec<String> =
        found.iter().filter(|row| row.runs()).map(|row| row.address.to_string()).collect();
    if run.len() > 1 {
        let (key, all) = (key.escape_debug(), run.join(", "));
        let text = format!(
            "`{key}` has several leases: {all}; name the one that is to end by its address"
        );
        return Err(Fault::new(StatusCode::CONFLICT, text));
    }
    let row = first(found).ok_or_else(|| Fault::not_found(LEASE, &key))?;
    let (address, now) = (row.address, now_ms() / 1000);
    let ended =
        || Fault::new(StatusCode::CONFLICT, format!("the lease of {address} has ended already"));
    if dry.dry_run {
        let after = LeaseRow { expires: now, ..row.clone() };
        let before = Some(&row).filter(|row| row.runs()).ok_or_else(ended)?;
        return Ok(Preview::of(Some(before), Some(&after)).into_response());
    }
    let released = match address {
        IpAddr::V4(address) => control.leases.release(address).is_some(),
        IpAddr::V6(address) => control.leases6.release(address).is_some(),
    };
    released.then_some(()).ok_or_else(ended)?;
    tracing::info!(%address, by = caller.name, "lease ended");
    let machine = row.machine_in(&control.view.snapshot()).map_or(0, |machine| machine.id.0);
    let documents = (serde_json::to_value(&row).ok(), None);
    let what = (machine, address.to_string(), documents);
    write_down(&control, &caller, "the lease has ended", what).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Writes down what was done to leases: the machine, the name, what was and what is. Comes to its end whoever goes away
/// meanwhile, for it was done.
pub(super) async fn write_down(
    control: &Control,
    caller: &Caller,
    done: &'static str,
    (subject, name, (before, after)): (i64, String, (Option<Value>, Option<Value>)),
) -> Result<(), Fault> {
    let store = control.inventory.acting(&caller.name);
    let written = tokio::spawn(async move {
        let step = Step { noun: LEASE, subject, name: &name, before, after };
        store.record(step).await.map_err(|error| without_a_row(done, error))
    });
    written.await.map_err(|error| Fault::internal(&error))?
}

/// Says that something was done to leases which is missing in the log of changes: they are elsewhere than it.
fn without_a_row(done: &str, error: StoreError) -> Fault {
    let fault = Fault::from(error);
    let text = format!("{done}, but the log of changes does not say so: {}", fault.detail());
    tracing::error!("{text}");
    Fault::new(fault.status(), text)
}

pub(super) fn full() -> Fault {
    let text =
        "too many leases wait for the disk, or the leases until now are not known yet; try again";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, text).again_after(1)
}

/// Returns the leases that the caller may see, those of IPv4 first, by address. One of no machine is for those who may see
/// all.
fn rows(control: &Control, caller: &Caller) -> Vec<LeaseRow> {
    let snapshot = control.view.snapshot();
    let four = control.leases.leases().into_iter().map(LeaseRow::from);
    let six = control.leases6.leases().into_iter().map(LeaseRow::from);
    let whose = |row: LeaseRow| {
        let machine = row.machine_in(&snapshot).map(|machine| &machine.spec);
        let seen = machine.is_some_and(|machine| caller.rights.sees(&machine.labels));
        let machine = machine.map(|machine| machine.name.clone());
        (seen || caller.rights.sees_all()).then_some(LeaseRow { machine, ..row })
    };
    four.chain(six).filter_map(whose).collect()
}

/// Returns which address each interface has by a lease that runs: one of IPv4, or that of IPv6 which ends last.
pub(super) fn addresses(control: &Control) -> HashMap<Mac, IpAddr> {
    let mut six = control.leases6.leases();
    six.sort_by_key(|lease| lease.expires);
    let four = control.leases.leases().into_iter().map(LeaseRow::from);
    let all = six.into_iter().map(LeaseRow::from).chain(four).filter(LeaseRow::runs);
    all.filter_map(|row| Some((row.mac?, row.address))).collect()
}

/// Finds leases by their address, or all that a hardware address, a DUID or the name of a machine has.
fn find(control: &Control, caller: &Caller, key: &str) -> Result<Vec<LeaseRow>, Fault> {
    let (mac, duid) = (key.parse::<Mac>().ok(), key.parse::<Duid>().ok());
    let is = |row: &LeaseRow| {
        key.parse() == Ok(row.address)
            || mac.is_some() && row.mac == mac
            || duid.is_some() && row.duid == duid
            || row.machine.as_deref() == Some(key)
    };
    let found: Vec<LeaseRow> = rows(control, caller).into_iter().filter(is).collect();
    match found.is_empty() {
        false => Ok(found),
        true if control.leases6.is_whole() => Err(Fault::not_found(LEASE, key)),
        true => Err(full()),
    }
}

/// Returns the first of several leases: one that runs before those that have ended, one of IPv4 before those of IPv6, and
/// the one that ends last.
fn first(leases: Vec<LeaseRow>) -> Option<LeaseRow> {
    leases.into_iter().max_by_key(|row| (row.runs(), row.address.is_ipv4(), row.expires))
}
