//! Machines: add, list, show, remove, explain.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Asker, Machine, NewMachine, Traits};
use kiln_types::Mac;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::change::{self, Dry, IfMatch, Preview, Tagged};
use super::extract::{Body, Key, Params};
use super::page::{self, Page, Which};
use super::peer::Caller;
use super::route::{Route, delete, get, patch, post, put};
use super::{Control, Fault};
use crate::explain::{Explanation, Told, explain};
use crate::facts::ToldFacts;
use crate::memory;

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Machine), Access::Write(Noun::Machine));
    vec![
        get("/api/v1/machines", read, "List machines", list)
            .query::<Page>()
            .query::<Which>()
            .lists::<Machine>(),
        post("/api/v1/machines", write, "Add a machine", add)
            .tried()
            .takes::<NewMachine>()
            .with(StatusCode::CREATED)
            .gives::<Machine>()
            .tagged(),
        get("/api/v1/machines/{key}", read, "Show a machine", show).gives::<Machine>().tagged(),
        put("/api/v1/machines/{key}", write, "Change what a machine is to be", change)
            .tried()
            .conditional()
            .takes::<NewMachine>()
            .gives::<Machine>()
            .tagged(),
        patch("/api/v1/machines/{key}", write, "Change some fields of a machine", patch_one)
            .tried()
            .conditional()
            .merges::<NewMachine>()
            .gives::<Machine>()
            .tagged(),
        delete("/api/v1/machines/{key}", write, "Forget a machine; its boots stay", remove)
            .tried()
            .conditional()
            .with(StatusCode::NO_CONTENT),
        get("/api/v1/machines/{key}/explain", read, "Say what a machine would get", explain_one)
            .query::<ExplainQuery>()
            .gives::<Explanation>(),
        get("/api/v1/machines/{key}/facts", read, "Show what a machine is made of", facts)
            .gives::<ToldFacts>(),
    ]
}

async fn list(
    State(control): Shared,
    caller: Caller,
    uri: Uri,
    Params(page): Params<Page>,
    Params(which): Params<Which>,
) -> Result<Response, Fault> {
    let wanted = which.read()?;
    let machines = control.view.machines().await?;
    let shown = machines.iter().filter(|machine| {
        let spec = &machine.spec;
        caller.rights.sees(&spec.labels) && wanted.is(&spec.name, &spec.labels)
    });
    page::answer::<Machine, _>(&page, &uri, shown.map(|machine| (machine.id.0, &**machine)))
}

