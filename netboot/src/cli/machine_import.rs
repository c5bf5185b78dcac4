//! `kiln machine import`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_inventory::Machine;

use super::apply::{APPLY, TRY, report, send};
use super::client::Client;
use super::{ClientArgs, Failure};
use crate::api::Apply;
use crate::files::{Format, gather_text, read_table};

/// Add and change machines as a table says, all of them or none
///
/// The first line names the columns: name, and any of macs, image, address, address6, uuid, serial, asset-tag, arch,
/// maintenance-image, client-id, circuit-id, cmdline, loader, boot, flags and labels.KEY. Several macs or flags have blanks
/// between them. What has no column stays as it is; an empty cell takes away what was there.
#[derive(Debug, Args)]
pub(super) struct MachineImportArgs {
    /// Table with commas, or - for the standard input
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: MachineImportArgs) -> Result<(), Failure> {
    let wrong = |error: anyhow::Error| Failure::new(Failure::CONFIG, error);
    let name = args.csv.display().to_string();
    let table = if args.csv.as_os_str() == "-" {
        gather_text("standard input", Format::Yaml, std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(&args.csv);
        let file = file.map_err(|error| wrong(anyhow!("cannot read {name}: {error}")))?;
        gather_text(&name, Format::Yaml, file)
    };
    let table = table.map_err(|error| wrong(error.into()))?;
    let client = Client::new(&args.client);
    let now: Vec<Machine> = client.get("/api/v1/machines").await?;
    let mut now: Vec<_> = now.into_iter().map(|machine| machine.spec).collect();
    // Secrets are not ours to send back; what is not said of them stays.
    now.iter_mut().for_each(|machine| drop(machine.metadata.remove("secrets")));
    let described = read_table(&table.name, &table.text, &now);
    let described = described.map_err(|error| wrong(anyhow!("{}: {error}", table.name)))?;
    let body = Apply { files: described.wanted.clone(), ..Apply::default() };
    let path = if args.dry_run { TRY } else { APPLY };
    report(&args.client, &send(&client, path, &body, &described).await?)
}
