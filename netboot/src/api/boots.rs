//! Boots: list, show, and what was heard of them.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use kiln_inventory::{Boot, BootEvent, BootId, BootPlace, Machine, MachineId, Outcome, WhichBoots};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::{Key, Params};
use super::page::{self, Which, limit};
use super::peer::Caller;
use super::route::{Route, get};
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::breakdown::Breakdown;
use crate::hear::{self, HeardLine, Source};
use crate::verdict::{Story, Verdict};

/// The most boots in one answer.
const MAX_LIST: u32 = 1000;
/// Earlier healthy boots that a boot is compared with.
const COMPARED: u32 = 9;

/// A boot and its timeline.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootDetail {
    /// The boot.
    #[serde(flatten)]
    pub boot: Boot,
    /// Its events, oldest first.
    pub events: Vec<BootEvent>,
    /// Where its time went.
    #[serde(default)]
    pub breakdown: Breakdown,
    /// What became of it.
    #[serde(default)]
    pub verdict: Verdict,
    /// What was heard of it, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<HeardLine>,
}

/// A boot in a list.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootRow {
    /// The boot.
    #[serde(flatten)]
    pub boot: Boot,
    /// What became of it.
    #[serde(default)]
    pub verdict: Verdict,
}

/// The last words of the kernel of a boot that failed.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KernelLog {
    /// Lines, the oldest first.
    pub log: String,
}

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Read(Noun::Boot);
    vec![
        get("/api/v1/boots", read, "List boots, the newest first", list)
            .query::<ListQuery>()
            .query::<Which>()
            .lists::<BootRow>(),
        get("/api/v1/boots/{id}", read, "Show a boot and its timeline", show)
            .query::<ShowQuery>()
            .gives::<BootDetail>(),
        get("/api/v1/boots/{id}/kernel-log", read, "Show what the kernel said last", kernel_log)
            .gives::<KernelLog>(),
        get("/api/v1/boots/{id}/log", read, "Show all that was heard of a boot", log)
            .lists::<HeardLine>(),
    ]
}

/// Returns the machines that the caller may see; nothing where he may see all, also those that are gone.
pub(super) async fn visible(
    control: &Control,
    caller: &Caller,
) -> Result<Option<HashSet<MachineId>>, Fault> {
    if caller.rights.sees_all() {
        return Ok(None);
    }
    let machines = control.view.machines().await?;
    let seen = machines.iter().filter(|machine| caller.rights.sees(&machine.spec.labels));
    Ok(Some(seen.map(|machine| machine.id).collect()))
}

/// Returns the machines that were asked for; nothing where all were.
async fn chosen(control: &Control, which: &Which) -> Result<Option<HashSet<MachineId>>, Fault> {
    let wanted = which.read()?;
    if wanted.is_all() {
        return Ok(None);
    }
    let machines = control.view.machines().await?;
    let is = |machine: &&Arc<Machine>| wanted.is(&machine.spec.name, &machine.spec.labels);
    Ok(Some(machines.iter().filter(is).map(|machine| machine.id).collect()))
}

/// Returns whether the caller may see what belongs to a machine.
pub(super) async fn may_see(
    control: &Control,
    caller: &Caller,
    machine: MachineId,
) -> Result<bool, Fault> {
    Ok(visible(control, caller).await?.is_none_or(|machines| machines.contains(&machine)))
}

/// Which part of the list of boots.
#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// The most boots in the answer: 50 unless said, 1000 at most. Where there are more, `Link` says where they are.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 2_147_483_647)]
    limit: Option<u32>,
    /// Only boots after this place of the list, as `Link` has it: when a boot began, in milliseconds since 1970, a dot,
    /// and its number.
    #[serde(default, deserialize_with = "place")]
    #[param(value_type = Option<String>)]
    after: Option<BootPlace>,
    /// Only these fields, with commas between them; `verdict.cause` is a field in a field.
    fields: Option<String>,
    /// Only boots that are so far, or ended so.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Whether to say what became of each, which reads their timelines. Yes, unless it is `false`.
    verdict: Option<bool>,
}

/// Reads a place in the list of boots.
fn place<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<BootPlace>, D::Error> {
    String::deserialize(reader)?.parse().map(Some).map_err(D::Error::custom)
}

