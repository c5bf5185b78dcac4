//! Builds that the server makes by itself: list, show, start, follow.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use kiln_inventory::Step;
use kiln_types::Arch;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::{Key, Params};
use super::page::{self, NamedPage};
use super::peer::Caller;
use super::route::{Route, get, post};
use super::{Control, Fault};
use crate::bake::{ImageState, LogLine};

/// The longest that a request waits for a line, in seconds.
const PATIENCE: u64 = 25;

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Build), Access::Write(Noun::Build));
    vec![
        get("/api/v1/builds", read, "List what the server builds by itself", list)
            .query::<NamedPage>()
            .lists::<ImageState>(),
        get("/api/v1/builds/{image}", read, "Show how far the builds of an image are", show)
            .gives::<ImageState>(),
        post("/api/v1/builds/{image}", write, "Build an image now", start)
            .query::<StartQuery>()
            .with(StatusCode::ACCEPTED)
            .gives::<ImageState>(),
        get("/api/v1/builds/{image}/log", read, "Follow the builds of an image", log)
            .query::<LogQuery>()
            .gives::<BuildLog>(),
    ]
}

/// A part of the log of an image's builds.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildLog {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// What to ask for next, as `after`.
    pub last: u64,
    /// The image at that moment.
    pub state: ImageState,
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<NamedPage>,
) -> Result<Response, Fault> {
    let states = control.baker.states().into_iter();
    page::answer_named::<ImageState, _>(&page, &uri, states.map(|it| (it.image.clone(), it)))
}

async fn show(State(control): Shared, Key(image): Key) -> Result<Json<ImageState>, Fault> {
    control.baker.state(&image).map(Json).ok_or_else(|| missing(&image))
}

#[derive(Deserialize, IntoParams)]
struct StartQuery {
    /// Only for this architecture.
    arch: Option<Arch>,
}

async fn start(
    State(control): Shared,
    caller: Caller,
    Key(image): Key,
    Params(query): Params<StartQuery>,
) -> Result<(StatusCode, Json<ImageState>), Fault> {
    control.baker.state(&image).ok_or_else(|| missing(&image))?;
    let after = Some(json!({"arch": query.arch}));
    let asked = Step { noun: "build", subject: 0, name: &image, before: None, after };
    control.inventory.acting(&caller.name).record(asked).await?;
    if !control.baker.request(&image, query.arch).await {
        return Err(missing(&image));
    }
    let state = control.baker.state(&image).ok_or_else(|| missing(&image))?;
    Ok((StatusCode::ACCEPTED, Json(state)))
}

#[derive(Deserialize, IntoParams)]
struct LogQuery {
    /// Only lines after that with this number.
    #[serde(default)]
    after: u64,
    /// Seconds to wait for a line where there is none.
    #[serde(default)]
    wait: u64,
}

async fn log(
    State(control): Shared,
    Key(image): Key,
    Params(query): Params<LogQuery>,
) -> Result<Json<BuildLog>, Fault> {
    let patience = Duration::from_secs(query.wait.min(PATIENCE));
    let (lines, last) = control.baker.log(&image, query.after, patience).await;
    let state = control.baker.state(&image).ok_or_else(|| missing(&image))?;
    Ok(Json(BuildLog { lines, last, state }))
}

fn missing(image: &str) -> Fault {
    let text =
        format!("the folder of specifications has no image `{image}` (`dir` under `[images]`)");
    Fault::new(StatusCode::NOT_FOUND, text)
}
