//! Machines: add, list, show, remove, explain.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use kiln_inventory::{Asker, Machine, NewMachine};
use kiln_types::Mac;
use serde::Deserialize;

use super::{Control, Fault};
use crate::explain::{Explanation, Told, explain};
use crate::facts::ToldFacts;

type Shared = State<Arc<Control>>;

pub(super) async fn list(State(control): Shared) -> Result<Json<Vec<Machine>>, Fault> {
    Ok(Json(control.inventory.machines().await?))
}

pub(super) async fn add(
    State(control): Shared,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Machine>), Fault> {
    let body = body?;
    let bad = |text: String| Fault(StatusCode::BAD_REQUEST, text);
    let machine: NewMachine = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    let machine = control.inventory.add_machine(&machine).await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, id = machine.id.0, "machine added");
    Ok((StatusCode::CREATED, Json(machine)))
}

/// Changes a machine to what the body says.
pub(super) async fn change(
    State(control): Shared,
    Path(key): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Machine>, Fault> {
    let body = body?;
    let bad = |text: String| Fault(StatusCode::BAD_REQUEST, text);
    let spec: NewMachine = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    let Machine { id, .. } = find(&control, &key).await?;
    if !control.inventory.change_machine(id, &spec).await? {
        return Err(Fault::not_found("machine", &key));
    }
    refresh(&control).await?;
    tracing::info!(machine = spec.name, id = id.0, "machine changed");
    Ok(Json(Machine { id, spec }))
}

pub(super) async fn show(
    State(control): Shared,
    Path(key): Path<String>,
) -> Result<Json<Machine>, Fault> {
    find(&control, &key).await.map(Json)
}

pub(super) async fn facts(
    State(control): Shared,
    Path(key): Path<String>,
) -> Result<Json<ToldFacts>, Fault> {
    let machine = find(&control, &key).await?;
    let told = control.inventory.facts(machine.id).await?;
    let told =
        told.ok_or_else(|| Fault::not_found("description of its hardware by machine", &key))?;
    let facts = serde_json::from_str(&told.facts).map_err(|error| {
        let text = format!("the inventory holds something else than facts of `{key}`: {error}");
        Fault(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    Ok(Json(ToldFacts { boot: told.boot.0, at: told.at, facts }))
}

pub(super) async fn remove(
    State(control): Shared,
    Path(key): Path<String>,
) -> Result<StatusCode, Fault> {
    let machine = find(&control, &key).await?;
    control.inventory.remove_machine(machine.id).await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, id = machine.id.0, "machine removed");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct ExplainQuery {
    firmware: Option<String>,
}

pub(super) async fn explain_one(
    State(control): Shared,
    Path(key): Path<String>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Explanation>, Fault> {
    let Query(query) = query?;
    let mac = match key.parse::<Mac>() {
        Ok(mac) => mac,
        Err(_) => {
            let machine = find(&control, &key).await?;
            let mac = machine.spec.macs.first().copied();
            mac.ok_or_else(|| Fault::not_found("hardware address of machine", &key))?
        }
    };
    let told = match query.firmware.as_deref() {
        None => remembered(&control, mac).await?,
        Some(text) => Told::alike(Some(text.parse().map_err(|_| {
            let hint = "use bios, uefi-x64, uefi-x64-http, uefi-arm64, uefi-arm64-http, u-boot-arm64 or raspberry-pi";
            Fault(StatusCode::BAD_REQUEST, format!("unknown firmware `{text}`; {hint}"))
        })?)),
    };
    let snapshot = control.view.snapshot();
    let machine = snapshot.machine_by_mac(mac).map(|machine| &machine.spec);
    let reserved = machine.and_then(|machine| machine.address);
    let at = control
        .endpoints
        .iter()
        .find(|(subnet, _)| reserved.is_some_and(|address| subnet.contains(address)))
        .or_else(|| control.endpoints.first());
    let reserved = machine.and_then(|machine| machine.address6);
    let at6 = control
        .endpoints6
        .iter()
        .find(|(subnet, _)| reserved.is_some_and(|address| subnet.contains(address)))
        .or_else(|| control.endpoints6.first());
    let ways: Vec<_> = at.map(|(_, at)| at).into_iter().chain(at6.map(|(_, at)| at)).collect();
    if ways.is_empty() {
        return Err(Fault::not_found("subnet for", &key));
    }
    Ok(Json(explain(&snapshot, mac, told, &ways)))
}

/// Returns what the programs behind an interface said of their firmware when they were seen last.
async fn remembered(control: &Control, mac: Mac) -> Result<Told, Fault> {
    Ok(Told {
        by_firmware: control.inventory.firmware_told_by(mac, Asker::Firmware).await?,
        by_ipxe: control.inventory.firmware_told_by(mac, Asker::Ipxe).await?,
    })
}

/// Finds a machine by name or hardware address.
pub(super) async fn find(control: &Control, key: &str) -> Result<Machine, Fault> {
    let machines = control.inventory.machines().await?;
    let mac = key.parse::<Mac>().ok();
    let mut found = machines.into_iter().filter(|machine| {
        machine.spec.name == key || mac.is_some_and(|mac| machine.spec.macs.contains(&mac))
    });
    found.next().ok_or_else(|| Fault::not_found("machine", key))
}

async fn refresh(control: &Control) -> Result<(), Fault> {
    let refreshed = control.view.refresh().await;
    refreshed.map_err(|e| Fault(StatusCode::INTERNAL_SERVER_ERROR, crate::cli::chain(&e)))
}
