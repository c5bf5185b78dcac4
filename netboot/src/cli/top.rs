//! `kiln top`.

use std::collections::BTreeSet;

use clap::Args;
use kiln_inventory::{Boot, BootEvent, BootId, Outcome, Phase};
use serde::{Deserialize, Serialize};

use super::boot::outcome;
use super::chosen::Which;
use super::client::Client;
use super::print::{self, Column, How, Listed, col, more};
use super::table::size;
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure};
use crate::api::BootDetail;
use crate::boots::now_ms;

/// Cells of a bar.
const CELLS: u64 = 12;
/// Boots that ended so short a time ago are still shown.
const LINGER_MS: i64 = 20_000;
/// Rows where there is no terminal.
const ROWS: usize = 200;

/// Watch the machines that boot now
///
/// One row for each boot under way: how far it is, how long it has taken, what was sent to it and what was heard of it
/// last. The bar compares with earlier boots of the machine where there are any. On a terminal it is drawn anew as
/// things happen, until Ctrl-C; elsewhere it is printed once.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Print it once
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: TopArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client);
    let how = How::of(&args.client);
    let screen = print::screen_size();
    let watch = WatchArg { watch: !args.once && screen.is_some() && how.output.is_table() };
    let path = format!(
        "/api/v1/boots?outcome=booting&verdict=false&fields=id&limit=1000{}",
        args.which.query()
    );
    let mut shown: BTreeSet<BootId> = BTreeSet::new();
    watch::show(&client, watch, Some("boot"), async || {
        let booting: Vec<Numbered> = client.all(&path).await?;
        let all = booting.len();
        // The oldest first, so that rows stay where they are; what has ended since the last look stays for a moment.
        shown.extend(booting.iter().map(|boot| boot.id));
        let most = print::screen_size().map_or(ROWS, |(_, rows)| rows.saturating_sub(3));
        let mut rows = Vec::new();
        for boot in std::mem::take(&mut shown) {
            if rows.len() == most {
                break;
            }
            if let Some(row) = row(&client, boot, now_ms()).await? {
                shown.insert(boot);
                rows.push(row);
            }
        }
        let look = Look::list(how, &rows)?;
        Ok(if how.output.is_table() { look.below(&title(all)) } else { look })
    })
    .await
}

/// What a list says of a boot that is asked for by itself.
#[derive(Debug, Deserialize)]
struct Numbered {
    id: BootId,
}

fn is_shown(boot: &Boot, now: i64) -> bool {
    boot.outcome == Outcome::Booting || boot.ended.is_some_and(|ended| now - ended < LINGER_MS)
}

fn title(booting: usize) -> String {
    match booting {
        0 => "no machine boots now".to_owned(),
        1 => "one machine boots".to_owned(),
        many => format!("{many} machines boot"),
    }
}

/// A boot under way.
#[derive(Debug, Serialize)]
struct Row {
    machine: String,
    boot: i64,
    image: Option<String>,
    outcome: &'static str,
    phase: Phase,
    /// Of 100.
    progress: u64,
    /// Milliseconds since the first packet.
    took: i64,
    /// Bytes that were sent to it.
    bytes: u64,
    /// Bytes a second of the last transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    /// What was heard of it last.
    words: String,
}

