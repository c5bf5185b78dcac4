//! What happens, in order: changes of nouns, events of boots, and builds. Both tables number their rows; the pair of
//! numbers up to which somebody knows everything is his cursor.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use kiln_inventory::{Change, FeedEvent, MachineId, Store, StoreError};
use kiln_types::Arch;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Fault;
use super::access::{Access, Noun};
use super::scope::Rights;
use crate::bake::{ImageState, Status};

/// Rows that are read of each table at a time.
const CHUNK: u32 = 200;

/// Up to where everything is known: the number of a change, and that of an event of a boot. Neither goes back, unless an
/// older backup is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Cursor {
    pub(super) change: i64,
    pub(super) boot: i64,
}

impl Cursor {
    /// Returns where the events end, where that is before this: an older backup was restored, and what happens now has
    /// numbers that were given before.
    pub(super) async fn end_before(self, store: &Store) -> Result<Option<Self>, StoreError> {
        let (change, mut boot) = (store.last_change().await?, store.last_boot_event().await?);
        if self.boot > boot {
            // What came last may be too old to be kept.
            boot = store.highest_boot_event().await?;
        }
        Ok((self.change > change || self.boot > boot).then_some(Self { change, boot }))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.change, self.boot)
    }
}

impl FromStr for Cursor {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        let (change, boot) = text.split_once('.').unwrap_or((text, "0"));
        match (number(change), number(boot)) {
            (Some(change), Some(boot)) => Ok(Self { change, boot }),
            _ => Err(Fault::invalid("`since` is 0, or the id of an event, as 120.4533")),
        }
    }
}

impl TryFrom<String> for Cursor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|fault: Fault| fault.detail().to_owned())
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

/// What something can be said of: what the log of changes has rows of, boots, and how far builds are, which is in no
/// table.
pub(crate) const NOUNS: [&str; 16] = [
    "machine",
    "group",
    "discovery",
    "discovery-rule",
    "expected",
    "boot",
    "order",
    "lease",
    "build",
    "image",
    "token",
    "user",
    "webhook",
    "secret",
    "source",
    "access",
];

/// Reads words of nouns, with commas between them. None are all.
pub(super) fn nouns(text: &str) -> Result<Vec<String>, Fault> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(noun).collect()
}

/// Reads the word of a noun.
pub(super) fn noun(word: &str) -> Result<String, Fault> {
    if NOUNS.contains(&word) {
        return Ok(word.to_owned());
    }
    let word: String = word.escape_debug().take(60).collect();
    let known = NOUNS.join(", ");
    Err(Fault::invalid(format!("there is no noun `{word}` here; there are: {known}")))
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Up to where everything is known to who has seen this: for `since`.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What kind of noun: `machine`, `boot`, `build` …
    pub noun: String,
    /// Its name; of a boot, that of its machine.
    pub name: String,
    /// `add`, `change`, `remove`, `deny`; of a boot its phase, of a build its state.
    pub what: String,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// More about it.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// What somebody wants to know, and may.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) rights: Rights,
    /// Words of nouns; all when there are none.
    pub(super) nouns: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) selector: Option<kiln_inventory::Selector>,
}

/// Labels of the machines that there are.
type Labels = HashMap<MachineId, kiln_inventory::Labels>;

impl Filter {
    fn wants(&self, noun: &str, name: &str) -> bool {
        let is = match noun {
            "discovery-rule" | "expected" => Noun::Discovery,
            // Who was refused what, and which files describe machines, has no scope but that of the log of changes.
            other => other.parse().unwrap_or(Noun::Audit),
        };
        let scoped = match &self.rights {
            Rights::All => true,
            // Which machines is for `sees`.
            Rights::Some { scopes, .. } => {
                let all = Rights::Some { scopes: scopes.clone(), machines: None };
                all.check(Access::Read(is)).is_ok()
            }
        };
        scoped
            && (self.nouns.is_empty() || self.nouns.iter().any(|wanted| wanted == noun))
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }

    /// Returns whether what is of a machine with these labels, or of none, is for him.
    fn sees(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        match labels {
            Some(labels) => {
                self.rights.sees(labels)
                    && self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
            }
            None => self.rights.sees_all() && self.selector.is_none(),
        }
    }

