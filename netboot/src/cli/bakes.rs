//! `kiln image build`, `builds` and `log`: what the server bakes by itself.

use clap::Args;
use kiln_types::Arch;

use super::client::{Client, path_part};
use super::table::{ago, table, text};
use super::{ClientArgs, Failure, Output, print_json};
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
    if args.client.output == Output::Json {
        return print_json(&state);
    }
    println!(
        "{} will be built; `kiln image log {} --follow` shows how it goes",
        args.image, args.image
    );
    Ok(())
}

pub(super) async fn builds(args: &BuildsArgs) -> Result<(), Failure> {
    let states: Vec<ImageState> = Client::new(&args.client).get("/api/v1/builds").await?;
    if args.client.output == Output::Json {
        return print_json(&states);
    }
    let now = now_ms();
    let mut rows = table(&["image", "arch", "state", "version", "built", ""]);
    for state in &states {
        for (arch, it) in &state.arches {
            rows.add_row([
                state.image.clone(),
                arch.to_string(),
                word(it.status).to_owned(),
                it.version.map(|version| version.short()).unwrap_or_default(),
                it.built_at.map(|at| ago(at, now)).unwrap_or_default(),
                it.progress.clone().or_else(|| it.error.clone()).unwrap_or_default(),
            ]);
        }
    }
    println!("{}", text(&rows));
    Ok(())
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
            println!("{}", line.text);
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
