//! `kiln group`.

use clap::{Args, Subcommand};
use hyper::Method;
use kiln_inventory::{Group, Selector, SettingRow, Settings};

use super::change;
use super::client::{Client, path_part};
use super::confirm::Sure;
use super::diff::{self, Would};
use super::machine::DryArg;
use super::machine_show::settings;
use super::print::{self, Column, Listed, col, more};
use super::settings_args::SettingsArgs;
use super::watch::ListArgs;
use super::{ClientArgs, Failure};
use crate::api::GroupRow;

/// Settings for many machines at once
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Make a group
    Add {
        /// Name
        name: String,
        /// Its machines: role=web, rack!=r1, rack in (r1,r2), role, !role, with commas between them; * is every machine
        #[arg(short, long)]
        selector: Selector,
        /// Which group wins where several say the same: the highest, then the name that comes first
        #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
        priority: i32,
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List groups, the strongest first
    #[command(alias = "ls")]
    List(ListArgs),
    /// Show one group
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Change a group; it counts from the next boot of its machines
    Set {
        /// Name
        name: String,
        /// Its machines from now on
        #[arg(short, long)]
        selector: Option<Selector>,
        /// Which group wins where several say the same
        #[arg(long, allow_hyphen_values = true)]
        priority: Option<i32>,
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a group; its machines stay, without what it gave them
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

const GROUPS: &str = "/api/v1/groups";

fn path(name: &str) -> String {
    format!("{GROUPS}/{}", path_part(name))
}

pub(super) async fn run(args: GroupArgs) -> Result<(), Failure> {
    match args.command {
        GroupCommand::Add { name, selector, priority, settings: said, dry, client } => {
            let mut settings = Settings::default();
            said.apply(&mut settings);
            let group = Group { name, selector, priority, settings };
            change::post::<GroupRow>(&client, dry, (GROUPS, &group.name), &group).await
        }
        GroupCommand::List(list) => list.show::<GroupRow>("group,machine", GROUPS).await,
        GroupCommand::Show { name, list } => {
            let words = |row: &GroupRow| settings(&rows_of(&row.group.settings));
            list.show_one(Some("group,machine"), &path(&name), words).await
        }
        GroupCommand::Set { name, selector, priority, settings: said, dry, client } => {
            let server = Client::new(&client);
            let changed = |now: &GroupRow| {
                let mut group = now.group.clone();
                said.clone().apply(&mut group.settings);
                group.selector = selector.clone().unwrap_or(group.selector);
                group.priority = priority.unwrap_or(group.priority);
                group
            };
            if dry.dry_run {
                let body = serde_json::to_vec(&changed(&server.get(&path(&name)).await?))?;
                let preview = server.preview(Method::PUT, &path(&name), body).await?;
                return diff::print(&client, &[Would { name, preview }]);
            }
            let changed = |now: &GroupRow| {
                let group = changed(now);
                if group == now.group {
                    let help = "that is what it is already; `kiln group set --help` lists what can be changed";
                    return Err(Failure::new(Failure::USAGE, anyhow::anyhow!(help)));
                }
                Ok(Some(serde_json::to_vec(&group)?))
            };
            print::list(&client, &[server.change(&path(&name), changed).await?])
        }
        GroupCommand::Remove { name, sure, dry, client } => {
            change::remove(&client, (sure, dry), (&path(&name), &name), async |server| {
                let GroupRow { machines, .. } = server.get(&path(&name)).await?;
                Ok(format!(
                    "the group {name} goes, and {machines} machines lose what it gives them. Go on?"
                ))
            })
            .await
        }
    }
}

impl Listed for GroupRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.group.name.clone()),
            col("selector", |it| it.group.selector.to_string()),
            col("priority", |it| it.group.priority.to_string()),
            col("machines", |it| it.machines.to_string()),
            col("sets", |it| {
                let rows = rows_of(&it.group.settings).into_iter();
                rows.map(|row| row.setting).collect::<Vec<_>>().join(" ")
            }),
            more("revision", |it| it.revision.to_string()),
        ]
    }

    fn name(&self) -> String {
        self.group.name.clone()
    }
}

/// Lists what a group says, by the names that its document has for it.
fn rows_of(settings: &Settings) -> Vec<SettingRow> {
    let Ok(serde_json::Value::Object(all)) = serde_json::to_value(settings) else {
        return Vec::new();
    };
    let row = |(setting, value): (String, serde_json::Value)| {
        let value = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        SettingRow { setting, value, from: "group".to_owned() }
    };
    all.into_iter().map(row).collect()
}
