//! Machines that nobody has added: list, show, approve, ignore, merge into a machine that there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{
    Discovered, DiscoveryState, Machine, NameTemplate, NewMachine, Recogniser, Stored,
};
use kiln_types::{Arch, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::change::{Dry, IfMatch, Preview, Tagged};
use super::extract::{Body, Key, Params};
use super::machines::{find, refresh};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, post};
use super::{Control, Fault};
use crate::discovery::LooksLike;

type Shared = State<Arc<Control>>;

/// A machine that nobody has added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DiscoveryRow {
    /// Its number.
    pub id: i64,
    /// 1 at first, and one more whenever somebody says what becomes of it.
    pub revision: i64,
    /// Who made its first network card, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Its architecture, where the firmware tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Machines that it looks like, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks_like: Vec<LooksLike>,
    /// What is known of it.
    #[serde(flatten)]
    pub entry: Discovered,
}

/// What becomes of an entry that is approved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// Name of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it is named instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<NameTemplate>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Image that it is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
}

/// The machine that an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeInto {
    /// Its name or hardware address.
    pub machine: String,
}

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Discovery), Access::Write(Noun::Discovery));
    vec![
        get("/api/v1/discovery", read, "List machines that nobody has added", list)
            .query::<Page>()
            .lists::<DiscoveryRow>(),
        get("/api/v1/discovery/{key}", read, "Show one of them", show).gives::<DiscoveryRow>(),
        delete("/api/v1/discovery/{key}", write, "Forget it until it is seen again", remove)
            .tried()
            .with(StatusCode::NO_CONTENT),
        post("/api/v1/discovery/{key}/approve", write, "Make a machine of it", approve)
            .tried()
            .takes::<Approve>()
            .with(StatusCode::CREATED)
            .gives::<Machine>(),
        post("/api/v1/discovery/{key}/ignore", write, "Give it no answer", mark::<true>)
            .tried()
            .gives::<DiscoveryRow>(),
        post("/api/v1/discovery/{key}/unignore", write, "Let it wait again", mark::<false>)
            .tried()
            .gives::<DiscoveryRow>(),
        post("/api/v1/discovery/{key}/merge", write, "Say which machine it is", merge)
            .tried()
            .takes::<MergeInto>()
            .gives::<Machine>(),
    ]
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let entries = control.inventory.discovered().await?;
    let recogniser = control.view.recogniser().await?;
    let rows = entries.into_iter().map(|entry| (entry.id, row(&control, &recogniser, entry)));
    page::answer::<DiscoveryRow, _>(&page, &uri, rows)
}

async fn show(State(control): Shared, Key(key): Key) -> Result<Response, Fault> {
    let entry = entry(&control, &key).await?;
    let recogniser = control.view.recogniser().await?;
    Ok(Tagged(entry.revision, Json(row(&control, &recogniser, entry))).into_response())
}

