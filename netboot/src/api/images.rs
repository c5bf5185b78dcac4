//! Images of the artifact store: list, and which versions are used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::route::{Route, get};
use super::{Control, Fault};

/// The images of the artifact store.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Images {
    /// What there is.
    #[serde(flatten)]
    pub index: kiln_builder::store::Index,
    /// Versions that are not served, and why.
    #[serde(default)]
    pub refused: BTreeMap<Digest, String>,
}

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Read(Noun::Image);
    vec![
        get("/api/v1/images", read, "List images and their versions", list).gives::<Images>(),
        get("/api/v1/images/used", read, "List versions that machines run or would boot", used)
            .lists::<Digest>(),
    ]
}

async fn list(State(control): State<Arc<Control>>) -> Result<Json<Images>, Fault> {
    let index = control.view.artifacts().index();
    let index = index.map_err(|error| Fault::internal(&error))?;
    Ok(Json(Images { index, refused: BTreeMap::clone(&control.view.refused()) }))
}

/// Versions that must not go away: what each machine runs or last ran well, and what is given out now. Whoever may see
/// some machines only is not told, for he would take what others use for unused.
async fn used(State(control): State<Arc<Control>>) -> Result<Json<BTreeSet<Digest>>, Fault> {
    let mut used = control.inventory.used_versions().await?;
    let snapshot = control.view.snapshot();
    let named = snapshot.images.values().flat_map(BTreeMap::values);
    let kept = snapshot.kept.values().filter_map(|kept| kept.version.as_ref());
    used.extend(named.chain(kept).map(|version| version.version));
    Ok(Json(used))
}
