//! Users: people who come with a password, and get a token for some hours.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Document, Edit, Selector, Stored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Access, Noun};
use super::change::{self, Dry, Preview, named};
use super::extract::{Body, Key, Params};
use super::page::{self, Page};
use super::peer::{Caller, Peer, PeerOf};
use super::route::{Route, delete, get, post, put};
use super::scope::Scope;
use super::tokens::{self, MOST_SCOPES, TokenDoc, check_name};
use super::{Control, Fault};
use crate::boots::secret::secret;

/// How long who logged in stays so, in seconds.
const SESSION: u64 = 12 * 3600;
/// Bounds of a password, in bytes.
const SHORTEST: usize = 10;
const LONGEST: usize = 1024;

/// A user as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserDoc {
    pub(super) name: String,
    /// Argon2, as the PHC format writes it.
    pub(super) password: String,
    pub(super) scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) selector: Option<Selector>,
}

impl Document for UserDoc {
    const NOUN: &'static str = "user";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        check_name("user", &self.name)?;
        if self.scopes.is_empty() {
            return Err("a user needs at least one scope, such as `read`".to_owned());
        }
        if self.scopes.len() > MOST_SCOPES {
            return Err(format!("a user has at most {MOST_SCOPES} scopes"));
        }
        Ok(())
    }

    fn hide(document: &mut Value) {
        if let Some(document) = document.as_object_mut() {
            document.remove("password");
        }
    }
}

/// A user to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The name to log in with.
    pub name: String,
    /// The password, of at least 10 bytes.
    pub password: String,
    /// What the user may do, as with tokens.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// Only for machines with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// A user, without the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UserRow {
    /// Our own id.
    pub id: i64,
    /// The name.
    pub name: String,
    /// What the user may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// Only for machines with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// Another password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The password, of at least 10 bytes.
    pub password: String,
}

/// Name and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// What who logged in sends from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Session {
    /// For the header `Authorization: Bearer …`.
    pub token: String,
    /// When it ends, in milliseconds since 1970.
    pub expires: i64,
}

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::User), Access::Write(Noun::User));
    vec![
        post("/api/v1/login", Access::Anyone, "Log in with a password", login)
            .takes::<Login>()
            .up_to(16 << 10)
            .gives::<Session>(),
        get("/api/v1/users", read, "List users", list).query::<Page>().lists::<UserRow>(),
        post("/api/v1/users", write, "Add a user", add)
            .tried()
            .takes::<NewUser>()
            .with(StatusCode::CREATED)
            .gives::<UserRow>(),
        put("/api/v1/users/{name}/password", write, "Change a password; sessions end", password)
            .tried()
            .takes::<NewPassword>()
            .with(StatusCode::NO_CONTENT),
        delete("/api/v1/users/{name}", write, "Remove a user; sessions end", remove)
            .tried()
            .with(StatusCode::NO_CONTENT),
    ]
}

fn row(Stored { id, document, .. }: Stored<UserDoc>) -> UserRow {
    let UserDoc { name, scopes, selector, .. } = document;
    UserRow { id, name, scopes, selector }
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let all = control.inventory.all::<UserDoc>().await?;
    page::answer::<UserRow, _>(&page, &uri, all.into_iter().map(|user| (user.id, row(user))))
}

async fn add(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(new): Body<NewUser>,
) -> Result<Response, Fault> {
    let password = match dry.dry_run {
        // What is kept of it is shown to nobody.
        true => check_password(&new.password).map(|()| String::new())?,
        false => hash(&control, new.password).await?,
    };
    let NewUser { name, scopes, selector, .. } = new;
    let user = UserDoc { name, password, scopes, selector };
    Ok(match change::add(&control, &caller, dry, &user).await? {
        ControlFlow::Continue(stored) => (StatusCode::CREATED, Json(row(stored))).into_response(),
        ControlFlow::Break(preview) => preview.into_response(),
    })
}

async fn find(control: &Control, name: &str) -> Result<Stored<UserDoc>, Fault> {
    named(control, "user", name).await
}