async fn remove(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
) -> Result<Response, Fault> {
    let now = entry(&control, &key).await?;
    let expected = condition.expected("the entry", now.revision)?;
    if dry.dry_run {
        return Ok(Preview::of(Some(&now.document), None::<&Discovered>).into_response());
    }
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let there = edit.discovered(now.id, expected).await?;
    let there = there.ok_or_else(|| gone(&key))?;
    edit.remove_discovered(&there).await?;
    edit.commit().await?;
    refresh(&control).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn approve(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(approve): Body<Approve>,
) -> Result<Response, Fault> {
    let now = entry(&control, &key).await?;
    let expected = condition.expected("the entry", now.revision)?;
    let spec = machine(&control, &now.document, approve)?;
    caller.may_make(&spec)?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let there = edit.discovered(now.id, expected).await?;
    let there = there.ok_or_else(|| gone(&key))?;
    let machine = edit.approve(&there, &spec).await?;
    if dry.dry_run {
        return Ok(Preview::of(None::<&NewMachine>, Some(&spec)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    tracing::info!(machine = machine.spec.name, machine_id = machine.id.0, "machine approved");
    Ok((StatusCode::CREATED, Tagged(machine.revision, Json(machine))).into_response())
}

/// Describes the machine that an entry becomes. It writes to no disk until someone says which it may.
fn machine(control: &Control, entry: &Discovered, said: Approve) -> Result<NewMachine, Fault> {
    let name = match (said.name, &said.template) {
        (Some(name), None) => name,
        (None, Some(template)) => {
            let snapshot = control.view.snapshot();
            let is_taken = |name: &str| snapshot.machines().iter().any(|m| m.spec.name == name);
            let vendor = vendor(control, entry).unwrap_or_default();
            let made = template.fill(&entry.attributes(&vendor), |path| entry.fact(path), is_taken);
            made.map_err(Fault::invalid)?
        }
        _ => return Err(Fault::invalid("say either the `name` of the machine or a `template`")),
    };
    let mut spec = NewMachine::new(name, entry.macs.iter().copied());
    spec.uuid.clone_from(&entry.uuid);
    spec.serial.clone_from(&entry.serial);
    spec.asset_tag.clone_from(&entry.asset_tag);
    spec.labels = said.labels.into();
    spec.image = said.image;
    Ok(spec)
}

/// Lets an entry be ignored from now on, or wait.
async fn mark<const IGNORED: bool>(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
) -> Result<Response, Fault> {
    let state = if IGNORED { DiscoveryState::Ignored } else { DiscoveryState::Waiting };
    let now = entry(&control, &key).await?;
    let expected = condition.expected("the entry", now.revision)?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let there = edit.discovered(now.id, expected).await?.ok_or_else(|| gone(&key))?;
    let marked = Discovered { state, rule: None, note: None, ..there.document.clone() };
    let changed = edit.change_discovered(&there, &marked).await?;
    if dry.dry_run {
        return Ok(Preview::of(Some(&there.document), Some(&marked)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    let recogniser = control.view.recogniser().await?;
    Ok(Tagged(changed.revision, Json(row(&control, &recogniser, changed))).into_response())
}

async fn merge(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(into): Body<MergeInto>,
) -> Result<Response, Fault> {
    let now = entry(&control, &key).await?;
    let expected = condition.expected("the entry", now.revision)?;
    let machine = find(&control, &caller, &into.machine).await?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let there = edit.discovered(now.id, expected).await?;
    let there = there.ok_or_else(|| gone(&key))?;
    let merged = edit.merge_discovered(&there, machine.id).await?;
    let merged = merged.ok_or_else(|| Fault::not_found("machine", &into.machine))?;
    if dry.dry_run {
        return Ok(Preview::of(Some(&machine.spec), Some(&merged.spec)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    tracing::info!(machine = merged.spec.name, entry = key, "machine has new network cards");
    Ok(Tagged(merged.revision, Json(merged)).into_response())
}

/// Finds an entry by its number or by a hardware address.
pub(super) async fn entry(control: &Control, key: &str) -> Result<Stored<Discovered>, Fault> {
    let (id, mac) = (key.parse::<i64>().ok(), key.parse::<Mac>().ok());
    let entries = control.inventory.discovered().await?;
    let mut found = entries.into_iter().filter(|entry| {
        Some(entry.id) == id || mac.is_some_and(|mac| entry.document.macs.contains(&mac))
    });
    found.next().ok_or_else(|| gone(key))
}

fn gone(key: &str) -> Fault {
    Fault::not_found("discovered machine", key)
}

pub(super) fn vendor(control: &Control, entry: &Discovered) -> Option<String> {
    control.vendors.of(*entry.macs.first()?).map(str::to_owned)
}

fn row(control: &Control, recogniser: &Recogniser, entry: Stored<Discovered>) -> DiscoveryRow {
    let Stored { id, revision, document: entry } = entry;
    let looks_like = recogniser.recognise(&entry.traits());
    DiscoveryRow {
        id,
        revision,
        vendor: vendor(control, &entry),
        arch: entry.arch(),
        looks_like: looks_like.into_iter().map(LooksLike::from).collect(),
        entry,
    }
}
