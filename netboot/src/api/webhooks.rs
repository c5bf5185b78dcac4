//! Webhooks: add, list, show, test, remove, and what became of their messages.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Document as _, Selector, Step, Stored};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::deliver::{self, Courier, SIGNATURE, state_of};
use super::extract::{Body, Key, Params};
use super::feed::{self, Cursor};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, post};
use super::tokens::check_name;
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::boots::secret::secret;
use crate::secrets::OwnerKind;
use crate::webhook::{Delivery, Position, WebhookDoc, place};

/// The most webhooks, each of which has a task.
const MOST: usize = 32;
/// The most kinds of events of one.
const MOST_EVENTS: usize = 32;

/// A webhook to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// What it is called.
    pub name: String,
    /// Where messages go: https://…
    pub url: String,
    /// Which events: words of nouns, as `machine`, or `NOUN:WHAT`, as `boot:failed`; without any, all of them.
    #[serde(default)]
    pub events: Vec<String>,
    /// Only of machines with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// A webhook. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookRow {
    /// Our own id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Where messages go.
    pub url: String,
    /// Which events; all where there are none.
    pub events: Vec<String>,
    /// Only of machines with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// When it was added.
    pub created: i64,
    /// Who added it.
    pub created_by: String,
    /// The id of the event up to which everything is delivered.
    pub position: String,
    /// Since when nothing arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<i64>,
    /// Why nothing is sent any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<String>,
}

/// A webhook that was added just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedWebhook {
    /// What its messages are signed with. Nobody shows it again.
    pub secret: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    pub row: WebhookRow,
}

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    const ONE: &str = "/api/v1/webhooks/{name}";
    let (read, write) = (Access::Read(Noun::Webhook), Access::Write(Noun::Webhook));
    vec![
        get("/api/v1/webhooks", read, "List webhooks", list).query::<Page>().lists::<WebhookRow>(),
        post("/api/v1/webhooks", write, "Add a webhook; its secret is shown this once", add)
            .tried()
            .takes::<NewWebhook>()
            .with(StatusCode::CREATED)
            .gives::<CreatedWebhook>()
            .secretly(),
        get(ONE, read, "Show a webhook", show).gives::<WebhookRow>(),
        delete(ONE, write, "Remove a webhook", remove).tried().with(StatusCode::NO_CONTENT),
        post(
            "/api/v1/webhooks/{name}/test",
            write,
            "Send a message now; where it arrives, one that was disabled goes on",
            test,
        )
        .gives::<Delivery>(),
        get("/api/v1/webhooks/{name}/log", read, "List the last attempts to deliver", log)
            .lists::<Delivery>(),
    ]
}

/// Returns what deliveries are made of.
pub fn courier(control: &Control) -> Courier {
    Courier {
        store: control.inventory.clone(),
        secrets: control.secrets.clone(),
        hooks: control.hooks.clone(),
    }
}

/// Delivers to all webhooks until told to stop.
pub async fn deliver_events(courier: Courier, stop: CancellationToken) {
    deliver::run(courier, stop).await;
}

async fn row(control: &Control, hook: Stored<WebhookDoc>) -> Result<WebhookRow, Fault> {
    let position = courier(control).position(hook.id).await?;
    let (_, position) = position.unwrap_or_default();
    let WebhookDoc { name, url, events, selector, created, created_by } = hook.document;
    let Position { cursor: position, failing_since, disabled, .. } = position;
    let id = hook.id;
    Ok(WebhookRow {
        id,
        name,
        url,
        events,
        selector,
        created,
        created_by,
        position,
        failing_since,
        disabled,
    })
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let mut rows = Vec::new();
    for hook in control.inventory.all::<WebhookDoc>().await? {
        rows.push((hook.id, row(&control, hook).await?));
    }
    page::answer::<WebhookRow, _>(&page, &uri, rows.into_iter())
}

