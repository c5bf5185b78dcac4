//! `kiln secret`.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use hyper::Method;

use super::client::{Client, path_part};
use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{self, Column, How, Listed, col, more};
use super::table::{moment, plain};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, change};
use crate::api::{Encoding, NewSecret, RotatedKey, SecretRow};
use crate::secrets::LONGEST;

/// Secrets of machines and groups, such as passwords and private keys
///
/// They are kept encrypted, and told to nobody but the system that a machine boots: as files for root under
/// /etc/kiln/secrets, and as `secrets` in its metadata. Nothing shows them again.
#[derive(Debug, Args)]
pub struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Keep a secret; machines get it with their next boot
    Set {
        #[command(flatten)]
        place: PlaceArgs,
        /// File that holds the secret; without one it is read from standard input, which `-` says too
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List secrets by name
    #[command(alias = "ls")]
    List {
        /// Only those of this machine
        #[arg(conflicts_with = "group")]
        machine: Option<String>,
        /// Only those of this group
        #[arg(short, long, value_name = "NAME")]
        group: Option<String>,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a secret
    #[command(alias = "rm")]
    Remove {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Encrypt all secrets with a new key, and throw the old one away
    Rotate {
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Whose secret, and which.
#[derive(Args, Clone, Debug)]
struct PlaceArgs {
    /// The machine, unless it is of a group: then the name of the secret
    #[arg(value_name = "MACHINE")]
    owner: String,
    /// Name of the secret of the machine
    #[arg(value_name = "NAME")]
    secret: Option<String>,
    /// The group that it is of, in the place of a machine
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
}

impl PlaceArgs {
    fn words(&self) -> String {
        match &self.secret {
            Some(secret) => format!("{} {secret}", self.owner),
            None => self.owner.clone(),
        }
    }

    fn path(&self) -> Result<String, Failure> {
        let (kind, owner, name) = match (self.group.as_deref(), &self.secret) {
            (Some(group), None) => ("group", group, &self.owner),
            (None, Some(name)) => ("machine", self.owner.as_str(), name),
            _ => {
                let text = "name a machine and a secret, or a secret and --group";
                return Err(Failure::new(Failure::USAGE, anyhow!(text)));
            }
        };
        Ok(format!("/api/v1/secrets/{kind}/{}/{}", path_part(owner), path_part(name)))
    }
}

pub(super) async fn run(args: SecretArgs) -> Result<(), Failure> {
    match args.command {
        SecretCommand::Set { place, from_file, dry, client } => {
            let path = place.path()?;
            let bytes = read(from_file.as_deref())?;
            let new = match String::from_utf8(bytes) {
                Ok(value) => NewSecret { value, encoding: Encoding::Text },
                Err(error) => {
                    let value = crate::secrets::hex(error.as_bytes());
                    NewSecret { value, encoding: Encoding::Hex }
                }
            };
            let (server, body) = (Client::new(&client), serde_json::to_vec(&new)?);
            if dry.dry_run {
                let at = (&*path, &*place.words());
                return change::preview(&client, &server, Method::PUT, at, body).await;
            }
            server.put_only(&path, body).await
        }
        SecretCommand::List { machine, group, watch, client } => {
            let server = Client::new(&client);
            let chosen = |row: &SecretRow| {
                let wanted = |kind: &str, name: &Option<String>| {
                    name.as_ref().is_some_and(|name| row.kind == kind && row.owner == *name)
                };
                (machine.is_none() && group.is_none())
                    || wanted("machine", &machine)
                    || wanted("group", &group)
            };
            watch::show(&server, watch, Some("secret"), async || {
                let mut rows: Vec<SecretRow> = server.get("/api/v1/secrets").await?;
                rows.retain(chosen);
                Look::list(How::of(&client), &rows)
            })
            .await
        }
        SecretCommand::Remove { place, sure, dry, client } => {
            let (path, name) = (place.path()?, place.words());
            change::remove(&client, (sure, dry), (&path, &name), async |_| {
                Ok(format!("the secret {} will be gone. Go on?", plain(&name)))
            })
            .await
        }
        SecretCommand::Rotate { sure, dry, client } => {
            let server = Client::new(&client);
            if dry.dry_run {
                let at = ("/api/v1/secrets/rotate", "the key of secrets");
                return change::preview(&client, &server, Method::POST, at, Vec::new()).await;
            }
            if !sure.yes {
                let rows: Vec<SecretRow> = server.get("/api/v1/secrets").await?;
                sure.ask(&format!(
                    "{} secrets are encrypted with a new key, and the old one goes: backups with secrets that it \
                     sealed cannot be opened any more, and servers that share the inventory need the new file. Go on?",
                    rows.len()
                ))?;
            }
            let done: RotatedKey = server.post("/api/v1/secrets/rotate", Vec::new()).await?;
            print::one(&client, &done.key, &done, || {
                format!("{} secrets are encrypted with key {} now", done.secrets, done.key)
            })
        }
    }
}

/// Reads a secret. What ends the only line of an input is not part of it, since editors and `echo` put it there.
fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(3);
    let mut bytes = Vec::new();
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let opened = std::fs::File::open(file);
            let read = opened.and_then(|opened| opened.take(most).read_to_end(&mut bytes));
            read.with_context(|| format!("cannot read {}", file.display()))?;
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                eprintln!("type the secret, then the end of input (Ctrl-D)");
            }
            stdin.take(most).read_to_end(&mut bytes).context("cannot read standard input")?;
        }
    }
    Ok(one_line(bytes))
}

fn one_line(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.iter().filter(|byte| **byte == b'\n').count() == 1 && bytes.ends_with(b"\n") {
        bytes.pop();
    }
    bytes
}

impl Listed for SecretRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("of", |it: &Self| it.kind.clone()),
            col("", |it| it.owner.clone()),
            col("name", |it| it.name.clone()),
            col("set", |it| moment(it.changed)),
            col("by", |it| it.changed_by.clone()),
            more("key", |it| it.key.clone()),
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
    fn the_end_of_the_only_line_is_not_part_of_a_secret() {
        for (input, secret) in
            [("a\n", "a"), ("a", "a"), ("a\nb\n", "a\nb\n"), ("", ""), ("\n", "")]
        {
            assert_eq!(one_line(input.into()), secret.as_bytes(), "{input:?}");
        }
    }

    #[test]
    fn a_secret_is_of_a_machine_or_of_a_group() {
        let place = |names: &[&str], group: Option<&str>| {
            let mut names = names.iter().map(|name| (*name).to_owned());
            let (owner, secret) = (names.next().unwrap(), names.next());
            PlaceArgs { owner, secret, group: group.map(str::to_owned) }.path().ok()
        };
        assert_eq!(place(&["n1", "a"], None).as_deref(), Some("/api/v1/secrets/machine/n1/a"));
        assert_eq!(place(&["a/b"], Some("db")).as_deref(), Some("/api/v1/secrets/group/db/a%2Fb"));
        assert!(place(&["a"], None).is_none() && place(&["n1", "a"], Some("db")).is_none());
    }
}
