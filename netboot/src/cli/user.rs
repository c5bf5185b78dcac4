//! `kiln user`.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use kiln_inventory::Selector;

use super::client::{Client, path_part};
use super::table::{table, text};
use super::{ClientArgs, Failure, Output, print_json};
use crate::api::{NewPassword, NewUser, Scope, UserRow};

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
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Give a user another password; who is logged in as that user is no more
    Passwd {
        /// Name
        name: String,
        #[command(flatten)]
        password: PasswordArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a user
    #[command(alias = "rm")]
    Remove {
        /// Name
        name: String,
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
        UserCommand::Add(AddArgs { name, scope, selector, password, client }) => {
            let new = NewUser { name, password: password.read()?, scopes: scope, selector };
            let server = Client::new(&client);
            let user: UserRow = server.post("/api/v1/users", serde_json::to_vec(&new)?).await?;
            print(client.output, &[user])
        }
        UserCommand::List { client } => {
            let users: Vec<UserRow> = Client::new(&client).get("/api/v1/users").await?;
            print(client.output, &users)
        }
        UserCommand::Passwd { name, password, client } => {
            let path = format!("/api/v1/users/{}/password", path_part(&name));
            let body = serde_json::to_vec(&NewPassword { password: password.read()? })?;
            Client::new(&client).put_only(&path, body).await
        }
        UserCommand::Remove { name, client } => {
            let path = format!("/api/v1/users/{}", path_part(&name));
            Client::new(&client).delete(&path).await
        }
    }
}

fn print(output: Output, users: &[UserRow]) -> Result<(), Failure> {
    if output == Output::Json {
        return print_json(&users);
    }
    let mut rows = table(&["name", "scopes", "machines"]);
    for user in users {
        let scopes: Vec<String> = user.scopes.iter().map(ToString::to_string).collect();
        let machines = user.selector.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string);
        rows.add_row([user.name.clone(), scopes.join(","), machines]);
    }
    println!("{}", text(&rows));
    Ok(())
}
