//! `kiln boot`.

use clap::{Args, Subcommand};
use kiln_inventory::Outcome;

use super::boot_timeline::timeline;
use super::chosen::Which;
use super::client::{Client, path_part};
use super::print::{self, Column, How, Listed, col, more};
use super::table::{ago, moment, plain, seconds};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, Output};
use crate::api::{BootDetail, BootRow};
use crate::boots::now_ms;
use crate::hear::{HeardLine, Source};
use crate::verdict::Verdict;

/// Characters of a reason in a list.
const REASON: usize = 90;

/// What machines booted, and how it went
#[derive(Debug, Args)]
pub struct BootArgs {
    #[command(subcommand)]
    command: BootCommand,
}

#[derive(Debug, Subcommand)]
enum BootCommand {
    /// List boots, newest first
    #[command(alias = "ls")]
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show where the time of one boot went
    ///
    /// Each row is a step, from the first packet of the firmware to `healthy`. Steps with a full bar add up to the whole;
    /// those with a pale one went on beside others. Rows without a bar came after the end: services that failed or were
    /// started anew since. `-o json` has the events as well.
    Show {
        /// Number of the boot, as `kiln boot list` shows it
        boot: String,
        /// Show among them what was heard of it, each line at its time: what `kiln boot log` has
        #[arg(long)]
        log: bool,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what was heard of a boot: syslog, netconsole, and the kernel's log of one that failed
    ///
    /// A machine that says that something failed sends the last 64 KiB of its kernel's log, once per boot. It is kept for
    /// the last 5 such boots of each machine. Syslog and netconsole are heard where the settings say so.
    Log {
        /// Number of the boot, as `kiln boot list` shows it
        boot: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) async fn run(args: BootArgs) -> Result<(), Failure> {
    match args.command {
        BootCommand::List { limit, which, watch, client } => {
            let path = format!("/api/v1/boots?limit={limit}{}", which.query());
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            let server = Client::new(&client);
            watch::show(&server, watch, Some("boot"), async || {
                let boots: Vec<BootRow> = server.first(&path, most).await?;
                Look::list(How::of(&client), &boots)
            })
            .await
        }
        BootCommand::Show { boot, log, watch, client } => {
            let path = format!("/api/v1/boots/{}?log={log}", path_part(&boot));
            let server = Client::new(&client);
            watch::show(&server, watch, Some("boot"), async || {
                let detail: BootDetail = server.get(&path).await?;
                let text = print::shown(How::of(&client), &boot, &detail, || timeline(&detail))?;
                Ok(Look::one(&text, text.clone()))
            })
            .await
        }
        BootCommand::Log { boot, client } => {
            let path = format!("/api/v1/boots/{}/log", path_part(&boot));
            let lines: Vec<HeardLine> = Client::new(&client).get(&path).await?;
            if client.output == Output::Jsonl {
                return lines
                    .iter()
                    .try_for_each(|it| print::say(&print::value(Output::Jsonl, it)?));
            }
            print::one(&client, &boot, &lines, || {
                lines.iter().map(|line| said(line, &lines)).collect::<Vec<_>>().join("\n")
            })
        }
    }
}

pub(super) fn outcome(outcome: Outcome, verdict: &Verdict) -> &'static str {
    match outcome {
        Outcome::Booting if verdict.is_stuck(outcome) => "stuck",
        Outcome::Booting => "booting",
        Outcome::Healthy => "healthy",
        Outcome::Failed => "failed",
        Outcome::Abandoned => "abandoned",
    }
}

/// Writes a line of a log. Those of the kernel have their own times, which are enough where they are alone.
fn said(line: &HeardLine, all: &[HeardLine]) -> String {
    let text = plain(&line.text);
    if all.iter().all(|line| line.source == Source::Kernel) {
        return text;
    }
    let at = jiff::Timestamp::from_millisecond(line.at).unwrap_or_default();
    format!("{at:.3} {:<10} {text}", line.source.as_str())
}

/// Returns the reason in the width of a column.
fn reason(verdict: &Verdict) -> String {
    let text = plain(&verdict.reason);
    if text.chars().count() <= REASON {
        return text;
    }
    let short: String = text.chars().take(REASON - 1).collect();
    format!("{short}…")
}

impl Listed for BootRow {
    fn columns() -> Vec<Column<Self>> {
        fn dash() -> String {
            "-".to_owned()
        }
        vec![
            col("boot", |it: &Self| it.boot.id.to_string()),
            col("machine", |it| it.boot.machine_name.clone()),
            more("mac", |it| it.boot.mac.to_string()),
            more("address", |it| it.boot.address.map_or_else(dash, |a| a.to_string())),
            col("firmware", |it| it.boot.firmware.map_or_else(dash, |f| f.to_string())),
            col("image", |it| it.boot.image.as_ref().map_or_else(dash, ToString::to_string)),
            col("version", |it| it.boot.version.map_or_else(dash, |v| v.short())),
            more("arch", |it| it.boot.arch.map_or_else(dash, |a| a.to_string())),
            col("outcome", |it| outcome(it.boot.outcome, &it.verdict).to_owned()),
            col("took", |it| {
                it.boot.ended.map_or_else(dash, |ended| seconds(ended - it.boot.started))
            }),
            col("started", |it| ago(it.boot.started, now_ms())),
            more("at", |it| moment(it.boot.started)),
            more("verdict", |it| it.verdict.cause.to_string()),
            col("reason", |it| reason(&it.verdict)),
        ]
    }

    fn name(&self) -> String {
        self.boot.id.to_string()
    }
}
