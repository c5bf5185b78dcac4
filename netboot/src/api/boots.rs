//! Boots: list, show.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use kiln_inventory::{Boot, BootEvent, BootId};
use serde::{Deserialize, Serialize};

use super::{Control, Fault};

/// The most boots in one answer.
const MAX_LIST: u32 = 1000;

/// A boot and its timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BootDetail {
    /// The boot.
    #[serde(flatten)]
    pub boot: Boot,
    /// Its events, oldest first.
    pub events: Vec<BootEvent>,
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
    Ok(Json(BootDetail { boot, events }))
}
