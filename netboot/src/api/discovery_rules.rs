//! What becomes of machines that nobody has added: rules, and machines that are expected.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{DiscoveryRule, Expected, Stored};
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::change::{self, Dry, IfMatch, Preview, Tagged, named};
use super::discovery::vendor;
use super::extract::{Body, Key, Params};
use super::page::{self, Page};
use super::peer::Caller;
use super::route::{Route, delete, get, post, put};
use super::{Control, Fault};

type Shared = State<Arc<Control>>;

/// The most expected machines in one request.
const MOST: usize = 10_000;
/// The longest list of them.
const MOST_BYTES: usize = 8 << 20;

/// A rule for machines that nobody has added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleRow {
    /// Our own id.
    pub id: i64,
    /// 1 at first, and one more with every change.
    pub revision: i64,
    /// What an operator says.
    pub rule: DiscoveryRule,
}

/// An entry that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tried {
    /// Its number.
    pub id: i64,
    /// Its interfaces.
    pub macs: Vec<String>,
    /// What it would be called, where the rule approves by a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why it would not be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a rule would do with what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleTest {
    /// The rule.
    pub rule: DiscoveryRule,
    /// The entries that it is about.
    pub entries: Vec<Tried>,
}

/// Machines that are to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// All of them, in their order.
    pub machines: Vec<Expected>,
}

pub(super) fn routes() -> Vec<Route> {
    const RULES: &str = "/api/v1/discovery/rules";
    const RULE: &str = "/api/v1/discovery/rules/{key}";
    const EXPECTED: &str = "/api/v1/discovery/expected";
    let (read, write) = (Access::Read(Noun::Discovery), Access::Write(Noun::Discovery));
    vec![
        get(RULES, read, "List rules, the strongest first; parts go by id", list)
            .query::<Page>()
            .lists::<RuleRow>(),
        post(RULES, write, "Add a rule", add)
            .tried()
            .takes::<DiscoveryRule>()
            .with(StatusCode::CREATED)
            .gives::<RuleRow>()
            .tagged(),
        get(RULE, read, "Show a rule", show).gives::<RuleRow>().tagged(),
        put(RULE, write, "Change a rule", change)
            .tried()
            .conditional()
            .takes::<DiscoveryRule>()
            .gives::<RuleRow>()
            .tagged(),
        delete(RULE, write, "Remove a rule", remove)
            .tried()
            .conditional()
            .with(StatusCode::NO_CONTENT),
        post("/api/v1/discovery/rules/{key}/test", read, "Say what a rule is about", test)
            .gives::<RuleTest>(),
        get(EXPECTED, read, "List machines that are to come", expected)
            .query::<Page>()
            .lists::<Expected>(),
        post(EXPECTED, write, "Expect machines, all of them or none", expect)
            .tried()
            .takes::<Expect>()
            .up_to(MOST_BYTES)
            .with(StatusCode::CREATED)
            .lists::<Expected>(),
        delete("/api/v1/discovery/expected/{key}", write, "Expect a machine no longer", unexpect)
            .tried()
            .or(StatusCode::PRECONDITION_FAILED)
            .with(StatusCode::NO_CONTENT),
    ]
}

async fn list(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let mut rules = control.inventory.all::<DiscoveryRule>().await?;
    page.sort(&mut rules, DiscoveryRule::by_strength);
    page::answer::<RuleRow, _>(&page, &uri, rules.into_iter().map(|rule| (rule.id, row(rule))))
}

fn row(rule: Stored<DiscoveryRule>) -> RuleRow {
    RuleRow { id: rule.id, revision: rule.revision, rule: rule.document }
}

fn tagged(rule: Stored<DiscoveryRule>) -> Tagged<Json<RuleRow>> {
    Tagged(rule.revision, Json(row(rule)))
}

async fn rule(control: &Control, name: &str) -> Result<Stored<DiscoveryRule>, Fault> {
    named(control, "discovery rule", name).await
}

async fn add(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(rule): Body<DiscoveryRule>,
) -> Result<Response, Fault> {
    Ok(match change::add(&control, &caller, dry, &rule).await? {
        ControlFlow::Continue(added) => (StatusCode::CREATED, tagged(added)).into_response(),
        ControlFlow::Break(preview) => preview.into_response(),
    })
}

