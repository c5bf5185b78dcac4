//! Draws the timeline of a boot.

use super::boot::outcome;
use super::table::{plain, seconds, size, table, text};
use crate::api::BootDetail;
use crate::breakdown::{Breakdown, Step};
use crate::hear::{HeardLine, Source};

/// Width of the bars.
const WIDTH: u128 = 32;

/// Draws where the time went: a row for each step, with its bar. Steps that made nobody wait have a pale one. What came
/// after the end, and what was heard of the boot, has no bar.
pub(super) fn timeline(detail: &BootDetail) -> String {
    let BootDetail { boot, breakdown, verdict, heard, .. } = detail;
    let firmware = boot.firmware.map_or_else(|| "unknown firmware".to_owned(), |f| f.to_string());
    let image = boot.image.as_ref().map_or_else(|| "no image".to_owned(), ToString::to_string);
    let mut out = format!(
        "boot {} of {} ({}, {firmware}): {image}, {} after {}",
        boot.id,
        boot.machine_name,
        boot.mac,
        outcome(boot.outcome, verdict),
        time(breakdown.total)
    );
    if let Some(usual) = breakdown.usual {
        out.push_str(&format!(", usually {}", time(usual)));
    }
    let mut rows: Vec<Row> = breakdown.steps.iter().map(|it| Row::of(it, breakdown)).collect();
    rows.extend(breakdown.afterwards.iter().map(Row::afterwards));
    rows.extend(heard.iter().map(|line| Row::heard(line, boot.started)));
    // Stable: what began at one time stays in its order.
    rows.sort_by_key(|row| row.at);
    out.push_str(&format!("\n\n{}", drawn(rows, breakdown.usual.is_some())));
    out.push_str(&summary(breakdown));
    out.push_str(&format!("\n\nverdict: {}\n{}", verdict.cause, plain(&verdict.reason)));
    if !verdict.advice.is_empty() {
        out.push_str(&format!("\nwhat to do: {}", plain(&verdict.advice)));
    }
    out
}

/// A row of the table.
#[derive(Debug, Default)]
struct Row {
    /// Milliseconds since the first packet.
    at: u64,
    took: String,
    usual: String,
    bar: String,
    step: String,
    size: String,
    rate: String,
    detail: String,
}

impl Row {
    fn of(step: &Step, breakdown: &Breakdown) -> Self {
        Self {
            took: time(step.took()),
            usual: step.usual.map_or_else(String::new, time),
            bar: bar(step, breakdown.total),
            size: step.bytes.map_or_else(String::new, size),
            rate: step.rate.map_or_else(String::new, |rate| format!("{}/s", size(rate))),
            ..Self::afterwards(step)
        }
    }

    fn afterwards(step: &Step) -> Self {
        let (step, detail, at) = (plain(&step.name), plain(&step.detail), step.from);
        Self { at, step, detail, ..Self::default() }
    }

    fn heard(line: &HeardLine, started: i64) -> Self {
        let step = match line.source {
            // The step of that name is another thing.
            Source::Kernel => "kernel log",
            source => source.as_str(),
        };
        let at = u64::try_from(line.at.saturating_sub(started)).unwrap_or(0);
        Self { at, step: step.to_owned(), detail: plain(&line.text), ..Self::default() }
    }
}

fn drawn(rows: Vec<Row>, usual: bool) -> String {
    let mut headers = vec!["at", "took", "", "step", "size", "rate", "detail"];
    if usual {
        headers.insert(2, "usual");
    }
    let mut drawn = table(&headers);
    for row in rows {
        let mut cells =
            vec![time(row.at), row.took, row.bar, row.step, row.size, row.rate, row.detail];
        if usual {
            cells.insert(2, row.usual);
        }
        drawn.add_row(cells);
    }
    text(&drawn)
}

/// Says below the table what is worth a look.
fn summary(breakdown: &Breakdown) -> String {
    let mut out = String::new();
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
            let (took, usual) = (time(step.took()), time(step.usual?));
            Some(format!("{} {took}, usually {usual}", plain(&step.name)))
        })
        .collect();
    if !slower.is_empty() {
        out.push_str(&format!("\nslower than usual: {}", slower.join("; ")));
    }
    let rest = breakdown.later.saturating_sub(breakdown.afterwards.len());
    if rest > 0 {
        out.push_str(&format!("\nlater: {rest} more events; `-o json` has them"));
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
    use serde_json::json;

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

    fn detail() -> BootDetail {
        let step = |name: &str, from, to, detail: &str| json!({"name": name, "from": from, "to": to, "share": to - from, "detail": detail});
        serde_json::from_value(json!({
            "id": 7, "machine": 1, "machine_name": "n1", "mac": "52:54:00:00:00:01", "image": "web",
            "started": 1_000_000, "outcome": "healthy", "ended": 1_004_000,
            "firmware": null, "version": null, "arch": null, "address": null, "events": [],
            "breakdown": {
                "total": 4_000,
                "steps": [step("firmware", 0, 1_000, ""), step("kernel", 1_000, 4_000, "")],
                "later": 9,
                "afterwards": [step("failed", 9_000, 9_000, "web ended"), step("restart", 9_100, 9_100, "web")],
            },
            "verdict": {"cause": "healthy", "reason": "everything is up"},
            "heard": [
                {"at": 999_000, "source": "syslog", "text": "before"},
                {"at": 1_002_000, "source": "kernel", "text": "[ 1.0] eth0: up\u{1b}[2J"},
                {"at": 1_009_050, "source": "netconsole", "text": "web: killed"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn what_was_heard_and_what_came_after_the_end_stands_at_its_time() {
        let drawn = timeline(&detail());
        let words = |line: &str| {
            let words: Vec<&str> =
                line.split_whitespace().filter(|word| !word.starts_with('█')).collect();
            words.join(" ")
        };
        let lines: Vec<String> = drawn.lines().map(words).collect();
        let expected = [
            "boot 7 of n1 (52:54:00:00:00:01, unknown firmware): web, healthy after 4.000 s",
            "",
            "AT TOOK STEP SIZE RATE DETAIL",
            "0.000 s 1.000 s firmware",
            "0.000 s syslog before",
            "1.000 s 3.000 s kernel",
            "2.000 s kernel log [ 1.0] eth0: up[2J",
            "9.000 s failed web ended",
            "9.050 s netconsole web: killed",
            "9.100 s restart web",
            "",
            "longest: kernel 3.000 s (75 %), firmware 1.000 s (25 %)",
            "later: 7 more events; `-o json` has them",
            "",
            "verdict: healthy",
            "everything is up",
        ];
        assert_eq!(lines, expected);
    }
}
