//! `kiln export`: the inventory as files that `kiln apply` reads.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
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
        replace(&path, &write(&wanted, args.output)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        print::say(&path.display().to_string())?;
    }
    Ok(())
}

/// Asks for all that is to be written.
async fn fetch(client: &Client, style: Style) -> Result<Wanted, Failure> {
    let machines: Vec<Machine> = client.get("/api/v1/machines").await?;
    let machines = machines.into_iter().map(|machine| machine.spec).collect();
    let mut all = Wanted { machines, ..Wanted::default() };
    if style != Style::Csv {
        let groups: Vec<GroupRow> = client.get("/api/v1/groups").await?;
        all.groups = groups.into_iter().map(|row| row.group).collect();
        let rules: Vec<RuleRow> = client.get("/api/v1/discovery/rules").await?;
        all.discovery_rules = rules.into_iter().map(|row| row.rule).collect();
    }
    Ok(all)
}

/// Writes a file so that it is there as a whole, or as it was before. It names machines, and is its owner's only.
pub(super) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_belongs_to_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machines.yaml");
        for text in ["a", "b"] {
            replace(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("none/x"), "a").is_err());
    }
}
