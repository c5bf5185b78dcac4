//! Boots: list, show.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use kiln_inventory::{Boot, BootEvent, BootId, Machine, MachineId};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::{Key, Params};
use super::page::{Which, limit};
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
/// The latest orders of a machine among which one is looked for that ended a boot.
const COMPARED_ORDERS: u32 = 200;

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
        get("/api/v1/boots/{id}", read, "Show a boot and its timeline", show).gives::<BootDetail>(),
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

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// The most boots in the answer: 50 unless said, 1000 at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 2_147_483_647)]
    limit: Option<u32>,
    /// Whether to say what became of each, which reads their timelines. Yes, unless it is `false`.
    verdict: Option<bool>,
}

async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(query): Params<ListQuery>,
    Params(which): Params<Which>,
) -> Result<Json<Vec<BootRow>>, Fault> {
    let limit = query.limit.unwrap_or(50).min(MAX_LIST);
    let chosen = chosen(&control, &which).await?;
    let visible = visible(&control, &caller).await?;
    // Of some machines the latest are looked for among as many as are ever shown.
    let read = if chosen.is_some() || visible.is_some() { MAX_LIST } else { limit };
    let mut boots = control.inventory.boots(read).await?;
    for machines in [visible, chosen].into_iter().flatten() {
        boots.retain(|boot| machines.contains(&boot.machine));
    }
    boots.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    // The newest come first, so that the boot after each is among those before it.
    let mut newer: HashMap<MachineId, Boot> = HashMap::new();
    let mut rows = Vec::with_capacity(boots.len());
    for boot in boots {
        if query.verdict == Some(false) {
            rows.push(BootRow { boot, verdict: Verdict::default() });
            continue;
        }
        let events = control.inventory.boot(boot.id).await?.map_or_else(Vec::new, |(_, e)| e);
        let verdict = judge(&control, &boot, &events, newer.get(&boot.machine)).await?;
        newer.insert(boot.machine, boot.clone());
        rows.push(BootRow { boot, verdict });
    }
    Ok(Json(rows))
}

/// Finds what became of a boot.
async fn judge(
    control: &Control,
    boot: &Boot,
    events: &[BootEvent],
    next: Option<&Boot>,
) -> Result<Verdict, Fault> {
    // An order can only have ended a boot that came to have a system.
    let orders = match boot.kernel_start {
        Some(_) => control.inventory.orders(boot.machine, COMPARED_ORDERS).await?,
        None => Vec::new(),
    };
    let heard = control.heard.lines(boot.id);
    let by_kernel = heard.iter().filter(|line| line.source == Source::Netconsole);
    let console: Vec<&str> = by_kernel.map(|line| line.text.as_str()).collect();
    let version = boot.version.and_then(|version| control.view.version(&version));
    Ok(Verdict::of(&Story {
        boot,
        events,
        next,
        orders: &orders,
        segments: version.map(|version| version.segments),
        console: &console.join("\n"),
        now: now_ms(),
    }))
}

async fn show(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<BootDetail>, Fault> {
    let missing = || Fault::not_found("boot", &key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let (boot, events) = control.inventory.boot(id).await?.ok_or_else(missing)?;
    may_see(&control, &caller, boot.machine).await?.then_some(()).ok_or_else(missing)?;
    Ok(Json(detail(&control, boot, events).await?))
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
    let boots = control.inventory.boots(MAX_LIST).await?;
    let is_later = |next: &&Boot| (next.started, next.id) > (boot.started, boot.id);
    let mut of_machine = boots.iter().rev().filter(|next| next.machine == boot.machine);
    let next = of_machine.find(is_later);
    let verdict = judge(control, &boot, &events, next).await?;
    Ok(BootDetail { boot, events, breakdown, verdict })
}

/// All that was heard of a boot: syslog, netconsole, and the log that a system sends of a boot that failed.
async fn log(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<Vec<HeardLine>>, Fault> {
    let missing = || Fault::not_found("boot", &key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let (boot, _) = control.inventory.boot(id).await?.ok_or_else(missing)?;
    may_see(&control, &caller, boot.machine).await?.then_some(()).ok_or_else(missing)?;
    let log = control.inventory.kernel_log(id).await?.unwrap_or_default();
    let end = boot.ended.unwrap_or(boot.started);
    let lines = hear::merge(control.heard.lines(id), &log, boot.kernel_start, end);
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
    let missing = || Fault::not_found("boot", &key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let (boot, _) = control.inventory.boot(id).await?.ok_or_else(missing)?;
    may_see(&control, &caller, boot.machine).await?.then_some(()).ok_or_else(missing)?;
    let Some(log) = control.inventory.kernel_log(id).await? else {
        return Err(Fault::not_found("kernel log of boot", &key));
    };
    Ok(Json(KernelLog { log }))
}