    fn by_machine(&self) -> bool {
        !self.rights.sees_all() || self.selector.is_some()
    }
}

/// Reads what happened after a cursor, as far as it is for somebody, and moves the cursor. Whether there may be more at
/// once is the second answer.
pub(super) async fn read(
    store: &Store,
    filter: &Filter,
    cursor: &mut Cursor,
) -> Result<(Vec<Event>, bool), Fault> {
    let changes = store.changes_since(cursor.change, CHUNK).await?;
    let boots = store.boot_events_since(cursor.boot, CHUNK).await?;
    let full = |rows: usize| u32::try_from(rows).is_ok_and(|rows| rows == CHUNK);
    let more = full(changes.len()) || full(boots.len());
    let mut labels = Labels::new();
    let of_machines = !boots.is_empty() || changes.iter().any(is_of_a_machine);
    if filter.by_machine() && of_machines {
        let machines = store.machines().await?.into_iter();
        labels = machines.map(|machine| (machine.id, machine.spec.labels)).collect();
    }
    let mut events = Vec::new();
    let (mut changes, mut boots) = (changes.into_iter().peekable(), boots.into_iter().peekable());
    loop {
        let change_first = match (changes.peek(), boots.peek()) {
            (None, None) => break,
            (Some(change), Some(boot)) => change.at <= boot.at,
            (change, _) => change.is_some(),
        };
        let event = if change_first {
            changes.next().and_then(|change| of_change(filter, cursor, change, &labels))
        } else {
            boots.next().and_then(|boot| of_boot(filter, cursor, boot, &labels))
        };
        events.extend(event);
    }
    Ok((events, more))
}

/// Returns whether it was done to a machine, which its subject names.
fn is_of_a_machine(change: &Change) -> bool {
    matches!(change.noun.as_str(), "order" | "lease")
}

fn of_change(
    filter: &Filter,
    cursor: &mut Cursor,
    change: Change,
    machines: &Labels,
) -> Option<Event> {
    cursor.change = change.id;
    if !filter.wants(&change.noun, &change.name) {
        return None;
    }
    let document = |text: Option<&str>| Change::document(text).ok().flatten().unwrap_or_default();
    let before = document(change.before.as_deref());
    let after = document(change.after.as_deref());
    let labels = |of: &Value| serde_json::from_value(of.get("labels")?.clone()).ok();
    let is_machine = change.noun == "machine";
    let seen =
        |of: &Value| filter.sees(labels(of).or_else(|| is_machine.then(BTreeMap::new)).as_ref());
    let is_seen = if is_machine {
        // Of one that comes into his reach or leaves it, he learns what he could see.
        (!after.is_null() && seen(&after)) || (after.is_null() && seen(&before))
    } else if is_of_a_machine(&change) && filter.by_machine() {
        let labels = machines.get(&MachineId(change.subject));
        labels.is_some_and(|labels| filter.sees(Some(labels)))
    } else {
        filter.sees(None)
    };
    let was_seen = !before.is_null() && (!is_machine || seen(&before));
    let word = serde_json::to_value(change.verb).unwrap_or_default();
    is_seen.then(|| Event {
        id: cursor.to_string(),
        at: change.at,
        noun: change.noun,
        name: change.name,
        what: word.as_str().unwrap_or_default().to_owned(),
        actor: Some(change.actor),
        data: json!({"before": if was_seen { before } else { Value::Null }, "after": after}),
    })
}

fn of_boot(
    filter: &Filter,
    cursor: &mut Cursor,
    event: FeedEvent,
    labels: &Labels,
) -> Option<Event> {
    cursor.boot = event.id;
    let wanted = filter.wants("boot", &event.machine_name);
    let seen = !filter.by_machine() || filter.sees(Some(&**labels.get(&event.machine)?));
    (wanted && seen).then(|| Event {
        id: cursor.to_string(),
        at: event.at,
        noun: "boot".to_owned(),
        name: event.machine_name,
        what: event.phase.to_string(),
        actor: None,
        data: json!({"boot": event.boot, "machine": event.machine, "detail": event.detail}),
    })
}

