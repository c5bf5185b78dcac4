//! Machines that are one box, and those that are two.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Machine, NewMachine};
use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::extract::{Body, Key, Params};
use super::machines::{find, refresh};
use super::peer::Caller;
use super::route::{Route, post};
use super::{Control, Fault};

type Shared = State<Arc<Control>>;

/// The machine that is the same box.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Its name or hardware address. It is gone afterwards.
    pub from: String,
}

/// What is to be a machine of its own.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Name of the new machine.
    pub name: String,
    /// Its interfaces.
    pub macs: BTreeSet<Mac>,
}

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Write(Noun::Machine);
    vec![
        post("/api/v1/machines/{key}/merge", write, "Make one machine of two", merge)
            .tried()
            .takes::<Merge>()
            .gives::<Machine>(),
        post("/api/v1/machines/{key}/split", write, "Make two machines of one", split)
            .tried()
            .takes::<Split>()
            .lists::<Machine>(),
    ]
}

async fn merge(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(merge): Body<Merge>,
) -> Result<Response, Fault> {
    let (into, from) =
        (find(&control, &caller, &key).await?, find(&control, &caller, &merge.from).await?);
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let boots = (edit.boots_of(into.id).await?, edit.boots_of(from.id).await?);
    let merged = edit.merge_machines(into.id, from.id).await?;
    let merged = merged.ok_or_else(|| Fault::not_found("machine", &key))?;
    caller.may_make(&merged.spec)?;
    if dry.dry_run {
        let before = [(&into.spec, boots.0), (&from.spec, boots.1)];
        let after = [(&merged.spec, edit.boots_of(into.id).await?)];
        return Ok(Preview::of(Some(&by_name(&before)), Some(&by_name(&after))).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    tracing::info!(machine = merged.spec.name, from = from.spec.name, "machines merged");
    Ok(Json(merged).into_response())
}

async fn split(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(split): Body<Split>,
) -> Result<Response, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let both = edit.split_machine(machine.id, &split.name, &split.macs).await?;
    let (rest, new) = both.ok_or_else(|| Fault::not_found("machine", &key))?;
    caller.may_make(&rest.spec)?;
    caller.may_make(&new.spec)?;
    if dry.dry_run {
        let boots = edit.boots_of(machine.id).await?;
        let before = by_name(&[(&machine.spec, boots)]);
        let after = by_name(&[(&rest.spec, boots), (&new.spec, 0)]);
        return Ok(Preview::of(Some(&before), Some(&after)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    tracing::info!(machine = rest.spec.name, new = new.spec.name, "machine split");
    Ok(Json(vec![rest, new]).into_response())
}

/// Writes machines under their names, with how many boots each has, so that a preview can be of two of them.
fn by_name(machines: &[(&NewMachine, i64)]) -> Value {
    let one = |(machine, boots): &(&NewMachine, i64)| {
        let mut value = serde_json::to_value(machine).unwrap_or_default();
        value["boots"] = json!(boots);
        (machine.name.clone(), value)
    };
    machines.iter().map(one).collect()
}
