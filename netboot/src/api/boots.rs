//! Boots: list, show.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use kiln_inventory::{Boot, BootEvent, BootId};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::{Key, Params};
use super::route::{Route, get};
use super::{Control, Fault};
use crate::breakdown::Breakdown;

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
            .lists::<Boot>(),
        get("/api/v1/boots/{id}", read, "Show a boot and its timeline", show).gives::<BootDetail>(),
        get("/api/v1/boots/{id}/kernel-log", read, "Show what the kernel said last", kernel_log)
            .gives::<KernelLog>(),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// The most boots in the answer: 50 unless said, 1000 at most.
    limit: Option<u32>,
}

async fn list(
    State(control): State<Arc<Control>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Vec<Boot>>, Fault> {
    let limit = query.limit.unwrap_or(50).min(MAX_LIST);
    Ok(Json(control.inventory.boots(limit).await?))
}

async fn show(
    State(control): State<Arc<Control>>,
    Key(key): Key,
) -> Result<Json<BootDetail>, Fault> {
    let missing = || Fault::not_found("boot", &key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let (boot, events) = control.inventory.boot(id).await?.ok_or_else(missing)?;
    let mut earlier = Vec::new();
    for id in control.inventory.healthy_boots_before(boot.machine, id, COMPARED).await? {
        if let Some((boot, events)) = control.inventory.boot(id).await? {
            earlier.push(Breakdown::of(&boot, &events));
        }
    }
    let mut breakdown = Breakdown::of(&boot, &events);
    breakdown.compare(&earlier);
    Ok(Json(BootDetail { boot, events, breakdown }))
}

async fn kernel_log(
    State(control): State<Arc<Control>>,
    Key(key): Key,
) -> Result<Json<KernelLog>, Fault> {
    let missing = || Fault::not_found("boot", &key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let Some(log) = control.inventory.kernel_log(id).await? else {
        control.inventory.boot(id).await?.ok_or_else(missing)?;
        return Err(Fault::not_found("kernel log of boot", &key));
    };
    Ok(Json(KernelLog { log }))
}