/// How far each build was when it was looked at last.
#[derive(Clone, Debug, Default)]
pub(super) struct Builds(BTreeMap<(String, Arch), Status>);

impl Builds {
    /// Returns the builds that are further than they were, and remembers how far.
    pub(super) fn news(
        &mut self,
        filter: &Filter,
        cursor: Cursor,
        at: i64,
        states: &[ImageState],
    ) -> Vec<Event> {
        let first = self.0.is_empty();
        let mut events = Vec::new();
        for state in states {
            for (arch, build) in &state.arches {
                let before = self.0.insert((state.image.clone(), *arch), build.status);
                let wanted = filter.wants("build", &state.image) && filter.sees(None);
                if first || before == Some(build.status) || !wanted {
                    continue;
                }
                let word = serde_json::to_value(build.status).unwrap_or_default();
                events.push(Event {
                    id: cursor.to_string(),
                    at,
                    noun: "build".to_owned(),
                    name: state.image.clone(),
                    what: word.as_str().unwrap_or_default().to_owned(),
                    actor: None,
                    data: json!({"arch": arch, "version": build.version, "error": build.error}),
                });
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_two_numbers_or_one() {
        let read = |text: &str| text.parse::<Cursor>().ok();
        assert_eq!(read("120.4533"), Some(Cursor { change: 120, boot: 4533 }));
        assert_eq!(read("7"), Some(Cursor { change: 7, boot: 0 }));
        assert_eq!(Cursor { change: 1, boot: 2 }.to_string(), "1.2");
        for wrong in ["", "x", "-1", "1.-1", "1.2.3", "1.", "99999999999999999999"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_noun_that_something_is_said_of_is_known_and_no_other() {
        use kiln_inventory::{DiscoveryRule, Document as _, Expected, Group, Source};

        let documents = [Group::NOUN, DiscoveryRule::NOUN, Expected::NOUN, Source::NOUN];
        let others = ["machine", "boot", "access", "discovery", "order", "lease", "build", "image"];
        for known in documents.into_iter().chain(others) {
            assert_eq!(noun(known).unwrap(), known);
        }
        for known in [
            crate::api::tokens::TokenDoc::NOUN,
            crate::api::users::UserDoc::NOUN,
            crate::secrets::SecretDoc::NOUN,
            crate::webhook::WebhookDoc::NOUN,
        ] {
            assert_eq!(noun(known).unwrap(), known);
        }
        assert_eq!(nouns("machine, build,").unwrap(), ["machine", "build"]);
        assert!(nouns("").unwrap().is_empty());
        let wrong = nouns("machine,events").unwrap_err();
        assert_eq!(wrong.status(), axum::http::StatusCode::BAD_REQUEST);
        let text = wrong.detail();
        assert!(text.starts_with("there is no noun `events` here; there are: machine,"), "{text}");
        assert!(noun("event").is_err(), "nothing is said of events");
    }

    #[test]
    fn who_may_not_read_a_noun_hears_nothing_of_it() {
        let scopes = ["machine:read".parse().unwrap()].as_slice().into();
        let filter = Filter {
            rights: Rights::Some { scopes, machines: None },
            nouns: Vec::new(),
            name: None,
            selector: None,
        };
        assert!(filter.wants("machine", "n1"));
        for noun in ["boot", "token", "user", "access", "unheard-of", "build", "order", "lease"] {
            assert!(!filter.wants(noun, "n1"), "{noun}");
        }
        let of_scope = |scope: &str| Filter {
            rights: Rights::Some {
                scopes: [scope.parse().unwrap()].as_slice().into(),
                machines: None,
            },
            ..filter.clone()
        };
        for (scope, own) in [
            ("discovery:read", &["discovery", "discovery-rule", "expected"][..]),
            ("audit:read", &["access", "source"]),
            ("order:read", &["order"]),
            ("lease:read", &["lease"]),
            ("build:read", &["build"]),
        ] {
            for noun in NOUNS {
                assert_eq!(
                    of_scope(scope).wants(noun, "n1"),
                    own.contains(&noun),
                    "{scope} {noun}"
                );
            }
        }
    }
}
