//! Secrets of machines and groups: set, list by name, remove, rotate the key. No answer has a secret in it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Group, MachineId, Stored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::extract::{Body, Keys, Params};
use super::machines::{find, refresh};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, post, put};
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::secrets::{LONGEST, OwnerKind, RingError, SecretDoc, SecretError, place_of, unhex};

/// The longest body: a secret in hexadecimal digits, or in JSON with every character escaped.
const MOST_BYTES: usize = 6 * LONGEST + 1024;

/// A secret to keep.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// The secret itself. No answer ever has it.
    pub value: String,
    /// Whether `value` is the text itself, or its bytes in hexadecimal digits.
    #[serde(default)]
    pub encoding: Encoding,
}

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// As they are.
    #[default]
    Text,
    /// In hexadecimal digits.
    Hex,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

/// A secret, as far as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretRow {
    /// `machine` or `group`.
    pub kind: String,
    /// Name of the machine or group.
    pub owner: String,
    /// Name of the secret: the file it is in, under /etc/kiln/secrets.
    pub name: String,
    /// Which key it is encrypted with.
    pub key: String,
    /// When it was set last, in milliseconds since 1970.
    pub changed: i64,
    /// Who set it.
    pub changed_by: String,
}

/// What became of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RotatedKey {
    /// The new key.
    pub key: String,
    /// How many secrets are encrypted with it now.
    pub secrets: usize,
}

type Shared = State<Arc<Control>>;
type Path = Keys<(String, String, String)>;

pub(super) fn routes() -> Vec<Route> {
    const ONE: &str = "/api/v1/secrets/{kind}/{owner}/{name}";
    let (read, write) = (Access::Read(Noun::Secret), Access::Write(Noun::Secret));
    vec![
        get("/api/v1/secrets", read, "List secrets by name; parts go by id", list)
            .query::<Page>()
            .lists::<SecretRow>(),
        put(ONE, write, "Keep a secret of a machine or a group", set)
            .tried()
            .takes::<NewSecret>()
            .up_to(MOST_BYTES)
            .with(StatusCode::NO_CONTENT),
        delete(ONE, write, "Remove a secret", remove).tried().with(StatusCode::NO_CONTENT),
        post("/api/v1/secrets/rotate", write, "Encrypt all secrets with a new key", rotate)
            .tried()
            .gives::<RotatedKey>()
            .or(StatusCode::PRECONDITION_FAILED),
    ]
}

impl From<SecretError> for Fault {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Store(error) => error.into(),
            SecretError::TooMany
            | SecretError::Keys(RingError::Missing { .. } | RingError::Other { .. }) => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            SecretError::TooLong => Self::invalid(error.to_string()).at("/value".to_owned()),
            error => Self::internal(&error),
        }
    }
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let groups = control.inventory.all::<Group>().await?;
    let snapshot = control.view.snapshot();
    let named = |kind, owner| match kind {
        OwnerKind::Machine => {
            let machines = snapshot.machines().iter();
            let mut found = machines.filter(|machine| machine.id == MachineId(owner));
            found.next().map(|machine| machine.spec.name.clone())
        }
        OwnerKind::Group => {
            let mut found = groups.iter().filter(|group| group.id == owner);
            found.next().map(|group| group.document.name.clone())
        }
        OwnerKind::Webhook => None,
    };
    let all = control.inventory.all::<SecretDoc>().await?.into_iter();
    let mut rows: Vec<Stored<SecretRow>> = all
        .filter_map(|Stored { id, revision, document }| {
            let owner = named(document.kind, document.owner)?;
            Some(Stored { id, revision, document: row(owner, document) })
        })
        .collect();
    page.sort(&mut rows, |a, b| (&b.kind, &a.owner, &a.name).cmp(&(&a.kind, &b.owner, &b.name)));
    let rows = rows.into_iter().map(|secret| (secret.id, secret.document));
    page::answer::<SecretRow, _>(&page, &uri, rows)
}

fn row(owner: String, secret: SecretDoc) -> SecretRow {
    SecretRow {
        kind: secret.kind.as_str().to_owned(),
        owner,
        name: secret.name,
        key: secret.sealed.key,
        changed: secret.changed,
        changed_by: secret.changed_by,
    }
}

/// How a key is called that is not there yet.
const NEW_KEY: &str = "(a new key)";

/// Finds whose secrets they are, and how that is called.
async fn owner(
    control: &Control,
    caller: &Caller,
    kind: &str,
    key: &str,
) -> Result<(OwnerKind, i64, String), Fault> {
    match kind {
        "machine" => {
            let machine = find(control, caller, key).await?;
            Ok((OwnerKind::Machine, machine.id.0, machine.spec.name))
        }
        "group" => {
            let group = control.inventory.named::<Group>(key).await?;
            let group = group.ok_or_else(|| Fault::not_found("group", key))?;
            Ok((OwnerKind::Group, group.id, group.document.name))
        }
        other => Err(Fault::not_found("kind of owner", other)),
    }
}

async fn set(
    State(control): Shared,
    caller: Caller,
    Keys((kind, key, name)): Path,
    Params(dry): Params<Dry>,
    Body(new): Body<NewSecret>,
) -> Result<Response, Fault> {
    let (kind, owner, whose) = owner(&control, &caller, &kind, &key).await?;
    let text = match new.encoding {
        Encoding::Text => new.value.into_bytes(),
        Encoding::Hex => unhex(&new.value).ok_or_else(|| {
            Fault::invalid("these are no bytes in hexadecimal digits").at("/value".to_owned())
        })?,
    };
    let store = control.inventory.acting(&caller.name);
    if dry.dry_run {
        let now = control.secrets.may_set(&store, (kind, owner, &name), &text).await?;
        let after = SecretRow {
            kind: kind.as_str().to_owned(),
            owner: whose.clone(),
            name,
            key: control.secrets.key().unwrap_or_else(|| NEW_KEY.to_owned()),
            changed: now_ms(),
            changed_by: caller.name,
        };
        let before = now.map(|now| row(whose, now.document));
        return Ok(Preview::of(before.as_ref(), Some(&after)).into_response());
    }
    control.secrets.set(&store, (kind, owner, &name), &text, &caller.name).await?;
    refresh(&control).await?;
    tracing::info!(kind = kind.as_str(), owner = whose, secret = name, "secret set");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove(
    State(control): Shared,
    caller: Caller,
    Keys((kind, key, name)): Path,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let (kind, owner, whose) = owner(&control, &caller, &kind, &key).await?;
    let found = control.inventory.named::<SecretDoc>(&place_of(kind, owner, &name)).await?;
    let found = found.ok_or_else(|| Fault::not_found("secret", &name))?;
    if dry.dry_run {
        let before = row(whose, found.document);
        return Ok(Preview::of(Some(&before), None::<&Value>).into_response());
    }
    control.inventory.acting(&caller.name).remove::<SecretDoc>(found.id, None).await?;
    refresh(&control).await?;
    tracing::info!(kind = kind.as_str(), owner = whose, secret = name, "secret removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn rotate(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let store = control.inventory.acting(&caller.name);
    if dry.dry_run {
        let secrets = control.secrets.would_rotate(&store).await?;
        let before = json!({"key": control.secrets.key()});
        let after = json!({"key": NEW_KEY, "secrets": secrets});
        return Ok(Preview::of(Some(&before), Some(&after)).into_response());
    }
    let (key, secrets) = control.secrets.rotate(&store).await?;
    refresh(&control).await?;
    tracing::info!(key, count = secrets, "secrets are encrypted with a new key");
    Ok(Json(RotatedKey { key, secrets }).into_response())
}