async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    uri: Uri,
    Params(query): Params<ListQuery>,
    Params(which): Params<Which>,
) -> Result<Response, Fault> {
    let limit = query.limit.unwrap_or(50).min(MAX_LIST);
    let (visible, chosen) = (visible(&control, &caller).await?, chosen(&control, &which).await?);
    let machines = match (visible, chosen) {
        (Some(visible), Some(chosen)) => Some(&visible & &chosen),
        (one, other) => one.or(other),
    };
    let machines: Option<Vec<MachineId>> = machines.map(|machines| machines.into_iter().collect());
    let (machines, outcome, after) = (machines.as_deref(), query.outcome, query.after);
    // One more than fits, so that the answer says whether there are more.
    let boots =
        control.inventory.find_boots(WhichBoots { machines, outcome, after }, limit + 1).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rows = Vec::with_capacity(boots.len());
    for boot in boots {
        let verdict = if query.verdict == Some(false) || rows.len() == limit {
            Verdict::default()
        } else {
            let events = control.inventory.boot(boot.id).await?.map_or_else(Vec::new, |(_, e)| e);
            judge(&control, &boot, &events).await?
        };
        rows.push((boot.place(), BootRow { boot, verdict }));
    }
    page::part::<BootRow, _>(limit, query.fields.as_deref(), &uri, rows.into_iter())
}

/// Finds what became of a boot.
async fn judge(control: &Control, boot: &Boot, events: &[BootEvent]) -> Result<Verdict, Fault> {
    // An order can only have ended a boot that came to have a system.
    let orders = match boot.kernel_start {
        Some(_) => control.inventory.orders_that_ended(boot.id).await?,
        None => Vec::new(),
    };
    let next = control.inventory.next_boot(boot).await?;
    let heard = control.heard.lines(boot.id);
    let by_kernel = heard.iter().filter(|line| line.source == Source::Netconsole);
    let console: Vec<&str> = by_kernel.map(|line| line.text.as_str()).collect();
    let version = boot.version.and_then(|version| control.view.version(&version));
    Ok(Verdict::of(&Story {
        boot,
        events,
        next: next.as_ref(),
        orders: &orders,
        segments: version.map(|version| version.segments),
        console: &console.join("\n"),
        now: now_ms(),
    }))
}

#[derive(Deserialize, IntoParams)]
struct ShowQuery {
    /// Whether what was heard of it is in the answer, too.
    #[serde(default)]
    log: bool,
}

async fn show(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
    Params(query): Params<ShowQuery>,
) -> Result<Json<BootDetail>, Fault> {
    let (boot, events) = find(&control, &caller, &key).await?;
    let heard = if query.log { heard(&control, &boot).await? } else { Vec::new() };
    Ok(Json(BootDetail { heard, ..detail(&control, boot, events).await? }))
}

/// Finds a boot that the caller may see.
async fn find(
    control: &Control,
    caller: &Caller,
    key: &str,
) -> Result<(Boot, Vec<BootEvent>), Fault> {
    let missing = || Fault::not_found("boot", key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let found = control.inventory.boot(id).await?.ok_or_else(missing)?;
    may_see(control, caller, found.0.machine).await?.then_some(found).ok_or_else(missing)
}

/// Returns a boot with all that is found out about it, where it has ended.
#[cfg(feature = "otel")]
pub(crate) async fn ended(control: &Control, id: BootId) -> Option<BootDetail> {
    let (boot, events) = control.inventory.boot(id).await.ok()??;
    boot.ended?;
    detail(control, boot, events).await.ok()
}

/// Finds out about a boot where its time went and what became of it.
async fn detail(
    control: &Control,
    boot: Boot,
    events: Vec<BootEvent>,
) -> Result<BootDetail, Fault> {
    let mut earlier = Vec::new();
    for id in control.inventory.healthy_boots_before(boot.machine, boot.id, COMPARED).await? {
        if let Some((boot, events)) = control.inventory.boot(id).await? {
            earlier.push(Breakdown::of(&boot, &events));
        }
    }
    let mut breakdown = Breakdown::of(&boot, &events);
    breakdown.compare(&earlier);
    let verdict = judge(control, &boot, &events).await?;
    Ok(BootDetail { boot, events, breakdown, verdict, heard: Vec::new() })
}

/// All that was heard of a boot: syslog, netconsole, and the log that a system sends of a boot that failed.
async fn heard(control: &Control, boot: &Boot) -> Result<Vec<HeardLine>, Fault> {
    let log = control.inventory.kernel_log(boot.id).await?.unwrap_or_default();
    let end = boot.ended.unwrap_or(boot.started);
    Ok(hear::merge(control.heard.lines(boot.id), &log, boot.kernel_start, end))
}

async fn log(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<Vec<HeardLine>>, Fault> {
    let (boot, _) = find(&control, &caller, &key).await?;
    let lines = heard(&control, &boot).await?;
    if lines.is_empty() {
        return Err(Fault::not_found("log of boot", &key));
    }
    Ok(Json(lines))
}

async fn kernel_log(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<KernelLog>, Fault> {
    let (boot, _) = find(&control, &caller, &key).await?;
    let log = control.inventory.kernel_log(boot.id).await?;
    let missing = || Fault::not_found("kernel log of boot", &key);
    log.map(|log| Json(KernelLog { log })).ok_or_else(missing)
}
