//! Machines that are one box, and those that are two.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use kiln_inventory::Machine;
use kiln_types::Mac;
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::extract::{Body, Key};
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
            .takes::<Merge>()
            .gives::<Machine>(),
        post("/api/v1/machines/{key}/split", write, "Make two machines of one", split)
            .takes::<Split>()
            .lists::<Machine>(),
    ]
}

async fn merge(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Body(merge): Body<Merge>,
) -> Result<Json<Machine>, Fault> {
    let (into, from) =
        (find(&control, &caller, &key).await?, find(&control, &caller, &merge.from).await?);
    let store = control.inventory.acting(&caller.name);
    let merged = store.merge_machines(into.id, from.id).await?;
    let merged = merged.ok_or_else(|| Fault::not_found("machine", &key))?;
    refresh(&control).await?;
    tracing::info!(machine = merged.spec.name, from = from.spec.name, "machines merged");
    Ok(Json(merged))
}

async fn split(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Body(split): Body<Split>,
) -> Result<Json<Vec<Machine>>, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let store = control.inventory.acting(&caller.name);
    let both = store.split_machine(machine.id, &split.name, &split.macs).await?;
    let (rest, new) = both.ok_or_else(|| Fault::not_found("machine", &key))?;
    refresh(&control).await?;
    tracing::info!(machine = rest.spec.name, new = new.spec.name, "machine split");
    Ok(Json(vec![rest, new]))
}
