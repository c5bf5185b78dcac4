//! `kiln discovery rule apply`, and `test`: what a rule makes of what waits already.

use hyper::Method;
use kiln_inventory::{DiscoveryRule, DiscoveryState};
use serde_json::json;

use super::chosen::Tally;
use super::client::{Client, path_part};
use super::confirm::{Sure, named};
use super::diff::{self, Would};
use super::discovery::{ENTRIES, macs, path as entry_path};
use super::discovery_rule::{RULES, path};
use super::machine::DryArg;
use super::print::{self, Column, Listed, col};
use super::table::{plain, table, text};
use super::{ClientArgs, Failure};
use crate::api::{Decided, DiscoveryRow, FieldChange, Preview, RuleRow, RuleTest};

/// Asks what a rule is about.
pub(super) async fn tried(server: &Client, name: &str) -> Result<RuleTest, Failure> {
    server.post(&format!("{}/test", path(name)), b"{}".to_vec()).await
}

/// Shows it.
pub(super) fn print_tried(client: &ClientArgs, tried: &RuleTest) -> Result<(), Failure> {
    print::one(client, &tried.rule.name, tried, || {
        let mut lines = table(&["id", "mac", "name", "note"]);
        for entry in &tried.entries {
            let [name, note] =
                [&entry.name, &entry.note].map(|text| plain(text.as_deref().unwrap_or("")));
            lines.add_row([entry.id.to_string(), entry.macs.join(" "), name, note]);
        }
        text(&lines)
    })
}

/// Lets the rules decide on what waits and a rule is about.
pub(super) async fn apply(
    name: &str,
    (sure, dry): (Sure, DryArg),
    client: &ClientArgs,
) -> Result<(), Failure> {
    let server = Client::new(client);
    let tried = tried(&server, name).await?;
    if dry.dry_run {
        // A stronger rule may be the one that decides.
        let mut all = Vec::new();
        for entry in &tried.entries {
            let place = entry_path(&entry.id.to_string(), "/settle");
            let preview = server.preview(Method::POST, &place, b"{}".to_vec()).await?;
            all.push(Would { name: entry.macs.join(" "), preview });
        }
        return diff::print(client, &all);
    }
    let all: Vec<(i64, String)> =
        tried.entries.into_iter().map(|entry| (entry.id, entry.macs.join(" "))).collect();
    if all.is_empty() {
        eprintln!("kiln: nothing waits that the rule {} is about", plain(name));
        return Ok(());
    }
    sure.ask(&question(name, &all))?;
    settle(&server, &all, client).await
}

/// Adds a rule that is for what waits already too.
pub(super) async fn add(
    rule: &DiscoveryRule,
    (sure, dry): (Sure, DryArg),
    client: &ClientArgs,
) -> Result<(), Failure> {
    let server = Client::new(client);
    let asked = path_part(&rule.selector.to_string());
    let mut rows: Vec<DiscoveryRow> = server.all(&format!("{ENTRIES}?selector={asked}")).await?;
    rows.retain(|row| !row.entry.is_marked());
    let body = serde_json::to_vec(rule)?;
    if dry.dry_run {
        let preview = server.preview(Method::POST, RULES, body).await?;
        let first = Would { name: rule.name.clone(), preview };
        let mut rules: Vec<DiscoveryRule> =
            server.all::<RuleRow>(RULES).await?.into_iter().map(|row| row.rule).collect();
        rules.push(rule.clone());
        rules.sort_by(DiscoveryRule::by_strength);
        let all: Vec<Would> =
            std::iter::once(first).chain(rows.iter().map(|row| decided_by(&rules, row))).collect();
        return diff::print(client, &all);
    }
    let all: Vec<(i64, String)> = rows.iter().map(|row| (row.id, macs(row))).collect();
    if !all.is_empty() {
        sure.ask(&question(&rule.name, &all))?;
    }
    let added: RuleRow = server.post(RULES, body).await?;
    match all.is_empty() {
        true => print::list(client, &[added]),
        false => settle(&server, &all, client).await,
    }
}

/// Says of an entry which of these rules would decide, the strongest of which comes first; one is not there yet.
fn decided_by(rules: &[DiscoveryRule], row: &DiscoveryRow) -> Would {
    let field = |text: &str| text.to_owned();
    let before = row.entry.rule.as_deref().map(|rule| json!(rule));
    let vendor = row.vendor.as_deref().unwrap_or_default();
    let decides = rules.iter().find(|rule| rule.matches(&row.entry, vendor));
    let after = decides.map(|rule| json!(rule.name));
    let change = FieldChange { field: field("/rule"), before, after };
    let preview = Preview { would: field("change"), after: None, diff: vec![change] };
    Would { name: macs(row), preview }
}

fn question(rule: &str, all: &[(i64, String)]) -> String {
    let macs: Vec<String> = all.iter().map(|(_, macs)| macs.clone()).collect();
    let (rule, entries) = (plain(rule), named(&macs, "entries"));
    format!("the rule {rule} decides on {entries}, unless a stronger one does. Go on?")
}

/// Lets the rules decide on one entry after another.
async fn settle(
    server: &Client,
    all: &[(i64, String)],
    client: &ClientArgs,
) -> Result<(), Failure> {
    let ids: Vec<String> = all.iter().map(|(id, _)| id.to_string()).collect();
    let one =
        async |id: &str| server.post::<Decided>(&entry_path(id, "/settle"), b"{}".to_vec()).await;
    let (tally, done) = Tally::of_each(&ids, one).await;
    if !done.is_empty() {
        print::list(client, &done)?;
    }
    tally.end("are as they were")
}

impl Listed for Decided {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("id", |it: &Self| it.id.to_string()),
            col("mac", |it| it.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            col("became", |it| match (&it.machine, it.state) {
                (Some(machine), _) => format!("machine {}", plain(machine)),
                (None, Some(DiscoveryState::Held)) => "held".to_owned(),
                (None, Some(DiscoveryState::Ignored)) => "ignored".to_owned(),
                (None, _) => "waiting".to_owned(),
            }),
            col("rule", |it| plain(it.rule.as_deref().unwrap_or("-"))),
            col("note", |it| plain(it.note.as_deref().unwrap_or(""))),
        ]
    }

    fn name(&self) -> String {
        self.machine.clone().unwrap_or_else(|| self.id.to_string())
    }
}
