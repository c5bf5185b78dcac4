//! Webhooks: others are told over HTTP what happens. What is sent where is here; the queue is the numbered events
//! themselves, of which each webhook remembers how far it has come.

mod guard;
mod post;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use kiln_inventory::{Document, Selector};
use serde::{Deserialize, Serialize};

pub use self::guard::{Network, ParseNetworkError};
pub use self::post::Reach;
#[cfg(test)]
pub(crate) use self::post::signature;
#[cfg(feature = "otel")]
pub(crate) use self::post::trusting;
pub(crate) use self::post::{Message, place, post};

/// Deliveries that are remembered of each webhook.
const MOST_LOGGED: usize = 50;
/// The first and the longest time between two attempts.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Settings of webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where messages may go.
    pub reach: Reach,
    /// After failing for so long, a webhook is let alone.
    pub disable_after: Duration,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        let disable_after = Duration::from_secs(3 * 24 * 3600);
        Self { reach: Reach::default(), disable_after }
    }
}

/// A webhook as it is kept. What its messages are signed with is a secret of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebhookDoc {
    pub(crate) name: String,
    pub(crate) url: String,
    /// Words of nouns, or `NOUN:WHAT`; everything when there are none.
    pub(crate) events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) selector: Option<Selector>,
    pub(crate) created: i64,
    pub(crate) created_by: String,
}

impl Document for WebhookDoc {
    const NOUN: &'static str = "webhook";

    fn name(&self) -> &str {
        &self.name
    }
}

impl WebhookDoc {
    /// Returns whether an event is wanted.
    pub(crate) fn wants(&self, noun: &str, what: &str) -> bool {
        self.events.is_empty()
            || self.events.iter().any(|wanted| match wanted.split_once(':') {
                Some(both) => both == (noun, what),
                None => wanted == noun,
            })
    }
}

/// How far a webhook has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The last event that was delivered, or that was not for it.
    pub(crate) cursor: String,
    /// Which server delivers, and until when it says so.
    #[serde(default)]
    pub(crate) holder: String,
    #[serde(default)]
    pub(crate) until: i64,
    /// Since when nothing arrives.
    #[serde(default)]
    pub(crate) failing_since: Option<i64>,
    /// Why nothing is sent any more.
    #[serde(default)]
    pub(crate) disabled: Option<String>,
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Delivery {
    /// The event, or `test`.
    pub event: String,
    /// When it was sent, in milliseconds since 1970.
    pub at: i64,
    /// How long it took.
    pub millis: u64,
    /// What the other end answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Delivery {
    /// Returns whether it arrived.
    pub const fn arrived(&self) -> bool {
        self.error.is_none()
    }
}

/// What this server knows of webhooks beside the inventory.
#[derive(Clone, Debug)]
pub struct Hooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: WebhookSettings,
    me: OnceLock<String>,
    logs: Mutex<HashMap<i64, VecDeque<Delivery>>>,
}

impl Hooks {
    /// Begins without any deliveries.
    pub fn new(settings: WebhookSettings) -> Self {
        Self(Arc::new(Inner { settings, me: OnceLock::new(), logs: Mutex::default() }))
    }

    pub(crate) fn settings(&self) -> &WebhookSettings {
        &self.0.settings
    }

    /// Returns by what this server is told from others.
    pub(crate) fn me(&self) -> &str {
        self.0.me.get_or_init(crate::boots::secret::secret)
    }

    pub(crate) fn log(&self, webhook: i64, delivery: Delivery) {
        let mut logs = self.0.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(webhook).or_default();
        if log.len() >= MOST_LOGGED {
            log.pop_front();
        }
        log.push_back(delivery);
    }

    /// Returns the last attempts since this server started, the newest first.
    pub(crate) fn logged(&self, webhook: i64) -> Vec<Delivery> {
        let logs = self.0.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(&webhook).map_or_else(Vec::new, |log| log.iter().rev().cloned().collect())
    }

    pub(crate) fn forget(&self, webhook: i64) {
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&webhook);
    }
}

/// Returns how long to wait before an attempt after so many in vain: twice as long each time within bounds, and up to a
/// half more or less by a random byte, so that not all come back at one time.
pub(crate) fn pause(attempts: u32, random: u8) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX));
    pause.min(LONGEST_PAUSE).mul_f64(0.5 + f64::from(random) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_ever_later_within_a_bound() {
        assert_eq!(pause(0, 0), Duration::from_millis(500));
        assert_eq!(pause(0, 255), Duration::from_millis(1500));
        assert!(pause(3, 128) > Duration::from_secs(7) && pause(3, 128) < Duration::from_secs(9));
        for attempts in [10, 31, 32, 64, u32::MAX] {
            assert_eq!(pause(attempts, 255), Duration::from_secs(450), "{attempts}");
        }
    }

    #[test]
    fn events_are_wanted_by_noun_or_by_what_happened() {
        let hook = |events: &[&str]| WebhookDoc {
            name: "x".to_owned(),
            url: String::new(),
            events: events.iter().map(|it| (*it).to_owned()).collect(),
            selector: None,
            created: 0,
            created_by: String::new(),
        };
        assert!(hook(&[]).wants("boot", "failed"));
        assert!(hook(&["machine", "boot:failed"]).wants("boot", "failed"));
        assert!(!hook(&["machine", "boot:failed"]).wants("boot", "healthy"));
        assert!(
            hook(&["machine"]).wants("machine", "add") && !hook(&["machine"]).wants("group", "add")
        );
    }

    #[test]
    fn of_each_webhook_only_the_last_attempts_are_remembered() {
        let hooks = Hooks::new(WebhookSettings::default());
        for at in 0..200 {
            let event = at.to_string();
            hooks.log(1, Delivery { event, at, millis: 0, status: Some(200), error: None });
        }
        let logged = hooks.logged(1);
        assert_eq!((logged.len(), logged[0].at), (MOST_LOGGED, 199));
        hooks.forget(1);
        assert!(hooks.logged(1).is_empty());
    }
}
