//! `kiln boot`.

use clap::{Args, Subcommand};
use kiln_inventory::{Boot, BootEvent, Outcome};

use super::client::{Client, path_part};
use super::table::{ago, seconds, size, table, text};
use super::{ClientArgs, Failure, Output, print_json};
use crate::api::BootDetail;
use crate::boots::now_ms;

/// Width of the bars of a timeline.
const WIDTH: i64 = 32;

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
        client: ClientArgs,
    },
    /// Show the timeline of one boot
    Show {
        /// Number of the boot, as `kiln boot list` shows it
        boot: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) async fn run(args: BootArgs) -> Result<(), Failure> {
    match args.command {
        BootCommand::List { limit, client } => {
            let path = format!("/api/v1/boots?limit={limit}");
            let boots: Vec<Boot> = Client::new(&client).get(&path).await?;
            match client.output {
                Output::Json => print_json(&boots)?,
                Output::Table => list(&boots),
            }
        }
        BootCommand::Show { boot, client } => {
            let path = format!("/api/v1/boots/{}", path_part(&boot));
            let detail: BootDetail = Client::new(&client).get(&path).await?;
            match client.output {
                Output::Json => print_json(&detail)?,
                Output::Table => println!("{}", timeline(&detail.boot, &detail.events)),
            }
        }
    }
    Ok(())
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Booting => "booting",
        Outcome::Healthy => "healthy",
        Outcome::Failed => "failed",
        Outcome::Abandoned => "abandoned",
    }
}

fn list(boots: &[Boot]) {
    let now = now_ms();
    let headers = ["boot", "machine", "firmware", "image", "version", "outcome", "took", "started"];
    let mut rows = table(&headers);
    for boot in boots {
        let dash = || "-".to_owned();
        rows.add_row([
            boot.id.to_string(),
            boot.machine_name.clone(),
            boot.firmware.map_or_else(dash, |f| f.to_string()),
            boot.image.as_ref().map_or_else(dash, ToString::to_string),
            boot.version.map_or_else(dash, |v| v.short()),
            outcome(boot.outcome).to_owned(),
            boot.ended.map_or_else(dash, |ended| seconds(ended - boot.started)),
            ago(boot.started, now),
        ]);
    }
    println!("{}", text(&rows));
}

/// Draws the timeline: when each event was, since the first packet, and how long a transfer took.
fn timeline(boot: &Boot, events: &[BootEvent]) -> String {
    let firmware = boot.firmware.map_or_else(|| "unknown firmware".to_owned(), |f| f.to_string());
    let image = boot.image.as_ref().map_or_else(|| "no image".to_owned(), ToString::to_string);
    let mut head = format!(
        "boot {} of {} ({}, {firmware}): {image}, {}",
        boot.id,
        boot.machine_name,
        boot.mac,
        outcome(boot.outcome)
    );
    if let Some(ended) = boot.ended {
        head.push_str(" after ");
        head.push_str(&seconds(ended - boot.started));
    }
    let last = events.iter().map(|event| event.at).max().unwrap_or(boot.started);
    let span = (last - boot.started).max(1);
    let mut rows = table(&["time", "", "phase", "detail", "size", "took"]);
    for event in events {
        // What a transfer took lies before its end; what a system reports counts from its kernel's start.
        let took = event.bytes.and(event.millis).and_then(|m| i64::try_from(m).ok());
        let at = event.at - boot.started;
        rows.add_row([
            seconds(at),
            bar(at - took.unwrap_or(0), at, span),
            event.phase.to_string(),
            event.detail.clone(),
            event.bytes.map_or_else(String::new, size),
            took.map_or_else(String::new, seconds),
        ]);
    }
    format!("{head}\n\n{}", text(&rows))
}

fn bar(from: i64, to: i64, span: i64) -> String {
    let cell =
        |millis: i64| usize::try_from(millis.clamp(0, span) * (WIDTH - 1) / span).unwrap_or(0);
    let (from, to) = (cell(from), cell(to));
    format!("{}{}", " ".repeat(from), "█".repeat(to.saturating_sub(from) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_inside_their_column() {
        assert_eq!(bar(0, 0, 100), "█");
        assert_eq!(bar(0, 100, 100).chars().count(), 32);
        assert_eq!(bar(-50, 500, 100).chars().count(), 32);
        assert_eq!(bar(100, 100, 100).chars().count(), 32);
    }
}
