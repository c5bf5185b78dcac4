//! What is done to one entry of the queue, or to several at once.

use std::collections::{HashMap, HashSet};

use anyhow::anyhow;
use clap::Args;
use hyper::Method;
use kiln_inventory::{DiscoveryState, NameTemplate, Selector};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::chosen::{Tally, names};
use super::client::{Client, path_part};
use super::confirm::{Sure, named};
use super::diff::{self, Would};
use super::discovery::{ENTRIES, macs, name, path, state};
use super::machine::DryArg;
use super::print::{self, Listed};
use super::table::plain;
use super::{ClientArgs, Failure};
use crate::api::{Approve, DiscoveryRow};

/// The entries that something is done to.
#[derive(Args, Clone, Debug)]
pub(super) struct Entries {
    /// Their numbers, also as [3-9], or hardware addresses
    #[arg(value_name = "ENTRY", required_unless_present = "selector")]
    pub(super) entry: Vec<String>,
    /// Those that a rule with this selector would be about, as vendor=qemu,subnet="10.0.0.0/24"; * is every one
    #[arg(short, long, conflicts_with = "entry")]
    pub(super) selector: Option<Selector>,
}

impl Entries {
    /// Returns whether they are several, or it was not said which: then it is asked before something is done.
    fn are_many(&self, rows: &[DiscoveryRow]) -> bool {
        self.selector.is_some() || rows.len() != 1
    }

    /// Returns them, each once. Of those that a selector finds, only such as are `wanted`.
    async fn rows(
        &self,
        server: &Client,
        wanted: impl Fn(&DiscoveryRow) -> bool,
    ) -> Result<Vec<DiscoveryRow>, Failure> {
        let Some(selector) = &self.selector else {
            let (mut rows, mut seen) = (Vec::new(), HashSet::new());
            for text in &self.entry {
                let all = names(text).map_err(|why| Failure::new(Failure::USAGE, anyhow!(why)))?;
                for entry in all {
                    let row: DiscoveryRow = server.get(&path(&entry, "")).await?;
                    if seen.insert(row.id) {
                        rows.push(row);
                    }
                }
            }
            return Ok(rows);
        };
        let selector = selector.to_string();
        let path = format!("{ENTRIES}?selector={}", path_part(&selector));
        let mut rows: Vec<DiscoveryRow> = server.all(&path).await?;
        rows.retain(wanted);
        if rows.is_empty() {
            let error =
                anyhow!("nothing in the queue that fits `{selector}` is left to do this to");
            return Err(Failure::new(Failure::NOT_FOUND, error));
        }
        Ok(rows)
    }
}

/// What is done to one entry.
struct Step {
    /// By what it is told apart, and where to go on.
    key: String,
    path: String,
    revision: i64,
    /// What is sent, or why nothing can be.
    body: Result<Vec<u8>, String>,
}

impl Step {
    fn new(row: &DiscoveryRow, what: &str, body: Result<Vec<u8>, String>) -> Self {
        let (key, path) = (name(row), path(&row.id.to_string(), what));
        Self { key, path, revision: row.revision, body }
    }

    fn body(&self) -> Result<Vec<u8>, Failure> {
        self.body.clone().map_err(|why| anyhow!(why).into())
    }
}

/// Does one step after another, and says what became of each.
async fn each<T: Listed + DeserializeOwned>(
    client: &ClientArgs,
    dry: DryArg,
    (method, steps): (Method, &[Step]),
    failed: &str,
) -> Result<(), Failure> {
    let server = Client::new(client);
    if dry.dry_run {
        let (mut tally, mut all) = (Tally::default(), Vec::new());
        for step in steps {
            let preview = match step.body() {
                Ok(body) => server.preview(method.clone(), &step.path, body).await,
                Err(failure) => Err(failure),
            };
            let preview = tally.note(&step.key, preview);
            all.extend(preview.map(|preview| Would { name: step.key.clone(), preview }));
        }
        diff::print(client, &all)?;
        return tally.end(failed);
    }
    let keys: Vec<String> = steps.iter().map(|step| step.key.clone()).collect();
    let by_key: HashMap<&str, &Step> = steps.iter().map(|step| (step.key.as_str(), step)).collect();
    let one = async |key: &str| {
        let Some(step) = by_key.get(key) else { return Ok(None) };
        let answer = server.send_if(method.clone(), &step.path, step.body()?, Some(step.revision));
        let (_, answer) = answer.await?;
        let row = (!answer.is_empty()).then(|| serde_json::from_slice::<T>(&answer)).transpose()?;
        Ok::<_, Failure>(row)
    };
    let (tally, done) = Tally::of_each(&keys, one).await;
    let rows: Vec<T> = done.into_iter().flatten().collect();
    if !rows.is_empty() {
        print::list(client, &rows)?;
    }
    tally.end(failed)
}

