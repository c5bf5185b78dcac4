//! `kiln image`.

use clap::{Args, Subcommand};
use kiln_builder::store::Store;

use super::table::{ago, size, table, text};
use super::{Failure, Output, StoreArg, print_json};
use crate::boots::now_ms;

/// Images of the artifact store
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// List images and their versions
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        store: StoreArg,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
}

pub(super) fn run(args: &ImageArgs) -> Result<(), Failure> {
    let ImageCommand::List { store, output } = &args.command;
    let index = Store::open(&store.store)?.index()?;
    if *output == Output::Json {
        return print_json(&index);
    }
    let now = now_ms();
    let mut rows = table(&["image", "arch", "version", "channels", "size", "built"]);
    for (name, arches) in &index.images {
        for (arch, entry) in arches {
            for version in &entry.versions {
                let named = entry.channels.iter().filter(|(_, digest)| **digest == version.digest);
                let channels: Vec<_> = named.map(|(channel, _)| channel.as_str()).collect();
                let created = i64::try_from(version.created).unwrap_or(0) * 1000;
                rows.add_row([
                    name.clone(),
                    arch.to_string(),
                    version.digest.short(),
                    channels.join(","),
                    size(version.size),
                    ago(created, now),
                ]);
            }
        }
    }
    println!("{}", text(&rows));
    Ok(())
}
