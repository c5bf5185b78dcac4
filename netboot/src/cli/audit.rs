//! `kiln audit`.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::client::{Client, path_part};
use super::print::{self, Column, How, Listed, col, more};
use super::table::moment;
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, told};
use crate::api::{AuditRow, Verification};

/// The most characters that a line has of what was done.
const LONGEST: usize = 80;

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
        /// Only of this kind of noun: machine, order, lease …; `access` are those who were refused
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
        watch: WatchArg,
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
        AuditCommand::List { noun, name, actor, after, watch, client } => {
            let mut path = format!("/api/v1/audit?after={after}");
            for (key, value) in [("noun", noun), ("name", name), ("actor", actor)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{key}={}", path_part(&value)));
                }
            }
            let server = Client::new(&client);
            // Whatever happens may be in it.
            watch::show(&server, watch, Some(""), async || {
                let rows: Vec<AuditRow> = server.all(&path).await?;
                Look::list(How::of(&client), &rows)
            })
            .await
        }
        AuditCommand::Verify { client } => {
            let found: Verification = Client::new(&client).get("/api/v1/audit/verify").await?;
            print::one(&client, "audit", &found, || {
                let last = found.last.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
                format!("{} changes as they were written; the newest has {last}", found.changes)
            })?;
            match found.broken {
                None => Ok(()),
                Some(id) => Err(Failure::from(anyhow!(
                    "change {id} is not as it was written, or one before it is gone; compare with a backup"
                ))),
            }
        }
    }
}

impl Listed for AuditRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("id", |it: &Self| it.id.to_string()),
            col("time", |it| moment(it.at)),
            col("who", |it| it.actor.clone()),
            col("did", |it| it.verb.clone()),
            col("noun", |it| it.noun.clone()),
            col("name", |it| it.name.clone()),
            col("what", |it| {
                let what = (it.before.as_ref(), it.after.as_ref());
                told::words((&it.noun, &it.verb), what).chars().take(LONGEST).collect()
            }),
            more("hash", |it| it.hash.to_string()),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}
