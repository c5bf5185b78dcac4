//! `kiln boot`.

use clap::{Args, Subcommand};
use kiln_inventory::{Boot, Outcome};

use super::chosen::Which;
use super::client::{Client, path_part};
use super::print::{self, Column, How, Listed, col, more};
use super::table::{ago, moment, plain, seconds, size, table, text};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, Output};
use crate::api::{BootDetail, BootRow};
use crate::boots::now_ms;
use crate::breakdown::{Breakdown, Step};
use crate::hear::{HeardLine, Source};
use crate::verdict::Verdict;

/// Characters of a reason in a list.
const REASON: usize = 90;
/// Width of the bars of a timeline.
const WIDTH: u128 = 32;

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
    /// those with a pale one went on beside others. `-o json` has the events as well.
    Show {
        /// Number of the boot, as `kiln boot list` shows it
        boot: String,
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
        BootCommand::Show { boot, watch, client } => {
            let path = format!("/api/v1/boots/{}", path_part(&boot));
            let server = Client::new(&client);
            watch::show(&server, watch, Some("boot"), async || {
                let detail: BootDetail = server.get(&path).await?;
                let BootDetail { boot: it, breakdown: steps, verdict, .. } = &detail;
                let text = print::shown(How::of(&client), &boot, &detail, || {
                    breakdown(it, steps, verdict)
                })?;
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

/// Draws where the time went: a row for each step, with its bar. Steps that made nobody wait have a pale one.
fn breakdown(boot: &Boot, breakdown: &Breakdown, verdict: &Verdict) -> String {
    let firmware = boot.firmware.map_or_else(|| "unknown firmware".to_owned(), |f| f.to_string());
    let image = boot.image.as_ref().map_or_else(|| "no image".to_owned(), ToString::to_string);
    let mut head = format!(
        "boot {} of {} ({}, {firmware}): {image}, {} after {}",
        boot.id,
        boot.machine_name,
        boot.mac,
        outcome(boot.outcome, verdict),
        time(breakdown.total)
    );
    if let Some(usual) = breakdown.usual {
        head.push_str(&format!(", usually {}", time(usual)));
    }
    let mut headers = vec!["at", "took", "", "step", "size", "rate", "detail"];
    if breakdown.usual.is_some() {
        headers.insert(2, "usual");
    }
    let mut rows = table(&headers);
    for step in &breakdown.steps {
        let mut row = vec![
            time(step.from),
            time(step.took()),
            bar(step, breakdown.total),
            plain(&step.name),
            step.bytes.map_or_else(String::new, size),
            step.rate.map_or_else(String::new, |rate| format!("{}/s", size(rate))),
            plain(&step.detail),
        ];
        if breakdown.usual.is_some() {
            row.insert(2, step.usual.map_or_else(String::new, time));
        }
        rows.add_row(row);
    }
    let mut out = format!("{head}\n\n{}", text(&rows));
    let longest: Vec<String> = breakdown
        .longest(3)
        .into_iter()
        .map(|step| {
            let percent = step.share * 100 / breakdown.total.max(1);
            format!("{} {} ({percent} %)", plain(&step.name), time(step.share))
        })
        .collect();
    if !longest.is_empty() {
        out.push_str(&format!("\n\nlongest: {}", longest.join(", ")));
    }
    let slower: Vec<String> = breakdown
        .slower()
        .into_iter()
        .filter_map(|step| {
            Some(format!(
                "{} {}, usually {}",
                plain(&step.name),
                time(step.took()),
                time(step.usual?)
            ))
        })
        .collect();
    if !slower.is_empty() {
        out.push_str(&format!("\nslower than usual: {}", slower.join("; ")));
    }
    if breakdown.later > 0 {
        out.push_str(&format!("\nlater: {} more events; `-o json` has them", breakdown.later));
    }
    out.push_str(&format!("\n\nverdict: {}\n{}", verdict.cause, plain(&verdict.reason)));
    if !verdict.advice.is_empty() {
        out.push_str(&format!("\nwhat to do: {}", plain(&verdict.advice)));
    }
    out
}

fn time(millis: u64) -> String {
    seconds(i64::try_from(millis).unwrap_or(i64::MAX))
}

fn bar(step: &Step, total: u64) -> String {
    let cell = |millis: u64| {
        let cell = u128::from(millis.min(total)) * (WIDTH - 1) / u128::from(total.max(1));
        usize::try_from(cell).unwrap_or(0)
    };
    let (from, to) = (cell(step.from), cell(step.to));
    let mark = if step.share > 0 || step.took() == 0 { "█" } else { "░" };
    format!("{}{}", " ".repeat(from), mark.repeat(to.saturating_sub(from) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: u64, to: u64, share: u64) -> Step {
        let name = "service a\u{1b}[2J".to_owned();
        let (detail, bytes, rate) = (String::new(), None, None);
        Step { name, from, to, share, detail, bytes, rate, usual: None }
    }

    #[test]
    fn bars_stay_inside_their_column() {
        let bar = |from, to, total| bar(&step(from, to, 1), total);
        assert_eq!(bar(0, 0, 100), "█");
        assert_eq!(bar(0, 100, 100).chars().count(), 32);
        assert_eq!(bar(5, 500, 100).chars().count(), 32);
        assert_eq!(bar(100, 100, 100).chars().count(), 32);
        assert_eq!(bar(0, 0, 0), "█");
    }

    #[test]
    fn a_step_that_made_nobody_wait_is_pale() {
        assert_eq!(bar(&step(0, 1, 0), 100), "░");
        assert!(bar(&step(0, 100, 0), u64::MAX).starts_with('░'));
    }
}