async fn add(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(spec): Body<NewMachine>,
) -> Result<Response, Fault> {
    caller.may_make(&spec)?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let machine = edit.add_machine(&spec).await?;
    if dry.dry_run {
        return Ok(Preview::of(None::<&NewMachine>, Some(&machine.spec)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, machine_id = machine.id.0, "machine added");
    Ok((StatusCode::CREATED, Tagged(machine.revision, Json(machine))).into_response())
}

/// Changes a machine to what the body says.
async fn change(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(spec): Body<NewMachine>,
) -> Result<Response, Fault> {
    let now = find(&control, &caller, &key).await?;
    let expected = condition.expected("the machine", now.revision)?;
    make(&control, &caller, now, &spec, expected, dry).await
}

/// Changes some fields of a machine. Its id and its revision are none of them.
async fn patch_one(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(patch): Body<Value>,
) -> Result<Response, Fault> {
    let (control, caller) = (&*control, &caller);
    change::patch(
        &condition,
        ("the machine", &patch),
        || find(control, caller, &key),
        |now: &Machine| (now.revision, &now.spec),
        |now, spec, expected| async move { make(control, caller, now, &spec, expected, dry).await },
    )
    .await
}

async fn make(
    control: &Control,
    caller: &Caller,
    now: Machine,
    spec: &NewMachine,
    expected: Option<i64>,
    dry: Dry,
) -> Result<Response, Fault> {
    caller.may_make(spec)?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let changed = edit.change_machine(now.id, spec, expected).await?;
    let changed = changed.ok_or_else(|| Fault::not_found("machine", &now.spec.name))?;
    if dry.dry_run {
        return Ok(Preview::of(Some(&now.spec), Some(&changed.spec)).into_response());
    }
    edit.commit().await?;
    refresh(control).await?;
    tracing::info!(machine = spec.name, machine_id = changed.id.0, "machine changed");
    Ok(Tagged(changed.revision, Json(changed)).into_response())
}

async fn show(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
) -> Result<Tagged<Json<Machine>>, Fault> {
    let machine = find(&control, &caller, &key).await?;
    Ok(Tagged(machine.revision, Json(machine)))
}

async fn facts(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<ToldFacts>, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let told = control.inventory.facts(machine.id).await?;
    let told =
        told.ok_or_else(|| Fault::not_found("description of its hardware by machine", &key))?;
    let facts = serde_json::from_str(&told.facts).map_err(|error| {
        let text = format!("the inventory holds something else than facts of `{key}`: {error}");
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    Ok(Json(ToldFacts { boot: told.boot.0, at: told.at, facts }))
}

async fn remove(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
) -> Result<Response, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let expected = condition.expected("the machine", machine.revision)?;
    if dry.dry_run {
        return Ok(Preview::of(Some(&machine.spec), None::<&NewMachine>).into_response());
    }
    let store = control.inventory.acting(&caller.name);
    store.remove_machine(machine.id, expected).await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, machine_id = machine.id.0, "machine removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize, IntoParams)]
struct ExplainQuery {
    /// The kind of firmware; without it, the one that was seen last.
    firmware: Option<String>,
}

async fn explain_one(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(query): Params<ExplainQuery>,
) -> Result<Json<Explanation>, Fault> {
    let mac = match key.parse::<Mac>() {
        Ok(mac) => {
            if !caller.rights.sees_all() {
                find(&control, &caller, &key).await?;
            }
            mac
        }
        Err(_) => {
            let machine = find(&control, &caller, &key).await?;
            let mac = machine.spec.macs.first().copied();
            mac.ok_or_else(|| Fault::not_found("hardware address of machine", &key))?
        }
    };
    let remembered = remembered(&control, mac).await?;
    let told = match query.firmware.as_deref() {
        None => remembered,
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
    explanation.seen = remembered != Told::default();
    if let Some(machine) = snapshot.machine_by_mac(mac) {
        for step in &mut explanation.steps {
            let Some(version) = step.digest else { continue };
            let short = memory::look_up(&control.view, machine.id, &version).await?;
            step.reasons.extend(short.map(|text| format!("warning: {text}")));
        }
    }
    if explanation.machine.is_none() {
        let likenesses = control.view.recogniser().await?.recognise(&traits(&control, mac).await?);
        explanation.looks_like = likenesses.into_iter().map(Into::into).collect();
    }
    Ok(Json(explanation))
}

/// Returns by what an interface that no machine has can be recognised: all that is known of its box.
async fn traits(control: &Control, mac: Mac) -> Result<Traits, Fault> {
    let entries = control.inventory.discovered().await?;
    let entry = entries.into_iter().find(|entry| entry.document.macs.contains(&mac));
    Ok(match entry {
        Some(entry) => entry.document.traits(),
        None => {
            let last = control.inventory.last_sighting(mac).await?;
            Traits::seen(mac, last.and_then(|(seen, _)| seen.uuid).as_deref())
        }
    })
}

/// Returns what the programs behind an interface said of their firmware when they were seen last.
async fn remembered(control: &Control, mac: Mac) -> Result<Told, Fault> {
    Ok(Told {
        by_firmware: control.inventory.firmware_told_by(mac, Asker::Firmware).await?,
        by_ipxe: control.inventory.firmware_told_by(mac, Asker::Ipxe).await?,
    })
}

/// Finds a machine by name or hardware address. One that the caller may not see is not there.
pub(super) async fn find(control: &Control, caller: &Caller, key: &str) -> Result<Machine, Fault> {
    let machines = control.view.machines().await?;
    let mac = key.parse::<Mac>().ok();
    let mut found = machines.iter().filter(|machine| {
        machine.spec.name == key || mac.is_some_and(|mac| machine.spec.macs.contains(&mac))
    });
    let found = found.next().filter(|machine| caller.rights.sees(&machine.spec.labels));
    found.map(|machine| Machine::clone(machine)).ok_or_else(|| Fault::not_found("machine", key))
}

pub(super) async fn refresh(control: &Control) -> Result<(), Fault> {
    Ok(control.view.refresh_inventory().await?)
}
