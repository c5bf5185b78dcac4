//! Images of the artifact store: list.

use std::collections::BTreeMap;
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
    vec![get("/api/v1/images", read, "List images and their versions", list).gives::<Images>()]
}

async fn list(State(control): State<Arc<Control>>) -> Result<Json<Images>, Fault> {
    let index = control.view.artifacts().index();
    let index = index.map_err(|error| Fault::internal(&error))?;
    Ok(Json(Images { index, refused: BTreeMap::clone(&control.view.refused()) }))
}
