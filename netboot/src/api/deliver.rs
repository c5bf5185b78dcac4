//! Tells webhooks what happens: each has a task of its own, which goes through the events in order and remembers in the
//! inventory how far it has come, so that nothing is left out when the server starts anew. An event may come twice.

use std::collections::HashMap;
use std::time::Duration;

use kiln_inventory::{Store, StoreError, Stored};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::{self, Cursor, Event, Filter};
use super::scope::Rights;
use crate::boots::now_ms;
use crate::secrets::{OwnerKind, SecretDoc, Secrets, place_of};
use crate::trouble::Trouble;
use crate::webhook::{Delivery, Hooks, Message, Position, WebhookDoc, pause, post};

/// How often events are looked for, and the webhooks themselves.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// For how long a server says that it delivers: longer than one message may take.
const HELD_MS: i64 = 60_000;
/// After so many events that are not for it, a webhook remembers where it is.
const MOST_BEHIND: i64 = 500;
/// What the secret of a webhook is called.
pub(super) const SIGNATURE: &str = "signature";

/// What deliveries are made of.
#[derive(Clone, Debug)]
pub struct Courier {
    pub(super) store: Store,
    pub(super) secrets: std::sync::Arc<Secrets>,
    pub(super) hooks: Hooks,
}

/// Returns under which name it is kept how far a webhook has come.
pub(super) fn state_of(webhook: i64) -> String {
    format!("webhook/{webhook}")
}

