//! Builds that the server makes by itself: list, show, start, follow.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use kiln_types::Arch;
use serde::{Deserialize, Serialize};

use super::{Control, Fault};
use crate::bake::{ImageState, LogLine};

/// The longest that a request waits for a line, in seconds.
const PATIENCE: u64 = 25;

type Shared = State<Arc<Control>>;

/// A part of the log of an image's builds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildLog {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// What to ask for next, as `after`.
    pub last: u64,
    /// The image at that moment.
    pub state: ImageState,
}

pub(super) async fn list(State(control): Shared) -> Json<Vec<ImageState>> {
    Json(control.baker.states())
}

pub(super) async fn show(
    State(control): Shared,
    Path(image): Path<String>,
) -> Result<Json<ImageState>, Fault> {
    control.baker.state(&image).map(Json).ok_or_else(|| missing(&image))
}

#[derive(Deserialize)]
pub(super) struct StartQuery {
    arch: Option<Arch>,
}

pub(super) async fn start(
    State(control): Shared,
    Path(image): Path<String>,
    query: Result<Query<StartQuery>, QueryRejection>,
) -> Result<(StatusCode, Json<ImageState>), Fault> {
    let Query(query) = query?;
    if !control.baker.request(&image, query.arch).await {
        return Err(missing(&image));
    }
    let state = control.baker.state(&image).ok_or_else(|| missing(&image))?;
    Ok((StatusCode::ACCEPTED, Json(state)))
}

#[derive(Deserialize)]
pub(super) struct LogQuery {
    #[serde(default)]
    after: u64,
    /// Seconds to wait for a line where there is none.
    #[serde(default)]
    wait: u64,
}

pub(super) async fn log(
    State(control): Shared,
    Path(image): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Json<BuildLog>, Fault> {
    let Query(query) = query?;
    let patience = Duration::from_secs(query.wait.min(PATIENCE));
    let (lines, last) = control.baker.log(&image, query.after, patience).await;
    let state = control.baker.state(&image).ok_or_else(|| missing(&image))?;
    Ok(Json(BuildLog { lines, last, state }))
}

fn missing(image: &str) -> Fault {
    let text =
        format!("the folder of specifications has no image `{image}` (`dir` under `[images]`)");
    Fault(StatusCode::NOT_FOUND, text)
}
