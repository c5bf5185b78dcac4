//! Machines: add, list, show, remove, explain.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kiln_inventory::{Asker, Machine, NewMachine};
use kiln_types::Mac;
use serde::Deserialize;
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::{Body, Key, Params};
use super::route::{Route, delete, get, post, put};
use super::{Control, Fault};
use crate::explain::{Explanation, Told, explain};
use crate::facts::ToldFacts;
use crate::memory;

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Machine), Access::Write(Noun::Machine));
    vec![
        get("/api/v1/machines", read, "List machines", list).lists::<Machine>(),
        post("/api/v1/machines", write, "Add a machine", add)
            .takes::<NewMachine>()
            .with(StatusCode::CREATED)
            .gives::<Machine>(),
        get("/api/v1/machines/{key}", read, "Show a machine", show).gives::<Machine>(),
        put("/api/v1/machines/{key}", write, "Change what a machine is to be", change)
            .takes::<NewMachine>()
            .gives::<Machine>(),
        delete("/api/v1/machines/{key}", write, "Forget a machine; its boots stay", remove)
            .with(StatusCode::NO_CONTENT),
        get("/api/v1/machines/{key}/explain", read, "Say what a machine would get", explain_one)
            .query::<ExplainQuery>()
            .gives::<Explanation>(),
        get("/api/v1/machines/{key}/facts", read, "Show what a machine is made of", facts)
            .gives::<ToldFacts>(),
    ]
}

async fn list(State(control): Shared) -> Result<Json<Vec<Machine>>, Fault> {
    Ok(Json(control.inventory.machines().await?))
}

async fn add(
    State(control): Shared,
    Body(machine): Body<NewMachine>,
) -> Result<(StatusCode, Json<Machine>), Fault> {
    let machine = control.inventory.add_machine(&machine).await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, id = machine.id.0, "machine added");
    Ok((StatusCode::CREATED, Json(machine)))
}

/// Changes a machine to what the body says.
async fn change(
    State(control): Shared,
    Key(key): Key,
    Body(spec): Body<NewMachine>,
) -> Result<Json<Machine>, Fault> {
    let Machine { id, .. } = find(&control, &key).await?;
    let changed = control.inventory.change_machine(id, &spec, None).await?;
    let changed = changed.ok_or_else(|| Fault::not_found("machine", &key))?;
    refresh(&control).await?;
    tracing::info!(machine = spec.name, id = id.0, "machine changed");
    Ok(Json(changed))
}

async fn show(State(control): Shared, Key(key): Key) -> Result<Json<Machine>, Fault> {
    find(&control, &key).await.map(Json)
}

async fn facts(State(control): Shared, Key(key): Key) -> Result<Json<ToldFacts>, Fault> {
    let machine = find(&control, &key).await?;
    let told = control.inventory.facts(machine.id).await?;
    let told =
        told.ok_or_else(|| Fault::not_found("description of its hardware by machine", &key))?;
    let facts = serde_json::from_str(&told.facts).map_err(|error| {
        let text = format!("the inventory holds something else than facts of `{key}`: {error}");
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    Ok(Json(ToldFacts { boot: told.boot.0, at: told.at, facts }))
}

async fn remove(State(control): Shared, Key(key): Key) -> Result<StatusCode, Fault> {
    let machine = find(&control, &key).await?;
    control.inventory.remove_machine(machine.id, None).await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, id = machine.id.0, "machine removed");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
struct ExplainQuery {
    /// The kind of firmware; without it, the one that was seen last.
    firmware: Option<String>,
}

async fn explain_one(
    State(control): Shared,
    Key(key): Key,
    Params(query): Params<ExplainQuery>,
) -> Result<Json<Explanation>, Fault> {
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
            Fault::new(StatusCode::BAD_REQUEST, format!("unknown firmware `{text}`; {hint}"))
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
    let mut explanation = explain(&snapshot, mac, told, &ways);
    if let Some(machine) = snapshot.machine_by_mac(mac) {
        for step in &mut explanation.steps {
            let Some(version) = step.digest else { continue };
            let short = memory::look_up(&control.view, machine.id, &version).await?;
            step.reasons.extend(short.map(|text| format!("warning: {text}")));
        }
    }
    Ok(Json(explanation))
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

pub(super) async fn refresh(control: &Control) -> Result<(), Fault> {
    let refreshed = control.view.refresh().await;
    refreshed.map_err(|error| Fault::internal(&error))
}
