//! Secrets of machines and groups: set, list by name, remove, rotate the key. No answer has a secret in it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kiln_inventory::{Group, MachineId, Stored};
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::extract::{Body, Keys};
use super::machines::{find, refresh};
use super::peer::Caller;
use super::route::{Route, delete, get, post, put};
use super::{Control, Fault};
use crate::secrets::{LONGEST, OwnerKind, SecretDoc, SecretError, place_of, unhex};

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
        get("/api/v1/secrets", read, "List secrets by name", list).lists::<SecretRow>(),
        put(ONE, write, "Keep a secret of a machine or a group", set)
            .takes::<NewSecret>()
            .up_to(MOST_BYTES)
            .with(StatusCode::NO_CONTENT),
        delete(ONE, write, "Remove a secret", remove).with(StatusCode::NO_CONTENT),
        post("/api/v1/secrets/rotate", write, "Encrypt all secrets with a new key", rotate)
            .gives::<RotatedKey>(),
    ]
}

impl From<SecretError> for Fault {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Store(error) => error.into(),
            SecretError::TooMany => Self::new(StatusCode::CONFLICT, error.to_string()),
            SecretError::TooLong => Self::invalid(error.to_string()).at("/value".to_owned()),
            error => Self::internal(&error),
        }
    }
}

async fn list(State(control): Shared) -> Result<Json<Vec<SecretRow>>, Fault> {
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
    let mut rows: Vec<SecretRow> = all
        .filter_map(|Stored { document, .. }| {
            Some(SecretRow {
                kind: document.kind.as_str().to_owned(),
                owner: named(document.kind, document.owner)?,
                name: document.name,
                key: document.sealed.key,
                changed: document.changed,
                changed_by: document.changed_by,
            })
        })
        .collect();
    rows.sort_by(|a, b| (&b.kind, &a.owner, &a.name).cmp(&(&a.kind, &b.owner, &b.name)));
    Ok(Json(rows))
}

/// Finds whose secrets they are.
async fn owner(
    control: &Control,
    caller: &Caller,
    kind: &str,
    key: &str,
) -> Result<(OwnerKind, i64), Fault> {
    match kind {
        "machine" => Ok((OwnerKind::Machine, find(control, caller, key).await?.id.0)),
        "group" => {
            let group = control.inventory.named::<Group>(key).await?;
            let group = group.ok_or_else(|| Fault::not_found("group", key))?;
            Ok((OwnerKind::Group, group.id))
        }
        other => Err(Fault::not_found("kind of owner", other)),
    }
}

async fn set(
    State(control): Shared,
    caller: Caller,
    Keys((kind, key, name)): Path,
    Body(new): Body<NewSecret>,
) -> Result<StatusCode, Fault> {
    let (kind, owner) = owner(&control, &caller, &kind, &key).await?;
    let text = match new.encoding {
        Encoding::Text => new.value.into_bytes(),
        Encoding::Hex => unhex(&new.value).ok_or_else(|| {
            Fault::invalid("these are no bytes in hexadecimal digits").at("/value".to_owned())
        })?,
    };
    let store = control.inventory.acting(&caller.name);
    control.secrets.set(&store, (kind, owner, &name), &text, &caller.name).await?;
    refresh(&control).await?;
    tracing::info!(kind = kind.as_str(), owner = key, name, "secret set");
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(control): Shared,
    caller: Caller,
    Keys((kind, key, name)): Path,
) -> Result<StatusCode, Fault> {
    let (kind, owner) = owner(&control, &caller, &kind, &key).await?;
    let found = control.inventory.named::<SecretDoc>(&place_of(kind, owner, &name)).await?;
    let found = found.ok_or_else(|| Fault::not_found("secret", &name))?;
    control.inventory.acting(&caller.name).remove::<SecretDoc>(found.id, None).await?;
    refresh(&control).await?;
    tracing::info!(kind = kind.as_str(), owner = key, name, "secret removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn rotate(State(control): Shared, caller: Caller) -> Result<Json<RotatedKey>, Fault> {
    let store = control.inventory.acting(&caller.name);
    let (key, secrets) = control.secrets.rotate(&store).await?;
    refresh(&control).await?;
    tracing::info!(key, secrets, "secrets are encrypted with a new key");
    Ok(Json(RotatedKey { key, secrets }))
}
