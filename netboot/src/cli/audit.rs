//! `kiln audit`.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::client::{Client, path_part};
use super::table::{moment, plain, table, text};
use super::{ClientArgs, Failure, Output, print_json};
use crate::api::{AuditRow, Verification};

/// The log of changes: who did what, and who was refused
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// List changes, the oldest first
    #[command(alias = "ls")]
    List {
        /// Only of this kind of noun: machine, group, token …; `access` are those who were refused
        #[arg(long)]
        noun: Option<String>,
        /// Only of nouns with this name
        #[arg(long)]
        name: Option<String>,
        /// Only what this one did
        #[arg(long)]
        actor: Option<String>,
        /// Only changes after that with this number
        #[arg(long, default_value_t = 0)]
        after: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Check that no change in the log was altered, removed or put in
    ///
    /// Each change has a hash over itself and the hash of the one before it. The printed hash of the newest one, kept
    /// elsewhere, shows later whether the end of the log was cut off.
    Verify {
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) async fn run(args: AuditArgs) -> Result<(), Failure> {
    match args.command {
        AuditCommand::List { noun, name, actor, after, client } => {
            let mut path = format!("/api/v1/audit?after={after}");
            for (key, value) in [("noun", noun), ("name", name), ("actor", actor)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{key}={}", path_part(&value)));
                }
            }
            let rows: Vec<AuditRow> = Client::new(&client).get(&path).await?;
            match client.output {
                Output::Json => print_json(&rows)?,
                Output::Table => print(&rows),
            }
            Ok(())
        }
        AuditCommand::Verify { client } => {
            let found: Verification = Client::new(&client).get("/api/v1/audit/verify").await?;
            match client.output {
                Output::Json => print_json(&found)?,
                Output::Table => {
                    let last = found.last.map_or_else(|| "-".to_owned(), |hash| hash.to_string());
                    println!(
                        "{} changes as they were written; the newest has {last}",
                        found.changes
                    );
                }
            }
            match found.broken {
                None => Ok(()),
                Some(id) => Err(Failure::from(anyhow!(
                    "change {id} is not as it was written, or one before it is gone; compare with a backup"
                ))),
            }
        }
    }
}

fn print(all: &[AuditRow]) {
    let mut rows = table(&["id", "time", "who", "did", "noun", "name"]);
    for row in all {
        rows.add_row([
            row.id.to_string(),
            moment(row.at),
            plain(&row.actor),
            row.verb.clone(),
            row.noun.clone(),
            plain(&row.name),
        ]);
    }
    println!("{}", text(&rows));
}
