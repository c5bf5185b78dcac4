//! `kiln discovery`.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use kiln_inventory::{DiscoveryState, Machine, NameTemplate};
use kiln_types::ImageRef;

use super::client::{Client, path_part};
use super::confirm::Sure;
use super::discovery_many::{self, Approval, Entries, Mark};
use super::discovery_rule::{self, ExpectCommand, RuleCommand};
use super::machine::DryArg;
use super::print::{self, Column, How, Listed, col, more};
use super::table::{moment, plain};
use super::watch::{self, ListArgs, Look, WatchArg};
use super::{ClientArgs, Failure, change, facts};
use crate::api::{Approve, DiscoveryRow, MergeInto};

/// Machines that nobody has added, and what becomes of them
#[derive(Debug, Args)]
pub struct DiscoveryArgs {
    #[command(subcommand)]
    command: DiscoveryCommand,
}

#[derive(Debug, Subcommand)]
enum DiscoveryCommand {
    /// List machines that wanted to boot and that nobody has added
    #[command(alias = "ls")]
    List(ListArgs),
    /// Show all that is known of one, and which machine it looks like
    Show {
        /// Its number, or a hardware address
        entry: String,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make machines of them
    ///
    /// One is named behind it, as in `approve 3 node-7`, or by --template; several are named by --template only.
    Approve {
        #[command(flatten)]
        entries: Entries,
        /// How they are named: rack1-{n:02} takes the first number that is free, {vendor}-{serial} what was seen
        #[arg(long, required_unless_present = "entry")]
        template: Option<NameTemplate>,
        /// Label as KEY=VALUE, by which they get into groups; can be given several times
        #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
        label: Vec<(String, String)>,
        /// Image that they are to run: NAME or NAME:CHANNEL
        #[arg(long)]
        image: Option<ImageRef>,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Leave them alone: they get no answer when they want to boot
    Ignore {
        #[command(flatten)]
        entries: Entries,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let them wait again
    Unignore {
        #[command(flatten)]
        entries: Entries,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Say which machine it is: that gets its network cards
    Merge {
        /// Its number, or a hardware address
        entry: String,
        /// Name or hardware address of the machine
        machine: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Forget them; when they are seen again they are new
    #[command(alias = "rm")]
    Remove {
        #[command(flatten)]
        entries: Entries,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Rules: add, list, show, remove, test, apply
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Machines that are to come: add, list, remove
    #[command(subcommand)]
    Expected(ExpectCommand),
}

pub(super) const ENTRIES: &str = "/api/v1/discovery";
/// What changes with which the queue may look otherwise.
const NOUNS: &str = "discovery,discovery-rule,machine";

pub(super) fn path(entry: &str, what: &str) -> String {
    format!("{ENTRIES}/{}{what}", path_part(entry))
}

/// Reads a label.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a label as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) async fn run(args: DiscoveryArgs) -> Result<(), Failure> {
    match args.command {
        DiscoveryCommand::List(list) => list.show::<DiscoveryRow>(NOUNS, ENTRIES).await,
        DiscoveryCommand::Show { entry, watch, client } => {
            let server = Client::new(&client);
            watch::show(&server, watch, Some(NOUNS), async || {
                let row: DiscoveryRow = server.get(&path(&entry, "")).await?;
                let text = print::shown(How::of(&client), &name(&row), &row, || shown(&row))?;
                Ok(Look::one(&text, text.clone()))
            })
            .await
        }
        DiscoveryCommand::Approve { mut entries, template, label, image, sure, dry, client } => {
            // Without a template the last word is the name.
            let name = match template {
                Some(_) => None,
                None => entries.entry.pop(),
            };
            if template.is_none() && entries.entry.len() != 1 {
                let text = "say `approve ENTRY NAME`, or how they are named (--template)";
                return Err(Failure::new(Failure::USAGE, anyhow!(text)));
            }
            let labels: BTreeMap<String, String> = label.into_iter().collect();
            let said = Approve { labels, image, ..Approve::default() };
            let approval = Approval { name, template, said };
            discovery_many::approve(&entries, approval, (sure, dry), &client).await
        }
        DiscoveryCommand::Ignore { entries, sure, dry, client } => {
            discovery_many::mark(&entries, Mark::Ignore, (sure, dry), &client).await
        }
        DiscoveryCommand::Unignore { entries, sure, dry, client } => {
            discovery_many::mark(&entries, Mark::Unignore, (sure, dry), &client).await
        }
        DiscoveryCommand::Merge { entry, machine, sure, dry, client } => {
            if !dry.dry_run && !sure.yes {
                let row: DiscoveryRow = Client::new(&client).get(&path(&entry, "")).await?;
                let (macs, machine) = (macs(&row), plain(&machine));
                sure.ask(&format!("{machine} gets {macs}, and the entry goes. Go on?"))?;
            }
            let document = MergeInto { machine };
            let at = path(&entry, "/merge");
            change::post::<Machine>(&client, dry, (&at, &document.machine), &document).await
        }
        DiscoveryCommand::Remove { entries, sure, dry, client } => {
            discovery_many::remove(&entries, (sure, dry), &client).await
        }
        DiscoveryCommand::Rule(rule) => discovery_rule::run(rule).await,
        DiscoveryCommand::Expected(expected) => discovery_rule::expect(expected).await,
    }
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| plain(&value.to_string()))
}

pub(super) fn macs(row: &DiscoveryRow) -> String {
    row.entry.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Says what becomes of an entry, and who says so.
pub(super) fn state(row: &DiscoveryRow) -> String {
    let word = match row.entry.state {
        DiscoveryState::Waiting => "waiting",
        DiscoveryState::Held => "held",
        DiscoveryState::Ignored => "ignored",
    };
    match &row.entry.rule {
        Some(rule) => format!("{word} by rule {}", plain(rule)),
        None => word.to_owned(),
    }
}

impl Listed for DiscoveryRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("id", |it: &Self| it.id.to_string()),
            col("mac", macs),
            col("vendor", |it| or_dash(it.vendor.as_ref())),
            col("firmware", |it| or_dash(it.entry.firmware.as_ref())),
            col("subnet", |it| or_dash(it.entry.subnet.as_ref())),
            col("state", state),
            col("last", |it| moment(it.entry.last)),
            col("looks like", |it| or_dash(it.looks_like.first().map(|like| &like.machine))),
            more("first", |it| moment(it.entry.first)),
            more("times", |it| it.entry.times.to_string()),
            more("address", |it| or_dash(it.entry.address.as_ref())),
            more("port", |it| or_dash(it.entry.circuit_id.as_ref())),
            more("uuid", |it| or_dash(it.entry.uuid.as_ref())),
            more("serial", |it| or_dash(it.entry.serial.as_ref())),
        ]
    }

    fn name(&self) -> String {
        name(self)
    }
}

/// Returns the hardware address that an entry is called by.
pub(super) fn name(row: &DiscoveryRow) -> String {
    row.entry.macs.first().map(ToString::to_string).unwrap_or_default()
}

fn shown(row: &DiscoveryRow) -> String {
    let entry = &row.entry;
    let mut lines: Vec<(&str, String)> = vec![
        ("id", row.id.to_string()),
        ("mac", macs(row)),
        ("state", state(row)),
        ("vendor", or_dash(row.vendor.as_ref())),
        ("firmware", or_dash(entry.firmware.as_ref())),
        ("arch", or_dash(row.arch.as_ref())),
        ("uuid", or_dash(entry.uuid.as_ref())),
        ("serial", or_dash(entry.serial.as_ref())),
        ("asset", or_dash(entry.asset_tag.as_ref())),
        ("subnet", or_dash(entry.subnet.as_ref())),
        ("relay", or_dash(entry.relay.as_ref())),
        ("port", or_dash(entry.circuit_id.as_ref())),
        ("address", or_dash(entry.address.as_ref())),
        ("class", or_dash(entry.vendor_class.as_ref())),
        ("duid", or_dash(entry.duid.as_ref())),
        ("hostname", or_dash(entry.hostname.as_ref())),
        ("first", moment(entry.first)),
        ("last", format!("{}, {} packets", moment(entry.last), entry.times)),
    ];
    if let Some(told) = &entry.facts {
        lines.push(("hardware", facts::summary(&told.facts)));
    }
    if let Some(note) = &entry.note {
        lines.push(("note", plain(note)));
    }
    for like in &row.looks_like {
        lines.push(("", plain(&like.text)));
    }
    let lines: Vec<String> =
        lines.into_iter().map(|(key, value)| format!("{key:<9}{value}")).collect();
    lines.join("\n")
}
