//! `kiln webhook`.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hyper::Method;
use kiln_inventory::Selector;

use super::client::{Client, path_part};
use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{self, Column, Listed, col, more};
use super::table::{moment, or_all, or_dash, plain};
use super::watch::ListArgs;
use super::{ClientArgs, Failure, change};
use crate::api::{CreatedWebhook, NewWebhook, WebhookRow};
use crate::webhook::Delivery;

const WEBHOOKS: &str = "/api/v1/webhooks";

/// Webhooks, by which other programs are told what happens
#[derive(Debug, Args)]
pub struct WebhookArgs {
    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// Add one, and print this once the secret that its messages are signed with
    Add {
        /// Name
        name: String,
        /// Where messages go, as https://chat.example/hooks/kiln
        url: String,
        /// Which events, as machine, boot, or boot:failed; can be given several times; without it, all
        #[arg(short, long, value_delimiter = ',', value_name = "NOUN[:WHAT]")]
        event: Vec<String>,
        /// Only of machines with these labels, as `rack=r1`
        #[arg(short = 'l', long)]
        selector: Option<Selector>,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List webhooks, and whether messages arrive
    #[command(alias = "ls")]
    List(ListArgs),
    /// Show one webhook
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Send a message now; where it arrives, one that was disabled goes on
    Test {
        /// Name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the last attempts to deliver
    Log {
        /// Name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove one
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

pub(super) async fn run(args: WebhookArgs) -> Result<(), Failure> {
    let path = |name: &str, rest: &str| format!("{WEBHOOKS}/{}{rest}", path_part(name));
    match args.command {
        WebhookCommand::Add { name, url, event, selector, dry, client } => {
            let new = NewWebhook { name, url, events: event, selector };
            let (server, body) = (Client::new(&client), serde_json::to_vec(&new)?);
            if dry.dry_run {
                let at = (WEBHOOKS, &*new.name);
                return change::preview(&client, &server, Method::POST, at, body).await;
            }
            let made: CreatedWebhook = server.post(WEBHOOKS, body).await?;
            if client.output.is_table() {
                eprintln!(
                    "nobody can show this secret again; give it to the program that checks signatures"
                );
            }
            print::one(&client, &made.secret, &made, || made.secret.clone())
        }
        WebhookCommand::List(list) => list.show::<WebhookRow>("webhook", WEBHOOKS).await,
        WebhookCommand::Show { name, list } => {
            list.show_row::<WebhookRow>("webhook", &path(&name, "")).await
        }
        WebhookCommand::Test { name, client } => {
            let server = Client::new(&client);
            let sent: Delivery = server.post(&path(&name, "/test"), Vec::new()).await?;
            if let Some(error) = &sent.error {
                return Err(anyhow!("it did not arrive: {}", plain(error)).into());
            }
            print::one(&client, &sent.event, &sent, || {
                format!("it arrived after {} ms", sent.millis)
            })
        }
        WebhookCommand::Log { name, client } => {
            let rows: Vec<Delivery> = Client::new(&client).get(&path(&name, "/log")).await?;
            print::list(&client, &rows)
        }
        WebhookCommand::Remove { name, sure, dry, client } => {
            change::remove(&client, (sure, dry), (&path(&name, ""), &name), async |_| {
                Ok(format!("the webhook {} will be told nothing more. Go on?", plain(&name)))
            })
            .await
        }
    }
}

impl Listed for WebhookRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.name.clone()),
            col("url", |it| it.url.clone()),
            col("events", |it| match it.events.as_slice() {
                [] => "all".to_owned(),
                some => some.join(","),
            }),
            col("machines", |it| or_all(it.selector.as_ref())),
            col("state", |it| match (&it.disabled, it.failing_since) {
                (Some(why), _) => format!("disabled: {why}"),
                (None, Some(since)) => format!("failing since {}", moment(since)),
                (None, None) => "well".to_owned(),
            }),
            more("position", |it| it.position.clone()),
            more("added by", |it| it.created_by.clone()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Listed for Delivery {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("at", |it: &Self| moment(it.at)),
            col("event", |it| it.event.clone()),
            col("took", |it| format!("{} ms", it.millis)),
            col("answer", |it| or_dash(it.status.as_ref())),
            col("error", |it| it.error.clone().unwrap_or_default()),
        ]
    }

    fn name(&self) -> String {
        self.event.clone()
    }
}
