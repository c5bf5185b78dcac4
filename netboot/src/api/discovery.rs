//! Machines that nobody has added: list, show, approve, ignore, let the rules decide, merge into a machine that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{
    Becomes, Discovered, DiscoveryState, Machine, NameTemplate, NewMachine, Recogniser, Selector,
    Settled, Step, Stored,
};
use kiln_types::{Arch, ImageRef, Mac};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::change::{Dry, IfMatch, Preview, Tagged};
use super::extract::{Body, Key, Params};
use super::machines::{find, refresh};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, post};
use super::{Control, Fault};
use crate::discovery::{Judge, LooksLike};

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

/// What the rules have made of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decided {
    /// Its number.
    pub id: i64,
    /// Its interfaces.
    #[schema(value_type = Vec<String>)]
    pub macs: BTreeSet<Mac>,
    /// The machine that it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What becomes of it, where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DiscoveryState>,
    /// The rule that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it is not approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which entries.
#[derive(Clone, Debug, Deserialize, IntoParams)]
struct Which {
    /// Only those that a rule with this selector is about: `vendor=qemu,arch=arm64`.
    selector: Option<String>,
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
            .query::<Which>()
            .lists::<DiscoveryRow>(),
        get("/api/v1/discovery/{key}", read, "Show one of them", show)
            .gives::<DiscoveryRow>()
            .tagged(),
        delete("/api/v1/discovery/{key}", write, "Forget it until it is seen again", remove)
            .tried()
            .conditional()
            .with(StatusCode::NO_CONTENT),
        post("/api/v1/discovery/{key}/approve", write, "Make a machine of it", approve)
            .tried()
            .conditional()
            .takes::<Approve>()
            .with(StatusCode::CREATED)
            .gives::<Machine>()
            .tagged(),
        post("/api/v1/discovery/{key}/ignore", write, "Give it no answer", mark::<true>)
            .tried()
            .conditional()
            .gives::<DiscoveryRow>()
            .tagged(),
        post("/api/v1/discovery/{key}/unignore", write, "Let it wait again", mark::<false>)
            .tried()
            .conditional()
            .gives::<DiscoveryRow>()
            .tagged(),
        post("/api/v1/discovery/{key}/settle", write, "Let the rules decide on it now", settle)
            .tried()
            .gives::<Decided>(),
        post("/api/v1/discovery/{key}/merge", write, "Say which machine it is", merge)
            .tried()
            .conditional()
            .takes::<MergeInto>()
            .gives::<Machine>()
            .tagged(),
    ]
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
    Params(which): Params<Which>,
) -> Result<Response, Fault> {
    let selector = which.selector.as_deref().map(str::parse::<Selector>).transpose();
    let selector = selector.map_err(|error| Fault::invalid(error.to_string()))?;
    selector.as_ref().map_or(Ok(()), Discovered::can_be_asked).map_err(Fault::invalid)?;
    let mut entries = control.inventory.discovered().await?;
    if let Some(selector) = &selector {
        entries.retain(|Stored { document: entry, .. }| {
            entry.fits(selector, &vendor(&control, entry).unwrap_or_default())
        });
    }
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

/// Lets the rules decide on an entry, as they do when it appears. What a person has said stays.
async fn settle(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let now = entry(&control, &key).await?;
    if now.document.is_marked() {
        let text = "a person has said that it is ignored; let it wait again first (unignore)";
        return Err(Fault::new(StatusCode::CONFLICT, text));
    }
    let judge = Judge::new(control.view.clone(), control.vendors.clone());
    if dry.dry_run {
        let would = judge.would(&now).await?;
        let before = &now.document;
        let becomes = |state, rule, note| Discovered { state, rule, note, ..before.clone() };
        let after = match would {
            Settled::Machine(becomes) => {
                let machine = &becomes.machine;
                return Ok(Preview::of(None::<&NewMachine>, Some(machine)).into_response());
            }
            Settled::Ignore { rule } => becomes(DiscoveryState::Ignored, Some(rule), None),
            Settled::Hold { rule, why } => becomes(DiscoveryState::Held, rule, why),
            Settled::Wait => before.clone(),
        };
        return Ok(Preview::of(Some(before), Some(&after)).into_response());
    }
    let Stored { id, document: Discovered { macs, .. }, .. } = &now;
    // A machine that it becomes is written down with the rule; who asked for that is told here.
    let name = macs.first().map_or_else(|| id.to_string(), ToString::to_string);
    let (before, after) = (Some(json!({})), Some(json!({"asked": "settle"})));
    let asked = Step { noun: "discovery", subject: *id, name: &name, before, after };
    control.inventory.acting(&caller.name).record(asked).await?;
    let became = judge.settle_now(now.id).await?;
    let Stored { id, document: Discovered { macs, .. }, .. } = now;
    tracing::info!(entry = id, by = caller.name, "rules decide on a discovered machine");
    let entries = control.inventory.discovered().await?;
    let left = entries.into_iter().find(|entry| entry.id == id).map(|entry| entry.document);
    Ok(Json(match (became, left) {
        (Some(Becomes { machine, rule, .. }), _) => {
            Decided { id, macs, machine: Some(machine.name), state: None, rule, note: None }
        }
        (None, Some(Discovered { state, rule, note, .. })) => {
            Decided { id, macs, machine: None, state: Some(state), rule, note }
        }
        (None, None) => return Err(gone(&key)),
    })
    .into_response())
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
