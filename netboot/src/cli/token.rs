//! `kiln token`.

use clap::{Args, Subcommand};
use hyper::Method;
use kiln_inventory::Selector;

use super::client::{Client, path_part};
use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{self, Column, Listed, col};
use super::table::{moment, or_all, plain};
use super::watch::ListArgs;
use super::{ClientArgs, Failure, change};
use crate::api::{CreatedToken, NewToken, Scope, TokenRow};
use crate::settings::parse_seconds;

const TOKENS: &str = "/api/v1/tokens";

/// The longest time that a token with an end is good for, in seconds.
const LONGEST: u64 = 3650 * 24 * 3600;

/// Tokens, with which programs and other computers may use the API
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, and print it this once
    Create(CreateArgs),
    /// List tokens, and when they were used last
    #[command(alias = "ls")]
    List(ListArgs),
    /// Let a token be good for nothing, from now on
    #[command(alias = "rm")]
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name, for lists and for the log of changes
    name: String,
    /// What it allows: admin, read, write, or NOUN:read and NOUN:write; can be given several times
    #[arg(long, required = true, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// Only for machines with these labels, as `rack=r1`
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    /// How long it is good for, as 12h or 30d, or `never` where it has no end
    #[arg(long, default_value = "90d", value_parser = lifetime, value_name = "TIME")]
    expires: u64,
    #[command(flatten)]
    dry: DryArg,
    #[command(flatten)]
    client: ClientArgs,
}

fn lifetime(text: &str) -> Result<u64, String> {
    if text == "never" {
        return Ok(0);
    }
    match parse_seconds(text) {
        Some(time) if (1..=LONGEST).contains(&time) => Ok(time),
        Some(_) => Err(format!("`{text}` is not between 1s and 3650d")),
        None => Err(format!("`{text}` is not a time; write it as 30m, 12h or 30d, or `never`")),
    }
}

pub(super) async fn run(args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        TokenCommand::Create(CreateArgs { name, scope, selector, expires, dry, client }) => {
            let new = NewToken { name, scopes: scope, selector, lifetime: Some(expires) };
            let (server, body) = (Client::new(&client), serde_json::to_vec(&new)?);
            if dry.dry_run {
                let at = (TOKENS, &*new.name);
                return change::preview(&client, &server, Method::POST, at, body).await;
            }
            let made: CreatedToken = server.post(TOKENS, body).await?;
            if client.output.is_table() {
                eprintln!(
                    "nobody can show this token again; keep it in a file that only you can read"
                );
            }
            // Also with `-o name`: it would be lost.
            print::one(&client, &made.token, &made, || made.token.clone())
        }
        TokenCommand::List(list) => list.show::<TokenRow>("token", TOKENS).await,
        TokenCommand::Revoke { name, sure, dry, client } => {
            let path = format!("{TOKENS}/{}", path_part(&name));
            change::remove(&client, (sure, dry), (&path, &name), async |_| {
                Ok(format!("the token {} will be good for nothing. Go on?", plain(&name)))
            })
            .await
        }
    }
}

impl Listed for TokenRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.name.clone()),
            col("scopes", |it| {
                let scopes: Vec<String> = it.scopes.iter().map(ToString::to_string).collect();
                let session = it.user.as_ref().map(|user| format!("session of {user}"));
                session.unwrap_or_else(|| scopes.join(","))
            }),
            col("machines", |it| or_all(it.selector.as_ref())),
            col("expires", |it| it.expires.map_or_else(|| "never".to_owned(), moment)),
            col("last used", |it| it.last_used.map_or_else(|| "-".to_owned(), moment)),
            col("made by", |it| it.created_by.clone()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_after_a_time_or_never() {
        assert_eq!(lifetime("30d"), Ok(30 * 24 * 3600));
        assert_eq!(lifetime("never"), Ok(0));
        assert_eq!(lifetime("90d"), Ok(90 * 24 * 3600));
        assert!(lifetime("0s").is_err() && lifetime("99999999999999999999d").is_err());
        assert!(lifetime("4000d").is_err() && lifetime("soon").is_err());
    }
}