async fn add(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(new): Body<NewWebhook>,
) -> Result<Response, Fault> {
    let NewWebhook { name, url, events, selector } = new;
    check_name("webhook", &name).map_err(|text| Fault::invalid(text).at("/name".to_owned()))?;
    place(&url, &control.hooks.settings().reach)
        .map_err(|error| Fault::invalid(format!("{error:#}")).at("/url".to_owned()))?;
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let mut all_words = events.len() <= MOST_EVENTS;
    for event in &events {
        let (noun, what) = event.split_once(':').unwrap_or((event, "x"));
        feed::noun(noun).map_err(|fault| fault.at("/events".to_owned()))?;
        all_words &= word(what);
    }
    if !all_words {
        let text = "events are words of nouns, as `machine`, or with what happened, as `boot:failed`; at most 32";
        return Err(Fault::invalid(text).at("/events".to_owned()));
    }
    if control.inventory.all::<WebhookDoc>().await?.len() >= MOST {
        let text = format!("there are {MOST} webhooks already; remove some");
        return Err(Fault::new(StatusCode::CONFLICT, text));
    }
    let store = control.inventory.acting(&caller.name);
    let cursor = Cursor {
        change: control.inventory.last_change().await?,
        boot: control.inventory.last_boot_event().await?,
    };
    let (created, created_by) = (now_ms(), caller.name.clone());
    let doc = WebhookDoc { name, url, events, selector, created, created_by };
    let mut edit = store.edit().await?;
    let hook = edit.add(&doc).await?;
    if dry.dry_run {
        return Ok(Preview::documents(None, Some(&hook.document)).into_response());
    }
    edit.commit().await?;
    // From here on, what fails takes the webhook with it.
    let secret = format!("whsec_{}", secret());
    let owner = (OwnerKind::Webhook, hook.id, SIGNATURE);
    let kept = control.secrets.set(&store, owner, secret.as_bytes(), &caller.name).await;
    let position = Position { cursor: cursor.to_string(), ..Position::default() };
    let text = serde_json::to_string(&position).unwrap_or_default();
    let begun = store.remember(&state_of(hook.id), None, &text).await;
    if kept.is_err() || begun.is_err() {
        store.remove::<WebhookDoc>(hook.id, None).await?;
    }
    kept?;
    begun?;
    tracing::info!(webhook = doc.name, "webhook added");
    let row = row(&control, hook).await?;
    Ok((StatusCode::CREATED, Json(CreatedWebhook { secret, row })).into_response())
}

async fn named(control: &Control, name: &str) -> Result<Stored<WebhookDoc>, Fault> {
    let hook = control.inventory.named::<WebhookDoc>(name).await?;
    hook.ok_or_else(|| Fault::not_found("webhook", name))
}

async fn show(State(control): Shared, Key(name): Key) -> Result<Json<WebhookRow>, Fault> {
    let hook = named(&control, &name).await?;
    Ok(Json(row(&control, hook).await?))
}

async fn remove(
    State(control): Shared,
    caller: Caller,
    Key(name): Key,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let hook = named(&control, &name).await?;
    if dry.dry_run {
        return Ok(Preview::documents(Some(&hook.document), None).into_response());
    }
    let store = control.inventory.acting(&caller.name);
    store.remove::<WebhookDoc>(hook.id, None).await?;
    store.forget(&state_of(hook.id)).await?;
    control.hooks.forget(hook.id);
    tracing::info!(webhook = name, "webhook removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn test(
    State(control): Shared,
    caller: Caller,
    Key(name): Key,
) -> Result<Json<Delivery>, Fault> {
    let hook = named(&control, &name).await?;
    let courier = courier(&control);
    let (before, after) = (Some(json!({})), Some(json!({"tested": true})));
    let asked = Step { noun: WebhookDoc::NOUN, subject: hook.id, name: &name, before, after };
    control.inventory.acting(&caller.name).record(asked).await?;
    let body = json!({"id": "test", "webhook": name, "event": null});
    let delivery = courier.deliver(&hook, "test", &body).await;
    if delivery.arrived()
        && let Some((revision, position)) = courier.position(hook.id).await?
        && (position.disabled.is_some() || position.failing_since.is_some())
    {
        let position = Position { disabled: None, failing_since: None, ..position };
        // Where it changed meanwhile, somebody delivers already.
        courier.keep(hook.id, revision, &position).await?;
    }
    Ok(Json(delivery))
}

async fn log(State(control): Shared, Key(name): Key) -> Result<Json<Vec<Delivery>>, Fault> {
    let hook = named(&control, &name).await?;
    Ok(Json(control.hooks.logged(hook.id)))
}
