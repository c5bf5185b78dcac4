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
use kiln_types::{Arch, Digest};
use serde::Serialize;

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
use super::print::{self, Column, How, Listed, col, more};
use super::table::{ago, moment, size};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, KeyDirArg, Output, StoreArg, bakes, check, sign};
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
        #[command(flatten)]
        watch: WatchArg,
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
    let (client, store, keys, watch) = match &args.command {
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
        ImageCommand::List { client, store, keys, watch } => (client, store, keys, watch),
    };
    let server = Client::new(client);
    let how = How::of(client);
    watch::show(&server, *watch, Some("build"), async || {
        let images = match store {
            Some(dir) => {
                let store = Store::open(dir)?;
                let index = store.index()?;
                let keys = keys.of(&StoreArg { store: Some(dir.clone()) }, None)?;
                let refused = view::refused(&store, &index, &keys)?;
                Images { index, refused }
            }
            None => server.get("/api/v1/images").await?,
        };
        if matches!(how.output, Output::Json | Output::Yaml) {
            let text = print::value(how.output, &images)?;
            return Ok(Look::one(&text, text.clone()));
        }
        Look::list(how, &rows(&images))
    })
    .await
}

/// A version in a list.
#[derive(Serialize)]
struct Row<'a> {
    image: &'a str,
    arch: Arch,
    version: Digest,
    channels: Vec<&'a str>,
    size: u64,
    /// In milliseconds since 1970.
    created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
}

impl Listed for Row<'_> {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("image", |it: &Self| it.image.to_owned()),
            col("arch", |it| it.arch.to_string()),
            col("version", |it| it.version.short()),
            more("digest", |it| it.version.to_string()),
            col("channels", |it| it.channels.join(",")),
            col("size", |it| size(it.size)),
            col("built", |it| ago(it.created, now_ms())),
            more("at", |it| moment(it.created)),
            col("", |it| it.refused.map(|why| format!("not served: {why}")).unwrap_or_default()),
        ]
    }

    fn name(&self) -> String {
        self.image.to_owned()
    }
}

fn rows(images: &Images) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (name, arches) in &images.index.images {
        for (arch, entry) in arches {
            for version in &entry.versions {
                let named = entry.channels.iter().filter(|(_, digest)| **digest == version.digest);
                rows.push(Row {
                    image: name,
                    arch: *arch,
                    version: version.digest,
                    channels: named.map(|(channel, _)| channel.as_str()).collect(),
                    size: version.size,
                    created: i64::try_from(version.created).unwrap_or(0) * 1000,
                    refused: images.refused.get(&version.digest).map(String::as_str),
                });
            }
        }
    }
    rows
}
