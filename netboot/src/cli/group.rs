//! `kiln group`.

use clap::{Args, Subcommand};
use kiln_inventory::{Group, Selector, SettingRow, Settings};

use super::client::{Client, path_part};
use super::machine::print_settings;
use super::settings_args::SettingsArgs;
use super::table::{table, text};
use super::{ClientArgs, Failure, Output, print_json};
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
        client: ClientArgs,
    },
    /// List groups, the strongest first
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one group
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
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
        client: ClientArgs,
    },
    /// Remove a group; its machines stay, without what it gave them
    #[command(alias = "rm")]
    Remove {
        /// Name
        name: String,
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
        GroupCommand::Add { name, selector, priority, settings: said, client } => {
            let mut settings = Settings::default();
            said.apply(&mut settings);
            let group = Group { name, selector, priority, settings };
            let row = Client::new(&client).post(GROUPS, serde_json::to_vec(&group)?).await?;
            print(client.output, &[row])
        }
        GroupCommand::List { client } => {
            let rows: Vec<GroupRow> = Client::new(&client).get(GROUPS).await?;
            print(client.output, &rows)
        }
        GroupCommand::Show { name, client } => {
            let row: GroupRow = Client::new(&client).get(&path(&name)).await?;
            if client.output == Output::Json {
                return print_json(&row);
            }
            print(client.output, std::slice::from_ref(&row))?;
            print_settings(&rows_of(&row.group.settings)?);
            Ok(())
        }
        GroupCommand::Set { name, selector, priority, settings: said, client } => {
            let server = Client::new(&client);
            let GroupRow { mut group, .. } = server.get(&path(&name)).await?;
            let before = group.clone();
            said.apply(&mut group.settings);
            group.selector = selector.unwrap_or(group.selector);
            group.priority = priority.unwrap_or(group.priority);
            if group == before {
                let help =
                    "that is what it is already; `kiln group set --help` lists what can be changed";
                return Err(Failure::new(Failure::USAGE, anyhow::anyhow!(help)));
            }
            let row = server.put(&path(&name), serde_json::to_vec(&group)?).await?;
            print(client.output, &[row])
        }
        GroupCommand::Remove { name, client } => Client::new(&client).delete(&path(&name)).await,
    }
}

fn print(output: Output, rows: &[GroupRow]) -> Result<(), Failure> {
    if output == Output::Json {
        return print_json(&rows);
    }
    let mut lines = table(&["name", "selector", "priority", "machines", "sets"]);
    for GroupRow { group, machines, .. } in rows {
        let sets: Vec<String> =
            rows_of(&group.settings)?.into_iter().map(|row| row.setting).collect();
        lines.add_row([
            group.name.clone(),
            group.selector.to_string(),
            group.priority.to_string(),
            machines.to_string(),
            sets.join(" "),
        ]);
    }
    println!("{}", text(&lines));
    Ok(())
}

/// Lists what a group says, by the names that its document has for it.
fn rows_of(settings: &Settings) -> Result<Vec<SettingRow>, Failure> {
    let serde_json::Value::Object(all) = serde_json::to_value(settings)? else {
        return Ok(Vec::new());
    };
    let row = |(setting, value): (String, serde_json::Value)| {
        let value = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        SettingRow { setting, value, from: "group".to_owned() }
    };
    Ok(all.into_iter().map(row).collect())
}
