//! `kiln image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_builder::store::{Index, Store};

use super::client::Client;
use super::table::{ago, size, table, text};
use super::{ClientArgs, Failure, Output, bakes, print_json};
use crate::boots::now_ms;

/// Images of the artifact store
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Build(bakes::BuildNowArgs),
    Builds(bakes::BuildsArgs),
    Log(bakes::LogArgs),
    /// List images and their versions
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        client: ClientArgs,
        /// Read this artifact store instead of asking the running server
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
}

pub(super) async fn run(args: &ImageArgs) -> Result<(), Failure> {
    let (client, store) = match &args.command {
        ImageCommand::Build(args) => return bakes::build_now(args).await,
        ImageCommand::Builds(args) => return bakes::builds(args).await,
        ImageCommand::Log(args) => return bakes::log(args).await,
        ImageCommand::List { client, store } => (client, store),
    };
    let index: Index = match store {
        Some(dir) => Store::open(dir)?.index()?,
        None => Client::new(client).get("/api/v1/images").await?,
    };
    if client.output == Output::Json {
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