/// Returns how many webhooks get their messages, do not at this time, and are not tried any more.
pub(crate) async fn webhook_states(store: &Store) -> Result<[(&'static str, u64); 3], StoreError> {
    let (mut delivering, mut failing, mut disabled) = (0, 0, 0);
    for hook in store.all::<WebhookDoc>().await? {
        let kept = store.recall(&state_of(hook.id)).await?;
        let position: Position =
            kept.and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default();
        match (position.disabled, position.failing_since) {
            (Some(_), _) => disabled += 1,
            (None, Some(_)) => failing += 1,
            (None, None) => delivering += 1,
        }
    }
    Ok([("delivering", delivering), ("failing", failing), ("disabled", disabled)])
}

/// Delivers to all webhooks until told to stop.
pub(super) async fn run(courier: Courier, stop: CancellationToken) {
    let mut tasks: HashMap<i64, (i64, JoinHandle<()>)> = HashMap::new();
    let mut news = courier.store.watch_changes();
    let mut trouble = Trouble::new("webhooks cannot be read", "webhooks are read again");
    loop {
        news.mark_unchanged();
        if let Some(all) = trouble.note(courier.store.all::<WebhookDoc>().await) {
            tasks.retain(|id, (revision, task)| {
                let same = |hook: &Stored<WebhookDoc>| (hook.id, hook.revision) == (*id, *revision);
                let stays = all.iter().any(same);
                if !stays {
                    task.abort();
                }
                stays
            });
            for hook in all {
                let courier = courier.clone();
                let (id, revision) = (hook.id, hook.revision);
                tasks.entry(id).or_insert_with(|| {
                    (revision, tokio::spawn(async move { courier.follow(hook).await }))
                });
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = news.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    for (_, task) in tasks.into_values() {
        task.abort();
        // It has nothing to say at its end.
        let _ = task.await;
    }
}

impl Courier {
    async fn follow(self, hook: Stored<WebhookDoc>) {
        let mut failures = 0_u32;
        let mut told = Told::new();
        loop {
            let pause = match self.turn(&hook, &mut told).await {
                Ok(Turn::Again) => {
                    failures = 0;
                    continue;
                }
                Ok(Turn::Nothing) => LOOK,
                Ok(Turn::Failed) => {
                    let random = random();
                    failures = failures.saturating_add(1);
                    pause(failures - 1, random)
                }
                Err(error) => {
                    let of = Some(hook.document.name.as_str());
                    told.unread.failed(of, &crate::cli::chain(&error));
                    LOOK_AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Delivers what there is for a webhook, up to the first that does not arrive.
    async fn turn(&self, hook: &Stored<WebhookDoc>, told: &mut Told) -> Result<Turn, StoreError> {
        let of = Some(hook.document.name.as_str());
        let Some((mut revision, mut position)) = self.position(hook.id).await? else {
            return Ok(Turn::Nothing);
        };
        let other = position.holder != self.hooks.me() && position.until > now_ms();
        if other || position.disabled.is_some() {
            return Ok(Turn::Nothing);
        }
        let filter = Filter {
            rights: Rights::All,
            nouns: Vec::new(),
            name: None,
            selector: hook.document.selector.clone(),
        };
        let mut cursor: Cursor = position.cursor.parse().unwrap_or_default();
        let (events, more) = match feed::read(&self.store, &filter, &mut cursor).await {
            Ok(read) => read,
            Err(fault) => {
                told.unread.failed(of, fault.detail());
                return Ok(Turn::Failed);
            }
        };
        told.unread.over(of);
        if events.is_empty()
            && let Some(end) = cursor.end_before(&self.store).await?
        {
            let webhook = hook.document.name.as_str();
            tracing::warn!(webhook, event = %end, "a webhook goes back to where the events end now");
            position.cursor = end.to_string();
            self.keep(hook.id, revision, &position).await?;
            return Ok(Turn::Nothing);
        }
        let wanted = events.into_iter().filter(|it| hook.document.wants(&it.noun, &it.what));
        for event in wanted {
            // Who sends says so first; where another server was faster, it is that one's turn.
            (position.holder, position.until) = (self.hooks.me().to_owned(), now_ms() + HELD_MS);
            match self.keep(hook.id, revision, &position).await? {
                Some(new) => revision = new,
                None => return Ok(Turn::Nothing),
            }
            let delivery = self.deliver(hook, &event.id, &body(hook, &event)).await;
            let gone = delivery.status == Some(410);
            let failed = delivery.error.clone();
            if failed.is_none() {
                position.cursor.clone_from(&event.id);
                position.failing_since = None;
                told.undelivered.over(of);
            } else {
                told.undelivered.failed(of, failed.as_deref().unwrap_or_default());
                let since = *position.failing_since.get_or_insert_with(now_ms);
                let most = self.hooks.settings().disable_after.as_millis();
                let long = u128::try_from(now_ms() - since).is_ok_and(|time| time >= most);
                if gone || long {
                    let why = failed.clone().unwrap_or_default();
                    let days = most / (24 * 3600 * 1000);
                    let why = match gone {
                        true => "the other end says that it is gone for good (410)".to_owned(),
                        false => format!("nothing has arrived for {days} days: {why}"),
                    };
                    tracing::error!(webhook = hook.document.name, reason = why, "webhook disabled");
                    position.disabled = Some(why);
                }
            }
            match self.keep(hook.id, revision, &position).await? {
                Some(new) => revision = new,
                None => return Ok(Turn::Nothing),
            }
            if failed.is_some() {
                return Ok(Turn::Failed);
            }
        }
        let known: Cursor = position.cursor.parse().unwrap_or_default();
        let behind = (cursor.change - known.change).max(cursor.boot - known.boot);
        if behind > 0 && (more || behind >= MOST_BEHIND) {
            position.cursor = cursor.to_string();
            self.keep(hook.id, revision, &position).await?;
        }
        Ok(if more { Turn::Again } else { Turn::Nothing })
    }

    pub(super) async fn position(&self, id: i64) -> Result<Option<(i64, Position)>, StoreError> {
        let kept = self.store.recall(&state_of(id)).await?;
        Ok(kept.and_then(|(revision, text)| Some((revision, serde_json::from_str(&text).ok()?))))
    }

    pub(super) async fn keep(
        &self,
        id: i64,
        revision: i64,
        position: &Position,
    ) -> Result<Option<i64>, StoreError> {
        let text = serde_json::to_string(position).unwrap_or_default();
        self.store.remember(&state_of(id), Some(revision), &text).await
    }

    /// Sends one message, once.
    pub(super) async fn deliver(
        &self,
        hook: &Stored<WebhookDoc>,
        id: &str,
        body: &serde_json::Value,
    ) -> Delivery {
        let (at, started) = (now_ms(), Instant::now());
        let sent = async {
            let place = place_of(OwnerKind::Webhook, hook.id, SIGNATURE);
            let secret = self.store.named::<SecretDoc>(&place).await?;
            let secret =
                secret.ok_or_else(|| anyhow::anyhow!("its secret is gone; add it anew"))?;
            let secret = self.secrets.opened(&secret.document)?;
            let body = serde_json::to_vec(body)?.into();
            let url = &hook.document.url;
            let message = Message { url, id, secret: &secret, body, now: at / 1000 };
            post(message, &self.hooks.settings().reach).await
        };
        let (status, error) = match sent.await {
            Ok(status @ 200..=299) => (Some(status), None),
            Ok(status @ 300..=399) => {
                let why = format!("the answer is {status}; nobody goes where it leads");
                (Some(status), Some(why))
            }
            Ok(status) => (Some(status), Some(format!("the answer is {status}"))),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let delivery = Delivery { event: id.to_owned(), at, millis, status, error };
        let webhook = hook.document.name.as_str();
        match &delivery.error {
            None => tracing::debug!(webhook, event = id, took_ms = millis, "delivered"),
            Some(error) => tracing::debug!(webhook, event = id, error, "not delivered"),
        }
        self.hooks.log(hook.id, delivery.clone());
        delivery
    }
}

/// What goes wrong with a webhook for a while.
struct Told {
    unread: Trouble,
    undelivered: Trouble,
}

impl Told {
    const fn new() -> Self {
        Self {
            unread: Trouble::new(
                "the events for a webhook cannot be read",
                "the events for a webhook are read again",
            ),
            undelivered: Trouble::new(
                "a webhook does not take its events; they are sent again later",
                "a webhook takes its events again",
            ),
        }
    }
}

/// What came of a look at the events.
enum Turn {
    /// There may be more.
    Again,
    /// There is nothing to do.
    Nothing,
    /// Something did not arrive.
    Failed,
}

fn body(hook: &Stored<WebhookDoc>, event: &Event) -> serde_json::Value {
    json!({"id": event.id, "webhook": hook.document.name, "event": event})
}

fn random() -> u8 {
    let mut byte = [128];
    // Without randomness all wait the same time.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}
