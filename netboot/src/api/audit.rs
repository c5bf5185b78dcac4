//! The log of changes: who did what, and who was refused. Each row has the hash of the one before it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::Response;
use kiln_inventory::Change;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::Params;
use super::feed;
use super::page::{self, Page};
use super::route::{Route, get};
use super::{Control, Fault};

/// Rows that are read at a time.
const CHUNK: u32 = 1000;
/// The most rows in one answer.
const MOST_ROWS: usize = 10_000;

/// One row of the log of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditRow {
    /// Its number: each has the next one.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// What kind of noun.
    pub noun: String,
    /// Its name.
    pub name: String,
    /// `add`, `change`, `remove` or `deny`.
    pub verb: String,
    /// What it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// SHA-256 over this row and the hash of the one before.
    pub hash: Digest,
}

fn row(change: Change) -> Result<AuditRow, Fault> {
    let word = serde_json::to_value(change.verb).unwrap_or_default();
    Ok(AuditRow {
        id: change.id,
        at: change.at,
        verb: word.as_str().unwrap_or_default().to_owned(),
        before: Change::document(change.before.as_deref())?,
        after: Change::document(change.after.as_deref())?,
        actor: change.actor,
        noun: change.noun,
        name: change.name,
        hash: change.hash,
    })
}

/// What became of a check of the whole log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verification {
    /// How many rows are as they were written, and follow each other.
    pub changes: u64,
    /// The hash of the newest; who keeps it elsewhere can tell whether the end was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Digest>,
    /// The first row that is not as it was written, or does not follow the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<i64>,
}

/// Which rows.
#[derive(Clone, Debug, Deserialize, IntoParams)]
pub(super) struct Rows {
    /// Only of this kind of noun.
    noun: Option<String>,
    /// Only of nouns with this name.
    name: Option<String>,
    /// Only what he did.
    actor: Option<String>,
}

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Read(Noun::Audit);
    vec![
        get("/api/v1/audit", read, "List who did what, the oldest first", list)
            .query::<Page>()
            .query::<Rows>()
            .lists::<AuditRow>(),
        get("/api/v1/audit/verify", read, "Check that nothing in the log was changed", verify)
            .gives::<Verification>(),
    ]
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
    Params(rows): Params<Rows>,
) -> Result<Response, Fault> {
    let noun = rows.noun.as_deref().map(feed::noun).transpose()?;
    let wanted = |change: &Change| {
        noun.as_ref().is_none_or(|noun| *noun == change.noun)
            && rows.name.as_ref().is_none_or(|name| *name == change.name)
            && rows.actor.as_ref().is_none_or(|actor| *actor == change.actor)
    };
    // One more than fits, so that the answer says whether there are more.
    let most = page.most(MOST_ROWS).saturating_add(1);
    let (mut found, mut after) = (Vec::new(), page.after().max(0));
    while found.len() < most {
        let chunk = control.inventory.changes_since(after, CHUNK).await?;
        let Some(last) = chunk.last() else { break };
        after = last.id;
        for change in chunk.into_iter().filter(wanted) {
            found.push(row(change)?);
        }
    }
    let page = page.at_most(MOST_ROWS);
    page::answer::<AuditRow, _>(&page, &uri, found.into_iter().map(|row| (row.id, row)))
}

async fn verify(State(control): Shared) -> Result<Json<Verification>, Fault> {
    let found = control.inventory.verify_changes().await?;
    if let Some(broken) = found.broken {
        tracing::error!(change = broken, "the log of changes is not as it was written");
    }
    let (changes, last, broken) = (found.changes, found.last, found.broken);
    Ok(Json(Verification { changes, last, broken }))
}

/// Writes down that somebody was refused; not more often than is good for the disk.
pub(super) async fn denied(control: &Control, who: &str, method: &Method, path: &str, why: &str) {
    let path: String = path.chars().take(200).collect();
    tracing::warn!(by = who, %method, path, reason = why, "refused");
    if !control.gate.may_record() {
        return;
    }
    let asked = json!({"method": method.as_str(), "path": path, "why": why});
    let store = control.inventory.acting(who);
    if let Err(error) = store.record_denial("access", &path, asked).await {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "a refusal cannot be written down");
    }
}