async fn password(
    State(control): Shared,
    caller: Caller,
    Key(name): Key,
    Params(dry): Params<Dry>,
    Body(new): Body<NewPassword>,
) -> Result<Response, Fault> {
    let user = find(&control, &name).await?;
    check_password(&new.password)?;
    if dry.dry_run {
        let sessions = control.inventory.all::<TokenDoc>().await?;
        let mut after = shown(&user.document, &[]);
        // Neither of the two is told, only that it is another one.
        after["password"] = json!("(the new one)");
        let mut before = shown(&user.document, &sessions);
        before["password"] = json!("(the one until now)");
        return Ok(Preview::of(Some(&before), Some(&after)).into_response());
    }
    let password = hash(&control, new.password).await?;
    let changed = UserDoc { password, ..user.document };
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    edit.change(user.id, &changed, None).await?;
    end_sessions(&mut edit, &name).await?;
    edit.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove(
    State(control): Shared,
    caller: Caller,
    Key(name): Key,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let user = find(&control, &name).await?;
    if dry.dry_run {
        let sessions = control.inventory.all::<TokenDoc>().await?;
        let before = shown(&user.document, &sessions);
        return Ok(Preview::of(Some(&before), None::<&Value>).into_response());
    }
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    edit.remove::<UserDoc>(user.id, None).await?;
    end_sessions(&mut edit, &name).await?;
    edit.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Shows a user in a preview, with how many sessions there are.
fn shown(user: &UserDoc, sessions: &[Stored<TokenDoc>]) -> Value {
    let mut value = serde_json::to_value(user).unwrap_or_default();
    UserDoc::hide(&mut value);
    value["sessions"] = json!(sessions_of(sessions, &user.name).count());
    value
}

fn sessions_of<'t>(
    tokens: &'t [Stored<TokenDoc>],
    user: &str,
) -> impl Iterator<Item = &'t Stored<TokenDoc>> {
    tokens.iter().filter(move |token| token.document.user.as_deref() == Some(user))
}

/// Ends every session of a user that there is by now: one may have begun a moment ago with the old password.
async fn end_sessions(edit: &mut Edit<'_>, user: &str) -> Result<(), Fault> {
    let sessions = edit.all::<TokenDoc>().await?;
    for session in sessions_of(&sessions, user) {
        edit.remove::<TokenDoc>(session.id, None).await?;
    }
    Ok(())
}

async fn login(
    State(control): Shared,
    PeerOf(peer): PeerOf,
    Body(login): Body<Login>,
) -> Result<Json<Session>, Fault> {
    let source = match peer {
        Peer::Remote(address) => Some(address),
        Peer::Local(_) => None,
    };
    // Before it is known whether it is one: of many that come at once, no more than of those one after the other.
    source.map_or(Ok(()), |source| control.gate.let_try_once(source))?;
    let unsure = |error: kiln_inventory::StoreError| {
        source.inspect(|source| control.gate.forgive(*source));
        tracing::error!(error = &error as &dyn std::error::Error, "passwords cannot be checked");
        let text = "passwords cannot be checked now";
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, text).again_after(5)
    };
    let found = control.inventory.named::<UserDoc>(&login.user).await.map_err(unsure)?;
    // A name that nobody has takes as long as a wrong password.
    let kept = found.as_ref().map_or_else(|| NOBODY.clone(), |user| user.document.password.clone());
    let right = verify(&control, login.password, kept).await?;
    let wrong = || {
        let text = "no user has this name and this password";
        Fault::new(StatusCode::UNAUTHORIZED, text)
    };
    let user = found.filter(|_| right).ok_or_else(wrong)?;
    source.inspect(|source| control.gate.forgive(*source));
    let caller = Caller { name: format!("user {}", user.document.name), ..Caller::nobody() };
    let session: String = secret().chars().take(16).collect();
    let doc = tokens::doc(&caller.name, format!("session-{session}"), Vec::new(), SESSION);
    let (token, doc) = tokens::issue(TokenDoc { user: Some(user.document.name.clone()), ..doc });
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    // A password that was changed meanwhile is wrong by now.
    edit.all::<UserDoc>().await?.into_iter().find(|now| *now == user).ok_or_else(wrong)?;
    let kept = tokens::keep(&mut edit, &doc).await?;
    edit.commit().await?;
    Ok(Json(Session { token, expires: kept.document.expires.unwrap_or(doc.created) }))
}

/// The password of nobody.
static NOBODY: LazyLock<String> = LazyLock::new(|| derive(&secret()).unwrap_or_default());

/// Makes of a password what is kept of it.
fn derive(password: &str) -> Option<String> {
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).ok()?;
    Some(hash.to_string())
}

fn check_password(password: &str) -> Result<(), Fault> {
    if (SHORTEST..=LONGEST).contains(&password.len()) {
        return Ok(());
    }
    let text = format!("a password has {SHORTEST} to {LONGEST} bytes");
    Err(Fault::invalid(text).at("/password".to_owned()))
}

async fn hash(control: &Control, password: String) -> Result<String, Fault> {
    check_password(&password)?;
    let _turn = control.gate.turn().await;
    let made = tokio::task::spawn_blocking(move || derive(&password)).await;
    let text = "the password cannot be kept";
    made.ok().flatten().ok_or_else(|| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, text))
}

/// Checks a password. What cannot be checked is wrong.
async fn verify(control: &Control, password: String, kept: String) -> Result<bool, Fault> {
    if password.len() > LONGEST {
        return Ok(false);
    }
    let _turn = control.gate.turn().await;
    let checked = tokio::task::spawn_blocking(move || {
        let Ok(kept) = PasswordHash::new(&kept) else { return false };
        Argon2::default().verify_password(password.as_bytes(), &kept).is_ok()
    });
    Ok(checked.await.unwrap_or(false))
}
