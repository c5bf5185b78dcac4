//! Groups: list, add, show, change, remove; and what holds for a machine by itself and by its groups.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{BeatenRow, Group, SettingRow, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::{Access, Noun};
use super::change::{self, Dry, IfMatch, Tagged};
use super::extract::{Body, Key, Params};
use super::machines::{find, refresh};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, patch, post, put};
use super::{Control, Fault};

type Shared = State<Arc<Control>>;

/// A group, and how many machines are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GroupRow {
    /// Our own id.
    pub id: i64,
    /// 1 at first, and one more with every change.
    pub revision: i64,
    /// How many machines the selector means now.
    pub machines: usize,
    /// What an operator says.
    pub group: Group,
}

/// What holds for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineSettings {
    /// Names of its groups, the strongest first.
    pub groups: Vec<String>,
    /// Every setting that is there, and who says it.
    pub settings: Vec<SettingRow>,
    /// What is said of it and does not count, because something stronger says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beaten: Vec<BeatenRow>,
}

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Group), Access::Write(Noun::Group));
    let machine = Access::Read(Noun::Machine);
    vec![
        get("/api/v1/groups", read, "List groups, the strongest first; parts go by id", list)
            .query::<Page>()
            .lists::<GroupRow>(),
        post("/api/v1/groups", write, "Add a group", add)
            .tried()
            .takes::<Group>()
            .with(StatusCode::CREATED)
            .gives::<GroupRow>()
            .tagged(),
        get("/api/v1/groups/{key}", read, "Show a group", show).gives::<GroupRow>().tagged(),
        put("/api/v1/groups/{key}", write, "Change what a group is to be", change)
            .tried()
            .conditional()
            .takes::<Group>()
            .gives::<GroupRow>()
            .tagged(),
        patch("/api/v1/groups/{key}", write, "Change some fields of a group", patch_one)
            .tried()
            .conditional()
            .merges::<Group>()
            .gives::<GroupRow>()
            .tagged(),
        delete("/api/v1/groups/{key}", write, "Remove a group; its machines stay", remove)
            .tried()
            .conditional()
            .with(StatusCode::NO_CONTENT),
        get(
            "/api/v1/machines/{key}/settings",
            machine,
            "Say what holds for a machine",
            settings_of,
        )
        .gives::<MachineSettings>(),
    ]
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let mut groups = control.inventory.all::<Group>().await?;
    page.sort(&mut groups, Group::by_strength);
    let rows = groups.into_iter().map(|group| (group.id, row(&control, group)));
    page::answer::<GroupRow, _>(&page, &uri, rows)
}

async fn add(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(group): Body<Group>,
) -> Result<Response, Fault> {
    let added = match change::add(&control, &caller, dry, &group).await? {
        ControlFlow::Continue(added) => added,
        ControlFlow::Break(preview) => return Ok(preview.into_response()),
    };
    refresh(&control).await?;
    tracing::info!(group = group.name, "group added");
    Ok((StatusCode::CREATED, tagged(&control, added)).into_response())
}

async fn show(State(control): Shared, Key(key): Key) -> Result<Response, Fault> {
    let group = named(&control, &key).await?;
    Ok(tagged(&control, group).into_response())
}

async fn change(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(group): Body<Group>,
) -> Result<Response, Fault> {
    let now = named(&control, &key).await?;
    let expected = condition.expected("the group", now.revision)?;
    make(&control, &caller, now, &group, expected, dry).await
}

/// Changes some fields of a group.
async fn patch_one(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(patch): Body<Value>,
) -> Result<Response, Fault> {
    let (control, caller) = (&*control, &caller);
    change::patch(
        &condition,
        ("the group", &patch),
        || named(control, &key),
        |now: &Stored<Group>| (now.revision, &now.document),
        |now, group, expected| async move {
            make(control, caller, now, &group, expected, dry).await
        },
    )
    .await
}

async fn make(
    control: &Control,
    caller: &Caller,
    now: Stored<Group>,
    group: &Group,
    expected: Option<i64>,
    dry: Dry,
) -> Result<Response, Fault> {
    let changed = match change::put(control, caller, dry, (&now, expected), group).await? {
        ControlFlow::Continue(changed) => changed,
        ControlFlow::Break(preview) => return Ok(preview.into_response()),
    };
    refresh(control).await?;
    tracing::info!(group = group.name, "group changed");
    Ok(tagged(control, changed).into_response())
}

async fn remove(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    condition: IfMatch,
) -> Result<Response, Fault> {
    let group = named(&control, &key).await?;
    let expected = condition.expected("the group", group.revision)?;
    let removed = change::remove(&control, &caller, dry, (group, expected)).await?;
    if let ControlFlow::Break(preview) = removed {
        return Ok(preview.into_response());
    }
    refresh(&control).await?;
    tracing::info!(group = key, "group removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn named(control: &Control, name: &str) -> Result<Stored<Group>, Fault> {
    change::named(control, "group", name).await
}

fn tagged(control: &Control, group: Stored<Group>) -> Tagged<Json<GroupRow>> {
    Tagged(group.revision, Json(row(control, group)))
}

fn row(control: &Control, group: Stored<Group>) -> GroupRow {
    let snapshot = control.view.snapshot();
    let selector = &group.document.selector;
    let machines = snapshot.machines().iter();
    let machines = machines.filter(|machine| selector.matches(&machine.spec.labels)).count();
    GroupRow { id: group.id, revision: group.revision, machines, group: group.document }
}

/// Says what holds for a machine, as decisions see it.
async fn settings_of(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
) -> Result<Json<MachineSettings>, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let snapshot = control.view.snapshot();
    let all = snapshot.settings_of(machine.id);
    let all = all.ok_or_else(|| Fault::not_found("machine", &key))?;
    let groups = all.groups.iter().map(ToString::to_string).collect();
    let beaten = snapshot.beaten(&machine);
    Ok(Json(MachineSettings { groups, settings: all.rows(), beaten }))
}
