//! `kiln image`.

mod change;
mod collect;
mod diff;
mod fetch;
mod pull;
mod push;
mod show;
mod update;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_builder::store::Store;

use self::change::{RmArgs, TagArgs};
use self::collect::GcArgs;
use self::diff::DiffArgs;
use self::fetch::FetchArgs;
use self::pull::PullArgs;
use self::push::PushArgs;
use self::show::ShowArgs;
use self::update::UpdateArgs;
use self::verify::VerifyArgs;
use super::client::Client;
use super::table::{ago, size, table, text};
use super::{ClientArgs, Failure, KeyDirArg, Output, bakes, check, print_json, sign};
use crate::api::Images;
use crate::boots::now_ms;
use crate::view;

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
    Sign(sign::SignArgs),
    Export(Box<super::export::ExportArgs>),
    Check(check::CheckArgs),
    /// List images and their versions
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        client: ClientArgs,
        /// Read this artifact store instead of asking the running server
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
        #[command(flatten)]
        keys: KeyDirArg,
    },
    Show(ShowArgs),
    Diff(DiffArgs),
    Update(UpdateArgs),
    Fetch(FetchArgs),
    Verify(VerifyArgs),
    Push(PushArgs),
    Pull(PullArgs),
    Tag(TagArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
    Gc(GcArgs),
}

pub(super) async fn run(args: &ImageArgs) -> Result<(), Failure> {
    let (client, store, keys) = match &args.command {
        ImageCommand::Build(args) => return bakes::build_now(args).await,
        ImageCommand::Builds(args) => return bakes::builds(args).await,
        ImageCommand::Log(args) => return bakes::log(args).await,
        ImageCommand::Sign(args) => return sign::run(args),
        ImageCommand::Export(args) => return super::export::run(args).await,
        ImageCommand::Check(args) => return check::run(args),
        ImageCommand::Show(args) => return show::run(args).await,
        ImageCommand::Diff(args) => return diff::run(args),
        ImageCommand::Update(args) => return update::run(args).await,
        ImageCommand::Fetch(args) => return fetch::run(args).await,
        ImageCommand::Verify(args) => return verify::run(args).await,
        ImageCommand::Push(args) => return push::run(args).await,
        ImageCommand::Pull(args) => return pull::run(args).await,
        ImageCommand::Tag(args) => return change::tag(args),
        ImageCommand::Rm(args) => return change::rm(args),
        ImageCommand::Gc(args) => return collect::run(args).await,
        ImageCommand::List { client, store, keys } => (client, store, keys),
    };
    let Images { index, refused } = match store {
        Some(dir) => {
            let store = Store::open(dir)?;
            let index = store.index()?;
            let refused = view::refused(&store, &index, &keys.beside(dir))?;
            Images { index, refused }
        }
        None => Client::new(client).get("/api/v1/images").await?,
    };
    if client.output == Output::Json {
        return print_json(&Images { index, refused });
    }
    let now = now_ms();
    let mut rows = table(&["image", "arch", "version", "channels", "size", "built", ""]);
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
                    refused.get(&version.digest).map(not_served).unwrap_or_default(),
                ]);
            }
        }
    }
    println!("{}", text(&rows));
    Ok(())
}

fn not_served(reason: &String) -> String {
    format!("not served: {reason}")
}
