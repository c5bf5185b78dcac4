//! Images of the artifact store: list, and which versions are used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::extract::Params;
use super::page::{self, NamedPage};
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
        get("/api/v1/images", read, "List images and their versions", list)
            .query::<NamedPage>()
            .gives::<Images>(),
        get("/api/v1/images/used", read, "List versions that machines run or would boot", used)
            .lists::<Digest>(),
    ]
}

async fn list(
    State(control): State<Arc<Control>>,
    uri: Uri,
    Params(page): Params<NamedPage>,
) -> Result<Response, Fault> {
    let index = control.view.artifacts().index();
    let mut index = index.map_err(|error| Fault::internal(&error))?;
    let next = page.cut(&mut index.images);
    let images = Images { index, refused: BTreeMap::clone(&control.view.refused()) };
    page::answer_whole(&page, &uri, &images, next.as_deref())
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
