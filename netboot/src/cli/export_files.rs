//! `kiln export`: the inventory as files that `kiln apply` reads.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_builder::durable;
use kiln_inventory::{Machine, Wanted};

use super::client::Client;
use super::remote::Remote;
use super::{Failure, print};
use crate::api::{GroupRow, RuleRow};
use crate::files::{Style, write};
use crate::settings::DEFAULT_SOCKET;

/// Write the inventory as files that `kiln apply` reads
///
/// Machines, groups and discovery rules, without secrets. With --dir, there is a file for each of them.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to write
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Style,
    /// Write files into this directory instead of the standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which server to talk to.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// Socket of the running server
    #[arg(long, env = "KILN_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Another server instead, as `https://kiln.example:8444`
    #[arg(long, env = "KILN_SERVER", value_name = "URL")]
    server: Option<String>,
    /// File with the token for that server
    #[arg(long, env = "KILN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate authority of that server (`kiln ca export`); without one, those of this system
    #[arg(long, env = "KILN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ServerArgs {
    pub(super) fn client(&self) -> Client {
        match &self.server {
            None => Client::Here(self.socket.clone()),
            Some(url) => {
                let (token, ca) = (self.token_file.as_deref(), self.ca.as_deref());
                Client::There(Remote::new(url, token, ca))
            }
        }
    }
}

pub(super) async fn run(args: ExportArgs) -> Result<(), Failure> {
    let client = args.server.client();
    let all = fetch(&client, args.output).await?;
    let Some(dir) = &args.dir else {
        return print::say(write(&all, args.output)?.trim_end());
    };
    if matches!(args.output, Style::Json | Style::Csv) {
        let error = anyhow!("`kiln apply` reads YAML and TOML in a directory; use one of them");
        return Err(Failure::new(Failure::USAGE, error));
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let Wanted { machines, groups, discovery_rules } = all;
    for (name, wanted) in [
        ("machines", Wanted { machines, ..Wanted::default() }),
        ("groups", Wanted { groups, ..Wanted::default() }),
        ("discovery-rules", Wanted { discovery_rules, ..Wanted::default() }),
    ] {
        let path = dir.join(format!("{name}.{}", args.output.ending()));
        // It names machines, and is its owner's only.
        durable::replace(&path, write(&wanted, args.output)?.as_bytes(), 0o600)
            .with_context(|| format!("cannot write {}", path.display()))?;
        print::say(&path.display().to_string())?;
    }
    Ok(())
}

/// Asks for all that is to be written.
async fn fetch(client: &Client, style: Style) -> Result<Wanted, Failure> {
    let machines: Vec<Machine> = client.all("/api/v1/machines").await?;
    let machines = machines.into_iter().map(|machine| machine.spec).collect();
    let mut all = Wanted { machines, ..Wanted::default() };
    if style != Style::Csv {
        let groups: Vec<GroupRow> = client.all("/api/v1/groups").await?;
        all.groups = groups.into_iter().map(|row| row.group).collect();
        let rules: Vec<RuleRow> = client.all("/api/v1/discovery/rules").await?;
        all.discovery_rules = rules.into_iter().map(|row| row.rule).collect();
    }
    Ok(all)
}
