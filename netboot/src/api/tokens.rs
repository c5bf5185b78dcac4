//! Tokens: create, list, revoke. A token is shown once; only its hash is kept.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Document, Edit, Selector, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::{Access, Noun};
use super::change::{self, Done, Dry, Preview, named};
use super::extract::{Body, Key, Params};
use super::gate::{PREFIX, sha256};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, post};
use super::scope::Scope;
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::boots::secret::secret;

/// How long a token is good for, unless said otherwise: 90 days, in seconds.
const LIFETIME: u64 = 90 * 24 * 3600;
/// The most tokens, so that a program that runs wild does not fill the database.
const MOST_TOKENS: usize = 10_000;
/// The most scopes of one token or user.
pub(super) const MOST_SCOPES: usize = 32;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenDoc {
    pub(super) name: String,
    /// SHA-256 of the token, in hexadecimal digits.
    pub(super) sha256: String,
    pub(super) scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) selector: Option<Selector>,
    pub(super) created: i64,
    pub(super) created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<i64>,
    /// Whose session it is; it may do what the user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
}

impl Document for TokenDoc {
    const NOUN: &'static str = "token";

    fn name(&self) -> &str {
        &self.name
    }

    fn key(&self) -> Option<&str> {
        Some(&self.sha256)
    }

    fn check(&self) -> Result<(), String> {
        check_name("token", &self.name)?;
        if self.user.is_none() && self.scopes.is_empty() {
            return Err("a token needs at least one scope, such as `machine:read`".to_owned());
        }
        Ok(())
    }

    fn hide(document: &mut Value) {
        if let Some(document) = document.as_object_mut() {
            document.remove("sha256");
        }
    }
}

/// Refuses what cannot be the name of a noun of the API.
pub(super) fn check_name(noun: &str, name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= 63 && name.bytes().all(plain) {
        return Ok(());
    }
    let name: String = name.escape_debug().take(80).collect();
    Err(format!(
        "`{name}` cannot be the name of a {noun}; use at most 63 letters, digits, `-`, `_`, `.` and `@`, \
         with a letter or digit first"
    ))
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is called in lists and in the log of changes.
    pub name: String,
    /// What it allows: `admin`, `read`, `write`, or `NOUN:read` and `NOUN:write`.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// Only for machines with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// How long it is good for, in seconds: 90 days unless said, and 0 for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u64>,
}

/// A token, without what only its owner has. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenRow {
    /// Our own id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What it allows.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// Only for machines with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// When it was made.
    pub created: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// When it was used last, since the server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<i64>,
    /// Whose session it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A token that was made just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedToken {
    /// The token itself. Nobody shows it again.
    pub token: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    pub row: TokenRow,
}

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Token), Access::Write(Noun::Token));
    vec![
        get("/api/v1/tokens", read, "List tokens", list).query::<Page>().lists::<TokenRow>(),
        post("/api/v1/tokens", write, "Make a token, which is shown this once", create)
            .tried()
            .takes::<NewToken>()
            .with(StatusCode::CREATED)
            .gives::<CreatedToken>()
            .secretly(),
        delete("/api/v1/tokens/{name}", write, "Revoke a token", revoke)
            .tried()
            .with(StatusCode::NO_CONTENT),
    ]
}

fn row(control: &Control, Stored { id, document, .. }: Stored<TokenDoc>) -> TokenRow {
    TokenRow {
        id,
        name: document.name,
        scopes: document.scopes,
        selector: document.selector,
        created: document.created,
        created_by: document.created_by,
        expires: document.expires,
        last_used: control.gate.last_used(id),
        user: document.user,
    }
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let all = control.inventory.all::<TokenDoc>().await?;
    let rows = all.into_iter().map(|token| (token.id, row(&control, token)));
    page::answer::<TokenRow, _>(&page, &uri, rows)
}

async fn create(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(new): Body<NewToken>,
) -> Result<Response, Fault> {
    if new.scopes.len() > MOST_SCOPES {
        return Err(Fault::invalid(format!("a token has at most {MOST_SCOPES} scopes")));
    }
    let NewToken { name, scopes, selector, lifetime } = new;
    let doc = doc(&caller.name, name, scopes, lifetime.unwrap_or(LIFETIME));
    let (token, doc) = issue(TokenDoc { selector, ..doc });
    Ok(match add(&control, &caller, dry, &doc).await? {
        ControlFlow::Continue(stored) => {
            let made = CreatedToken { token, row: row(&control, stored) };
            (StatusCode::CREATED, Json(made)).into_response()
        }
        ControlFlow::Break(preview) => preview.into_response(),
    })
}

/// Describes a token that begins now.
pub(super) fn doc(by: &str, name: String, scopes: Vec<Scope>, lifetime: u64) -> TokenDoc {
    let created = now_ms();
    let millis = i64::try_from(lifetime).unwrap_or(i64::MAX).saturating_mul(1000);
    let expires = (lifetime > 0).then(|| created.saturating_add(millis));
    let (sha256, created_by) = (String::new(), by.to_owned());
    TokenDoc { name, sha256, scopes, selector: None, created, created_by, expires, user: None }
}

/// Makes the token itself.
pub(super) fn issue(doc: TokenDoc) -> (String, TokenDoc) {
    let token = format!("{PREFIX}{}", secret());
    let sha256 = sha256(&token);
    (token, TokenDoc { sha256, ..doc })
}

async fn add(control: &Control, caller: &Caller, dry: Dry, doc: &TokenDoc) -> Done<TokenDoc> {
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let stored = keep(&mut edit, doc).await?;
    if dry.dry_run {
        return Ok(ControlFlow::Break(Preview::documents(None, Some(&stored.document))));
    }
    edit.commit().await?;
    Ok(ControlFlow::Continue(stored))
}

/// Keeps a token, and forgets those that have ended.
pub(super) async fn keep(edit: &mut Edit<'_>, doc: &TokenDoc) -> Result<Stored<TokenDoc>, Fault> {
    let all = edit.all::<TokenDoc>().await?;
    let mut left = all.len();
    for old in all {
        let ended = old.document.expires.is_some_and(|expires| expires <= doc.created);
        if ended && (old.document.user.is_some() || old.document.name == doc.name) {
            edit.remove::<TokenDoc>(old.id, None).await?;
            left -= 1;
        }
    }
    if left >= MOST_TOKENS {
        let text = format!("there are {left} tokens; revoke some");
        return Err(Fault::new(StatusCode::CONFLICT, text));
    }
    Ok(edit.add(doc).await?)
}

async fn revoke(
    State(control): Shared,
    caller: Caller,
    Key(name): Key,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let found = named::<TokenDoc>(&control, "token", &name).await?;
    Ok(match change::remove(&control, &caller, dry, (found, None)).await? {
        ControlFlow::Continue(_) => StatusCode::NO_CONTENT.into_response(),
        ControlFlow::Break(preview) => preview.into_response(),
    })
}
