//! `kiln discovery rule` and `kiln discovery expected`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Subcommand, ValueEnum};
use hyper::Method;
use kiln_inventory::{Action, DiscoveryRule, Expected, NameTemplate, Selector};

use super::client::{Client, path_part};
use super::confirm::Sure;
use super::diff::{self, Would};
use super::discovery::label;
use super::discovery_apply;
use super::machine::DryArg;
use super::print::{self, Column, Listed, col};
use super::table::{or_dash, plain};
use super::watch::ListArgs;
use super::{ClientArgs, Failure, change};
use crate::api::{Expect, RuleRow};

/// The longest file of expected machines.
const MOST_BYTES: u64 = 8 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum RuleCommand {
    /// Say what becomes of machines that nobody has added
    ///
    /// A rule is looked at when a machine appears or more is known of it, the strongest first. What waits already stays as
    /// it is until then, unless --waiting is given. No rule approves what has the UUID or serial number of a machine or of another entry.
    Add {
        /// Name
        name: String,
        /// Which machines: vendor, arch, firmware, mac, oui, uuid, serial, asset-tag, hostname, subnet, relay, circuit-id,
        /// vendor-class, duid and facts.PATH, as in arch=arm64,subnet="10.0.0.0/24",facts.system.product="R640"; * is every one
        #[arg(short, long)]
        selector: Selector,
        /// Which rule is looked at first: the highest, then the name that comes first
        #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
        priority: i32,
        /// What it does
        #[arg(long, value_enum)]
        action: Does,
        /// How machines are named: rack1-{n:02} takes the first number that is free, {vendor}-{serial} what was seen
        #[arg(long = "name", value_name = "TEMPLATE")]
        template: Option<NameTemplate>,
        /// Take the next expected machine of this list instead
        #[arg(long)]
        list: Option<String>,
        /// Label of the machines as KEY=VALUE, by which they get into groups; can be given several times
        #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
        label: Vec<(String, String)>,
        /// Let it decide on what waits already, too
        #[arg(long)]
        waiting: bool,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List rules, the strongest first
    #[command(alias = "ls")]
    List(ListArgs),
    /// Show one rule
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Say which of the machines that wait a rule is about, and how it would name them
    Test {
        /// Name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let the rules decide now on what waits and a rule is about
    ///
    /// The strongest rule decides, as it does when a machine appears: where that is another one, it is named. What a person
    /// has ignored stays as it is.
    Apply {
        /// Name
        name: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a rule; what it made stays
    #[command(alias = "rm")]
    Remove {
        /// Name
        name: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ExpectCommand {
    /// Expect the machines of a CSV file, all of them or none
    ///
    /// The first line names the columns: name, and as many as are known of uuid, serial, asset-tag, circuit-id, list, image,
    /// address and label.KEY. What appears with one of uuid, serial, asset-tag and circuit-id becomes that machine. A line
    /// with no more than a name and a list is for the next machine that a rule with that list approves.
    Add {
        /// The file; - is standard input
        file: PathBuf,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List machines that are to come
    #[command(alias = "ls")]
    List(ListArgs),
    /// Expect a machine no longer
    #[command(alias = "rm")]
    Remove {
        /// Name
        name: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Does {
    /// Make machines of them
    Approve,
    /// Give them no answer
    Ignore,
    /// Leave them to a person, whatever weaker rules say
    Hold,
}

impl From<Does> for Action {
    fn from(does: Does) -> Self {
        match does {
            Does::Approve => Self::Approve,
            Does::Ignore => Self::Ignore,
            Does::Hold => Self::Hold,
        }
    }
}

pub(super) const RULES: &str = "/api/v1/discovery/rules";
const EXPECTED: &str = "/api/v1/discovery/expected";

pub(super) fn path(name: &str) -> String {
    format!("{RULES}/{}", path_part(name))
}

pub(super) async fn run(command: RuleCommand) -> Result<(), Failure> {
    match command {
        RuleCommand::Add {
            name,
            selector,
            priority,
            action,
            template,
            list,
            label,
            waiting,
            sure,
            dry,
            client,
        } => {
            let (action, labels) = (action.into(), label.into_iter().collect());
            let rule = DiscoveryRule {
                name,
                selector,
                priority,
                action,
                machine_name: template,
                list,
                labels,
            };
            if !waiting {
                return change::post::<RuleRow>(&client, dry, (RULES, &rule.name), &rule).await;
            }
            discovery_apply::add(&rule, (sure, dry), &client).await
        }
        RuleCommand::List(list) => list.show::<RuleRow>("discovery-rule", RULES).await,
        RuleCommand::Show { name, list } => {
            list.show_row::<RuleRow>("discovery-rule", &path(&name)).await
        }
        RuleCommand::Test { name, client } => {
            let tried = discovery_apply::tried(&Client::new(&client), &name).await?;
            discovery_apply::print_tried(&client, &tried)
        }
        RuleCommand::Apply { name, sure, dry, client } => {
            discovery_apply::apply(&name, (sure, dry), &client).await
        }
        RuleCommand::Remove { name, sure, dry, client } => {
            change::remove(&client, (sure, dry), (&path(&name), &name), async |_| {
                let shown = plain(&name);
                Ok(format!(
                    "the rule {shown} decides on no more machines; what it made stays. Go on?"
                ))
            })
            .await
        }
    }
}

impl Listed for RuleRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.rule.name.clone()),
            col("selector", |it| it.rule.selector.to_string()),
            col("priority", |it| it.rule.priority.to_string()),
            col("action", |it| {
                let word = match it.rule.action {
                    Action::Approve => "approve",
                    Action::Ignore => "ignore",
                    Action::Hold => "hold",
                };
                word.to_owned()
            }),
            col("names", |it| {
                let list = it.rule.list.as_ref().map(|list| format!("list {list}"));
                let template = it.rule.machine_name.as_ref().map(ToString::to_string);
                template.or(list).unwrap_or_default()
            }),
            col("labels", |it| labels(&it.rule.labels)),
        ]
    }

    fn name(&self) -> String {
        self.rule.name.clone()
    }
}

impl Listed for Expected {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.name.clone()),
            col("uuid", |it| or_dash(it.uuid.as_ref())),
            col("serial", |it| or_dash(it.serial.as_ref())),
            col("asset tag", |it| or_dash(it.asset_tag.as_ref())),
            col("port", |it| or_dash(it.circuit_id.as_ref())),
            col("list", |it| or_dash(it.list.as_ref())),
            col("image", |it| or_dash(it.image.as_ref())),
            col("labels", |it| labels(&it.labels)),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

pub(super) async fn expect(command: ExpectCommand) -> Result<(), Failure> {
    match command {
        ExpectCommand::Add { file, dry, client } => {
            let machines = read(&file).map_err(|error| Failure::new(Failure::USAGE, error))?;
            let body = serde_json::to_vec(&Expect { machines })?;
            let server = Client::new(&client);
            if dry.dry_run {
                let preview = server.preview(Method::POST, EXPECTED, body).await?;
                return diff::print(
                    &client,
                    &[Would { name: file.display().to_string(), preview }],
                );
            }
            let rows: Vec<Expected> = server.post(EXPECTED, body).await?;
            print::list(&client, &rows)
        }
        ExpectCommand::List(list) => list.show::<Expected>("expected", EXPECTED).await,
        ExpectCommand::Remove { name, sure, dry, client } => {
            let at = format!("{EXPECTED}/{}", path_part(&name));
            change::remove(&client, (sure, dry), (&at, &name), async |_| {
                Ok(format!("{} is expected no longer. Go on?", plain(&name)))
            })
            .await
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Expected>> {
    if path == Path::new("-") {
        return parse(io::stdin().lock().take(MOST_BYTES), "standard input");
    }
    let shown = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    parse(file.take(MOST_BYTES), &shown)
}

/// Reads machines, one in a line, with the names of the columns in the first.
fn parse(from: impl Read, path: &str) -> anyhow::Result<Vec<Expected>> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(from);
    let columns = reader.headers().with_context(|| format!("cannot read {path}"))?.clone();
    if !columns.iter().any(|column| column == "name") {
        bail!("{path}: the first line names the columns, and one of them has to be `name`");
    }
    let mut machines = Vec::new();
    for record in reader.records() {
        let record = record.with_context(|| format!("cannot read {path}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        let mut object = serde_json::Map::new();
        let mut labels = serde_json::Map::new();
        for (column, value) in columns.iter().zip(&record).filter(|(_, value)| !value.is_empty()) {
            match column.strip_prefix("label.") {
                Some(key) => labels.insert(key.to_owned(), value.into()),
                None => object.insert(column.to_owned(), value.into()),
            };
        }
        object.insert("labels".to_owned(), labels.into());
        let machine = serde_json::from_value(object.into())
            .map_err(|error| anyhow!("{path}, line {line}: {error}"))?;
        machines.push(machine);
    }
    Ok(machines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_expected_machines_is_read_by_the_names_of_its_columns() {
        let text = "serial, name,label.rack,circuit-id,image\n# a comment\nS-1,web-1,r1,,web:stable\n\n,web-2,\"r,2\",Gi1/0/7,\n";
        let machines = parse(text.as_bytes(), "x.csv").unwrap();
        let [one, two] = machines.as_slice() else { panic!("{machines:?}") };
        assert_eq!((one.name.as_str(), one.serial.as_deref()), ("web-1", Some("S-1")));
        assert_eq!((one.image.clone(), &one.circuit_id), ("web:stable".parse().ok(), &None));
        assert_eq!(two.circuit_id, "Gi1/0/7".parse().ok());
        assert_eq!((two.labels["rack"].as_str(), two.serial.as_deref()), ("r,2", None));
    }

    #[test]
    fn a_file_that_is_wrong_names_the_line() {
        for (text, part) in [
            ("a,b\n1,2\n", "has to be `name`"),
            ("name,colour\nx,red\n", "line 2: unknown field `colour`"),
            ("name,address\nx,10.0.0\n", "line 2: "),
            ("name,serial\nx\n", "cannot read x.csv"),
            ("name,labels\nx,a\n", "missing field"),
        ] {
            match parse(text.as_bytes(), "x.csv") {
                Err(error) => assert!(format!("{error:#}").contains(part), "{error:#}"),
                Ok(machines) => assert_eq!(part, "missing field", "{machines:?}"),
            }
        }
    }
}