async fn show(State(control): Shared, Key(key): Key) -> Result<Response, Fault> {
    Ok(tagged(rule(&control, &key).await?).into_response())
}

async fn change(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    condition: IfMatch,
    Body(other): Body<DiscoveryRule>,
) -> Result<Response, Fault> {
    let now = rule(&control, &key).await?;
    let expected = condition.expected("the rule", now.revision)?;
    Ok(match change::put(&control, &caller, dry, (&now, expected), &other).await? {
        ControlFlow::Continue(changed) => tagged(changed).into_response(),
        ControlFlow::Break(preview) => preview.into_response(),
    })
}

async fn remove(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    condition: IfMatch,
) -> Result<Response, Fault> {
    let now = rule(&control, &key).await?;
    let expected = condition.expected("the rule", now.revision)?;
    Ok(match change::remove(&control, &caller, dry, (now, expected)).await? {
        ControlFlow::Continue(_) => StatusCode::NO_CONTENT.into_response(),
        ControlFlow::Break(preview) => preview.into_response(),
    })
}

/// Says which entries a rule is about. Nothing is changed, and stronger rules are not looked at.
async fn test(State(control): Shared, Key(key): Key) -> Result<Json<RuleTest>, Fault> {
    let rule = rule(&control, &key).await?.document;
    let snapshot = control.view.snapshot();
    let mut taken: std::collections::HashSet<String> =
        snapshot.machines().iter().map(|machine| machine.spec.name.clone()).collect();
    let mut entries = Vec::new();
    for Stored { id, document: entry, .. } in control.inventory.discovered().await? {
        let vendor = vendor(&control, &entry).unwrap_or_default();
        if entry.is_marked() || !rule.matches(&entry, &vendor) {
            continue;
        }
        let (name, note) = match &rule.machine_name {
            None => (None, None),
            Some(template) => {
                let values = entry.attributes(&vendor);
                let made =
                    template.fill(&values, |path| entry.fact(path), |name| taken.contains(name));
                (made.clone().ok(), made.err())
            }
        };
        taken.extend(name.clone());
        let macs = entry.macs.iter().map(ToString::to_string).collect();
        entries.push(Tried { id, macs, name, note });
    }
    Ok(Json(RuleTest { rule, entries }))
}

async fn expected(
    State(control): Shared,
    uri: Uri,
    Params(page): Params<Page>,
) -> Result<Response, Fault> {
    let all = control.inventory.all::<Expected>().await?;
    let rows = all.into_iter().map(|expected| (expected.id, expected.document));
    page::answer::<Expected, _>(&page, &uri, rows)
}

async fn expect(
    State(control): Shared,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(Expect { machines: all }): Body<Expect>,
) -> Result<Response, Fault> {
    if all.len() > MOST {
        return Err(Fault::invalid(format!("at most {MOST} machines can be expected at a time")));
    }
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let snapshot = control.view.snapshot();
    let known: std::collections::HashSet<&str> =
        snapshot.machines().iter().map(|machine| machine.spec.name.as_str()).collect();
    for (place, expected) in all.iter().enumerate() {
        let at = |fault: Fault| fault.at(format!("/machines/{place}"));
        if known.contains(expected.name.as_str()) {
            let text = format!("there is a machine `{}` already", expected.name);
            return Err(at(Fault::new(StatusCode::CONFLICT, text)));
        }
        edit.add(expected).await.map_err(|error| at(error.into()))?;
    }
    if dry.dry_run {
        return Ok(Preview::of(None::<&Vec<Expected>>, Some(&all)).into_response());
    }
    edit.commit().await?;
    Ok((StatusCode::CREATED, Json(all)).into_response())
}

async fn unexpect(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
) -> Result<Response, Fault> {
    let now = named::<Expected>(&control, "expected machine", &key).await?;
    let expected = Some(now.revision);
    Ok(match change::remove(&control, &caller, dry, (now, expected)).await? {
        ControlFlow::Continue(_) => StatusCode::NO_CONTENT.into_response(),
        ControlFlow::Break(preview) => preview.into_response(),
    })
}
