//! `kiln image build`, `builds` and `log`: what the server bakes by itself.

use clap::Args;
use kiln_types::Arch;
use serde::Serialize;

use super::client::{Client, path_part};
use super::print::{self, Column, How, Listed, col, more};
use super::table::{ago, moment, plain};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, Output};
use crate::api::BuildLog;
use crate::bake::{ArchState, ImageState, Status};
use crate::boots::now_ms;

/// How long one request waits for a line of the log, in seconds.
const WAIT: u32 = 20;

/// Ask the server to build an image of its folder now
#[derive(Debug, Args)]
pub struct BuildNowArgs {
    /// Name of the image
    image: String,
    /// Only for this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Show the log until the build has ended
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Show the images of the server's folder and how their builds went
#[derive(Debug, Args)]
pub struct BuildsArgs {
    #[command(flatten)]
    watch: WatchArg,
    #[command(flatten)]
    client: ClientArgs,
}

/// Show what the builds of an image said
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Name of the image
    image: String,
    /// Go on until the running build has ended
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn build_now(args: &BuildNowArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client);
    let path = format!("/api/v1/builds/{}", path_part(&args.image));
    let before: ImageState = client.get(&path).await?;
    let query = args.arch.map(|arch| format!("?arch={arch}")).unwrap_or_default();
    let state: ImageState = client.post(&format!("{path}{query}"), Vec::new()).await?;
    if args.follow {
        return follow(&client, &args.image, before.log, true).await;
    }
    print::one(&args.client, &args.image, &state, || {
        let image = &args.image;
        format!("{image} will be built; `kiln image log {image} --follow` shows how it goes")
    })
}

/// How the builds of an image for an architecture went.
#[derive(Serialize)]
struct Row {
    image: String,
    arch: Arch,
    #[serde(flatten)]
    state: ArchState,
}

impl Listed for Row {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("image", |it: &Self| it.image.clone()),
            col("arch", |it| it.arch.to_string()),
            col("state", |it| word(it.state.status).to_owned()),
            col("version", |it| it.state.version.map(|it| it.short()).unwrap_or_default()),
            col("built", |it| it.state.built_at.map(|at| ago(at, now_ms())).unwrap_or_default()),
            more("at", |it| it.state.built_at.map(moment).unwrap_or_default()),
            col("", |it| {
                let ArchState { progress, error, .. } = &it.state;
                progress.as_ref().or(error.as_ref()).cloned().unwrap_or_default()
            }),
        ]
    }

    fn name(&self) -> String {
        self.image.clone()
    }
}

pub(super) async fn builds(args: &BuildsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client);
    let how = How::of(&args.client);
    watch::show(&client, args.watch, Some("build"), async || {
        let states: Vec<ImageState> = client.all("/api/v1/builds").await?;
        if matches!(how.output, Output::Json | Output::Yaml) {
            let text = print::value(how.output, &states)?;
            return Ok(Look::one(&text, text.clone()));
        }
        let rows = states.into_iter().flat_map(|state| {
            let row = move |(arch, it)| Row { image: state.image.clone(), arch, state: it };
            state.arches.into_iter().map(row)
        });
        Look::list(how, &rows.collect::<Vec<_>>())
    })
    .await
}

pub(super) async fn log(args: &LogArgs) -> Result<(), Failure> {
    follow(&Client::new(&args.client), &args.image, 0, args.follow).await
}

/// Prints the log after a line; to the end of the running build, if that is wanted.
async fn follow(client: &Client, image: &str, mut after: u64, on: bool) -> Result<(), Failure> {
    let mut wait = 0;
    loop {
        let path = format!("/api/v1/builds/{}/log?after={after}&wait={wait}", path_part(image));
        let log: BuildLog = client.get(&path).await?;
        for line in &log.lines {
            print::say(&plain(&line.text))?;
        }
        after = log.last;
        wait = WAIT;
        let busy = |it: &ArchState| matches!(it.status, Status::Waiting | Status::Building);
        if !on || (log.lines.is_empty() && !log.state.arches.values().any(busy)) {
            return ended(&log.state, on);
        }
        if !log.state.arches.values().any(busy) {
            // The last lines may still be on their way.
            wait = 1;
        }
    }
}

fn ended(state: &ImageState, on: bool) -> Result<(), Failure> {
    let failed = state.arches.values().any(|it| it.status == Status::Failed);
    match on && failed {
        true => Err(anyhow::anyhow!(
            "the build of {} failed; what was built before is served",
            state.image
        )
        .into()),
        false => Ok(()),
    }
}

/// Says how far a build is, in a word.
pub(super) const fn word(status: Status) -> &'static str {
    match status {
        Status::Idle => "not built",
        Status::Waiting => "waiting",
        Status::Building => "building",
        Status::Built => "built",
        Status::Failed => "failed",
    }
}
