//! Makes the inventory what files say: all of it, or nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kiln_inventory::{DiscoveryRule, Document as _, Group, Outline, Verb, Wanted, Wrong};
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::change::Dry;
use super::extract::{Body, Params};
use super::machines::refresh;
use super::merge::{FieldChange, differences};
use super::peer::Caller;
use super::route::{Route, post};
use super::{Control, Fault};

/// The longest body that is read.
const MOST_BYTES: usize = 64 << 20;

/// What files say, and where they come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Name of the source: it is remembered what it describes. Without one nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Remove what the same source described before and does not describe any more.
    #[serde(default)]
    pub prune: bool,
    /// Do nothing when there was a change after that with this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_after: Option<i64>,
    /// What there should be.
    pub files: Wanted,
}

/// What was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApplyAnswer {
    /// Whether it was only tried.
    pub dry_run: bool,
    /// The number of the last change before this.
    pub after: i64,
    /// How much is as it should be.
    pub unchanged: usize,
    /// What has changed.
    pub changes: Vec<AppliedChange>,
}

/// A noun that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AppliedChange {
    /// `machine`, `group` or `discovery-rule`.
    pub noun: String,
    /// Its name.
    pub name: String,
    /// `add`, `change` or `remove`.
    pub verb: String,
    /// Each field that is another one, where the noun has changed. What is secret is named without its value.
    pub diff: Vec<FieldChange>,
}

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Write(Noun::Machine);
    let what = "Make the inventory what files say, all of it or nothing; with groups it needs group:write too, with rules discovery:write";
    vec![
        post("/api/v1/apply", write, what, apply)
            .query::<Dry>()
            .takes::<Apply>()
            .up_to(MOST_BYTES)
            .or(StatusCode::PRECONDITION_FAILED)
            .gives::<ApplyAnswer>(),
    ]
}

async fn apply(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(body): Body<Apply>,
) -> Result<Json<ApplyAnswer>, Fault> {
    if !caller.rights.sees_all() {
        let text = "files describe a whole inventory, and you may change some machines only";
        return Err(Fault::new(StatusCode::FORBIDDEN, text));
    }
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let after = edit.began_at();
    if let Some(seen) = body.unless_after
        && !edit.is_unchanged_since(seen).await?
    {
        let text = "the inventory was changed meanwhile; look again at what would be done";
        return Err(Fault::new(StatusCode::PRECONDITION_FAILED, text));
    }
    let done = edit.apply(&body.files, body.source.as_deref(), body.prune).await;
    let outline = done.map_err(fault)?;
    let files = &body.files;
    for (word, noun, given) in [
        (Group::NOUN, Noun::Group, !files.groups.is_empty()),
        (DiscoveryRule::NOUN, Noun::Discovery, !files.discovery_rules.is_empty()),
    ] {
        let needed = Access::Write(noun);
        let changed = || outline.changes.iter().any(|change| change.noun == word);
        if (given || changed()) && caller.rights.check(needed).is_err() {
            let text =
                format!("{word}s need the scope `{needed}`, which `{}` has not", caller.name);
            return Err(Fault::new(StatusCode::FORBIDDEN, text));
        }
    }
    let answer = answer(outline, after, dry.dry_run);
    if !dry.dry_run {
        let last = edit.commit().await?;
        if last != after {
            refresh(&control).await?;
            let (changes, source) = (answer.changes.len(), body.source.unwrap_or_default());
            tracing::info!(changes, source, "files applied");
        }
    }
    Ok(Json(answer))
}

fn answer(outline: Outline, after: i64, dry_run: bool) -> ApplyAnswer {
    let changes = outline.changes.into_iter().map(|change| AppliedChange {
        noun: change.noun.to_owned(),
        name: change.name,
        verb: match change.verb {
            Verb::Add => "add",
            Verb::Remove => "remove",
            Verb::Change | Verb::Deny => "change",
        }
        .to_owned(),
        diff: change.documents.map_or_else(Vec::new, |(before, after)| {
            let diff = differences(&before, &after);
            if diff.is_empty() { vec![secrets()] } else { diff }
        }),
    });
    ApplyAnswer { dry_run, after, unchanged: outline.unchanged, changes: changes.collect() }
}

/// Documents that differ in nothing that may be shown differ in their secrets.
fn secrets() -> FieldChange {
    FieldChange { field: "/metadata/secrets".to_owned(), before: None, after: None }
}

/// Says where in the body something is that cannot be.
fn fault(wrong: Wrong) -> Fault {
    let fault = Fault::from(wrong.error);
    match wrong.at {
        Some((list, index)) => fault.at(format!("/files/{list}/{index}")),
        None => fault,
    }
}