/// Asks for what is known of a boot; nothing where it is gone or over meanwhile.
async fn row(client: &Client, boot: BootId, now: i64) -> Result<Option<Row>, Failure> {
    match client.get::<BootDetail>(&format!("/api/v1/boots/{boot}?log=true")).await {
        Ok(detail) => Ok(is_shown(&detail.boot, now).then(|| Row::new(&detail, now))),
        Err(failure) if failure.code() == Failure::NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl Row {
    fn new(detail: &BootDetail, now: i64) -> Self {
        let BootDetail { boot, events, breakdown, verdict, heard } = detail;
        let took = boot.ended.unwrap_or(now).saturating_sub(boot.started).max(0);
        // Neither what went wrong nor what is told twice is a step forward.
        let steps = events.iter().map(|event| event.phase);
        let phase = steps.filter(|phase| share(*phase) > 0).max_by_key(|phase| share(*phase));
        let phase = phase.unwrap_or(Phase::Dhcp);
        let sent = |event: &&BootEvent| event.bytes.is_some() && event.phase < Phase::Init;
        let rate = events.iter().rev().filter(sent).find_map(|event| {
            let millis = event.millis.filter(|millis| *millis > 0)?;
            event.bytes?.checked_mul(1000).map(|bytes| bytes / millis)
        });
        let last = events.last();
        let words = match (heard.last(), last) {
            (Some(line), Some(event)) if line.at > event.at => line.text.clone(),
            (_, Some(event)) => format!("{} {}", event.phase, event.detail),
            (Some(line), None) => line.text.clone(),
            (None, None) => String::new(),
        };
        Self {
            machine: boot.machine_name.clone(),
            boot: boot.id.0,
            image: boot.image.as_ref().map(ToString::to_string),
            outcome: outcome(boot.outcome, verdict),
            phase,
            progress: progress(boot.outcome, phase, took, breakdown.usual),
            took,
            bytes: events.iter().filter(sent).filter_map(|event| event.bytes).sum(),
            rate,
            words,
        }
    }
}

/// How much of a boot is behind it in a phase, of 100. What is no step forward has none.
const fn share(phase: Phase) -> u64 {
    match phase {
        Phase::Absent | Phase::Broken | Phase::Warning | Phase::Other | Phase::Failed => 0,
        Phase::Dhcp => 5,
        Phase::Loader => 12,
        Phase::Script | Phase::Kexec => 18,
        Phase::Kernel => 30,
        Phase::Segment => 45,
        Phase::Init => 60,
        Phase::Modules => 64,
        Phase::Link => 68,
        Phase::Network => 72,
        Phase::Volumes => 76,
        Phase::Start | Phase::Onboot => 82,
        Phase::Waiting | Phase::Service | Phase::Restart => 90,
        Phase::Healthy => 100,
    }
}

/// Returns how far a boot is, of 100: by the time that boots of this machine usually take, or else by its phase.
fn progress(outcome: Outcome, phase: Phase, took: i64, usual: Option<u64>) -> u64 {
    let took = u64::try_from(took).unwrap_or(0);
    match (outcome, usual) {
        (Outcome::Healthy, _) => 100,
        (Outcome::Booting, Some(usual)) if usual > 0 => {
            (took.saturating_mul(100) / usual).clamp(share(phase) / 2, 99)
        }
        _ => share(phase).min(99),
    }
}

fn bar(progress: u64) -> String {
    let full = usize::try_from(progress.min(100) * CELLS / 100).unwrap_or(0);
    let rest = usize::try_from(CELLS).unwrap_or(0).saturating_sub(full);
    format!("{}{}", "█".repeat(full), "░".repeat(rest))
}

impl Listed for Row {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.machine.clone()),
            more("boot", |it| it.boot.to_string()),
            col("image", |it| it.image.clone().unwrap_or_else(|| "-".to_owned())),
            col("phase", |it| match it.outcome {
                "booting" => it.phase.to_string(),
                ended => ended.to_owned(),
            }),
            col("progress", |it| bar(it.progress)),
            col("time", |it| format!("{}.{} s", it.took / 1000, it.took % 1000 / 100)),
            col("sent", |it| size(it.bytes)),
            col("rate", |it| it.rate.map(|rate| format!("{}/s", size(rate))).unwrap_or_default()),
            col("last words", |it| it.words.clone()),
        ]
    }

    fn name(&self) -> String {
        self.machine.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Output;
    use super::*;

    fn detail(outcome: &str) -> BootDetail {
        serde_json::from_value(json!({
            "id": 7, "machine": 1, "machine_name": "n1", "mac": "52:54:00:00:00:01",
            "image": "web", "started": 1_000, "outcome": outcome,
            "verdict": {"cause": "under-way", "reason": ""},
            "firmware": null, "version": null, "arch": null, "address": null, "ended": null,
            "events": [
                {"at": 1_000, "phase": "dhcp"},
                {"at": 2_000, "phase": "kernel", "bytes": 4_000_000, "millis": 500},
                {"at": 3_000, "phase": "warning", "detail": "\u{1b}[2J\u{1b}[Hno memory\u{9b}"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn a_row_says_how_far_a_boot_is_and_moves_no_cursor() {
        let row = Row::new(&detail("booting"), 6_500);
        assert_eq!((row.phase, row.progress, row.took), (Phase::Kernel, 30, 5_500));
        assert_eq!((row.bytes, row.rate), (4_000_000, Some(8_000_000)));
        let how = How { output: Output::Table, no_headers: true, width: None };
        let lines = print::rows(how, &[row]);
        assert_eq!(
            lines,
            ["n1    web    kernel  ███░░░░░░░░░  5.5 s  4.0 MB  8.0 MB/s  warning [2J[Hno memory"]
        );
        assert!(!lines[0].chars().any(char::is_control));
    }

    #[test]
    fn a_bar_is_by_the_usual_time_where_that_is_known_and_full_at_the_end_only() {
        let booting = |phase, took, usual| progress(Outcome::Booting, phase, took, usual);
        assert_eq!(booting(Phase::Kernel, 5_000, Some(10_000)), 50);
        assert_eq!(booting(Phase::Service, 90_000, Some(10_000)), 99);
        assert_eq!(booting(Phase::Service, 0, Some(10_000)), 45);
        assert_eq!(booting(Phase::Kernel, -5, Some(0)), 30);
        assert_eq!(progress(Outcome::Healthy, Phase::Service, 1, None), 100);
        assert_eq!(progress(Outcome::Failed, Phase::Healthy, 1, None), 99);
        assert_eq!((bar(0).as_str(), bar(200).as_str()), ("░░░░░░░░░░░░", "████████████"));
    }

    #[test]
    fn a_boot_stays_for_a_moment_after_its_end() {
        let mut boot = detail("healthy").boot;
        boot.ended = Some(1_000);
        assert!(is_shown(&boot, 20_999) && !is_shown(&boot, 21_000));
        boot.outcome = Outcome::Booting;
        assert!(is_shown(&boot, i64::MAX / 2));
    }
}