/// What becomes of entries that are approved.
pub(super) struct Approval {
    pub(super) name: Option<String>,
    pub(super) template: Option<NameTemplate>,
    /// What else is said of each.
    pub(super) said: Approve,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Makes machines of entries.
pub(super) async fn approve(
    entries: &Entries,
    approval: Approval,
    (sure, dry): (Sure, DryArg),
    client: &ClientArgs,
) -> Result<(), Failure> {
    let server = Client::new(client);
    let Approval { name, template, said } = approval;
    let rows = entries.rows(&server, |row| row.entry.state != DiscoveryState::Ignored).await?;
    let bodies: Vec<Result<Approve, String>> = match template {
        // The server names one: it knows what is taken by then.
        Some(template) if !entries.are_many(&rows) => {
            vec![Ok(Approve { template: Some(template), ..said })]
        }
        Some(template) => {
            let mut taken: HashSet<String> = HashSet::new();
            for list in ["/api/v1/machines?fields=name", "/api/v1/discovery/expected?fields=name"] {
                let all: Vec<Named> = server.all(list).await?;
                taken.extend(all.into_iter().map(|named| named.name));
            }
            let made = called(&rows, &template, taken).into_iter();
            made.map(|name| Ok(Approve { name: Some(name?), ..said.clone() })).collect()
        }
        None => vec![Ok(Approve { name, ..said })],
    };
    if rows.len() != bodies.len() {
        let text = "several entries are named by --template";
        return Err(Failure::new(Failure::USAGE, anyhow!(text)));
    }
    if entries.are_many(&rows) && !dry.dry_run {
        let both = rows.iter().zip(&bodies);
        let shown: Vec<String> = both
            .filter_map(|(row, body)| {
                let name = body.as_ref().ok()?.name.as_deref()?;
                Some(format!("{name} ({})", macs(row)))
            })
            .collect();
        if !shown.is_empty() {
            let verb = if shown.len() == 1 { "becomes a machine" } else { "become machines" };
            sure.ask(&format!("{} {verb}. Go on?", named(&shown, "entries")))?;
        }
    }
    let mut steps = Vec::new();
    for (row, body) in rows.iter().zip(bodies) {
        let text = |body| serde_json::to_vec(&body).map_err(|error| error.to_string());
        let body = body.and_then(text);
        steps.push(Step::new(row, "/approve", body));
    }
    let steps = (Method::POST, &*steps);
    each::<kiln_inventory::Machine>(client, dry, steps, "were not approved").await
}

/// Names entries by a template, each as if those before it were machines already.
fn called(
    rows: &[DiscoveryRow],
    template: &NameTemplate,
    mut taken: HashSet<String>,
) -> Vec<Result<String, String>> {
    let name = |row: &DiscoveryRow| {
        let vendor = row.vendor.as_deref().unwrap_or_default();
        let (values, entry) = (row.entry.attributes(vendor), &row.entry);
        let name = template.fill(&values, |path| entry.fact(path), |name| taken.contains(name))?;
        taken.insert(name.clone());
        Ok(name)
    };
    rows.iter().map(name).collect()
}

/// What a verb does that marks entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Ignore,
    Unignore,
}

/// Leaves entries alone from now on, or lets them wait again.
pub(super) async fn mark(
    entries: &Entries,
    mark: Mark,
    (sure, dry): (Sure, DryArg),
    client: &ClientArgs,
) -> Result<(), Failure> {
    let is_ignored = |row: &DiscoveryRow| row.entry.state == DiscoveryState::Ignored;
    let wanted = |row: &DiscoveryRow| is_ignored(row) == (mark == Mark::Unignore);
    let rows = entries.rows(&Client::new(client), wanted).await?;
    let (what, words, failed) = match mark {
        Mark::Ignore => ("/ignore", "no answer from now on for", "were not ignored"),
        Mark::Unignore => ("/unignore", "those that wait again:", "do not wait again"),
    };
    if entries.are_many(&rows) && !dry.dry_run {
        sure.ask(&format!("{words} {}. Go on?", shown(&rows)))?;
    }
    let step = |row| Step::new(row, what, Ok(b"{}".to_vec()));
    let steps: Vec<Step> = rows.iter().map(step).collect();
    each::<DiscoveryRow>(client, dry, (Method::POST, &steps), failed).await
}

/// Forgets entries until they are seen again.
pub(super) async fn remove(
    entries: &Entries,
    (sure, dry): (Sure, DryArg),
    client: &ClientArgs,
) -> Result<(), Failure> {
    let rows = entries.rows(&Client::new(client), |_| true).await?;
    if !dry.dry_run {
        let what = match rows.as_slice() {
            [row] => format!("{} ({}) goes until it is", macs(row), state(row)),
            _ => format!("{} goes until they are", shown(&rows)),
        };
        sure.ask(&format!("what is known of {what} seen again. Go on?"))?;
    }
    let steps: Vec<Step> = rows.iter().map(|row| Step::new(row, "", Ok(Vec::new()))).collect();
    each::<DiscoveryRow>(client, dry, (Method::DELETE, &steps), "were not removed").await
}

fn shown(rows: &[DiscoveryRow]) -> String {
    named(&rows.iter().map(|row| plain(&macs(row))).collect::<Vec<_>>(), "entries")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(id: i64, serial: Option<&str>) -> DiscoveryRow {
        let mac = format!("52:54:00:00:00:0{id}");
        let row = json!({"id": id, "revision": 1, "macs": [mac], "first": 1, "last": 2,
            "times": 1, "serial": serial});
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn several_entries_are_named_one_after_the_other_and_no_name_is_given_twice() {
        let rows = [row(1, Some("a")), row(2, None), row(3, Some("a"))];
        let name = |template: &str, taken: &[&str]| {
            let taken = taken.iter().map(|name| (*name).to_owned()).collect();
            called(&rows, &template.parse().unwrap(), taken)
        };
        let names = name("r1-{n:02}", &["r1-02"]);
        let expected = ["r1-01", "r1-03", "r1-04"].map(|name| Ok(name.to_owned()));
        assert_eq!(names, expected);
        let names = name("x-{serial}", &[]);
        let [one, two, three] = names.as_slice() else { panic!("{names:?}") };
        assert_eq!(one.as_deref(), Ok("x-a"));
        assert!(two.as_ref().unwrap_err().contains("it has not told `serial`"), "{two:?}");
        assert!(three.as_ref().unwrap_err().contains("`x-a`"), "{three:?}");
    }
}
