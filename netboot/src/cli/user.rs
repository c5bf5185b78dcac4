//! `kiln user`.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use hyper::Method;
use kiln_inventory::Selector;

use super::client::{Client, path_part};
use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{Column, Listed, col};
use super::table::{or_all, plain};
use super::watch::ListArgs;
use super::{ClientArgs, Failure, change};
use crate::api::{NewPassword, NewUser, Scope, UserRow};

const USERS: &str = "/api/v1/users";

/// The longest password that is read.
const LONGEST: u64 = 4096;

/// Users, who log in to the API with a password
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user
    Add(AddArgs),
    /// List users
    #[command(alias = "ls")]
    List(ListArgs),
    /// Give a user another password; who is logged in as that user is no more
    Passwd {
        /// Name
        name: String,
        #[command(flatten)]
        password: PasswordArg,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a user
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

#[derive(Debug, Args)]
struct AddArgs {
    /// Name to log in with
    name: String,
    /// What the user may do: admin, read, write, or NOUN:read and NOUN:write; can be given several times
    #[arg(long, required = true, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// Only for machines with these labels, as `rack=r1`
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    #[command(flatten)]
    password: PasswordArg,
    #[command(flatten)]
    dry: DryArg,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where the password is. It is never an argument, which everyone on the host could see.
#[derive(Debug, Args)]
struct PasswordArg {
    /// File with the password; without one, the first line of standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArg {
    fn read(&self) -> Result<String, Failure> {
        let mut text = String::new();
        match &self.password_file {
            Some(path) => {
                let file = std::fs::File::open(path);
                let read = file.and_then(|file| file.take(LONGEST).read_to_string(&mut text));
                read.with_context(|| format!("cannot read the password in {}", path.display()))?;
            }
            None => {
                if std::io::stdin().is_terminal() {
                    eprintln!(
                        "type the password and press Enter; it can be seen while it is typed"
                    );
                    std::io::stdin().read_line(&mut text)?;
                } else {
                    std::io::stdin().take(LONGEST).read_to_string(&mut text)?;
                }
            }
        }
        let password = text.lines().next().unwrap_or_default().to_owned();
        if password.is_empty() {
            return Err(Failure::new(Failure::USAGE, anyhow!("there is no password")));
        }
        Ok(password)
    }
}

pub(super) async fn run(args: UserArgs) -> Result<(), Failure> {
    match args.command {
        UserCommand::Add(AddArgs { name, scope, selector, password, dry, client }) => {
            let new = NewUser { name, password: password.read()?, scopes: scope, selector };
            change::post::<UserRow>(&client, dry, (USERS, &new.name), &new).await
        }
        UserCommand::List(list) => list.show::<UserRow>("user", USERS).await,
        UserCommand::Passwd { name, password, dry, client } => {
            let path = format!("{USERS}/{}/password", path_part(&name));
            let body = serde_json::to_vec(&NewPassword { password: password.read()? })?;
            let server = Client::new(&client);
            if dry.dry_run {
                return change::preview(&client, &server, Method::PUT, (&path, &name), body).await;
            }
            server.put_only(&path, body).await
        }
        UserCommand::Remove { name, sure, dry, client } => {
            let path = format!("{USERS}/{}", path_part(&name));
            change::remove(&client, (sure, dry), (&path, &name), async |_| {
                Ok(format!("the user {} will be gone, and logged out. Go on?", plain(&name)))
            })
            .await
        }
    }
}

impl Listed for UserRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.name.clone()),
            col("scopes", |it| {
                it.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }),
            col("machines", |it| or_all(it.selector.as_ref())),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
