//! Boots: list, show.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use kiln_inventory::{Boot, BootEvent, BootId};
use serde::{Deserialize, Serialize};

use super::{Control, Fault};
use crate::breakdown::Breakdown;

/// The most boots in one answer.
const MAX_LIST: u32 = 1000;
/// Earlier healthy boots that a boot is compared with.
const COMPARED: u32 = 9;

/// A boot and its timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelLog {
    /// Lines, the oldest first.
    pub log: String,
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<u32>,
}

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<Boot>>, Fault> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(50).min(MAX_LIST);
    Ok(Json(control.inventory.boots(limit).await?))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
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

pub(super) async fn kernel_log(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
) -> Result<Json<KernelLog>, Fault> {
    let missing = || Fault::not_found("boot", &key);
    let id = key.parse().map(BootId).map_err(|_| missing())?;
    let Some(log) = control.inventory.kernel_log(id).await? else {
        control.inventory.boot(id).await?.ok_or_else(missing)?;
        return Err(Fault::not_found("kernel log of boot", &key));
    };
    Ok(Json(KernelLog { log }))
}
