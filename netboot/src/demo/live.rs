//! The boots while they go on: a table on a terminal, else one line per step.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kiln_inventory::{Boot, BootEvent, Outcome};

use super::choice::Chosen;

/// What is shown.
#[derive(Debug)]
pub(super) struct Live {
    screen: MultiProgress,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    bar: ProgressBar,
    shown: usize,
}

impl Live {
    /// Shows a row for each machine.
    pub(super) fn new<'a>(machines: impl Iterator<Item = &'a Chosen>) -> Self {
        let screen = MultiProgress::new();
        let style = |text: &str| {
            ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_spinner())
        };
        if !screen.is_hidden() {
            let head = screen.add(ProgressBar::new_spinner().with_style(style("{prefix:.dim}")));
            head.set_prefix(format!(
                "  {:<5} {:<12} {:<17} {:>6} {:<16} {:<9} {}",
                "NAME", "MACHINE", "MAC", "TIME", "ADDRESS", "PHASE", ""
            ));
            head.tick();
        }
        let rows = machines
            .map(|one| {
                let row = style("{spinner:.cyan} {prefix} {elapsed:>6} {wide_msg}");
                let bar = screen.add(ProgressBar::new_spinner().with_style(row));
                bar.set_prefix(format!("{:<5} {:<12} {}", one.name, one.kind, one.mac));
                bar.set_message(format!("{:<16} powered on", "-"));
                bar.enable_steady_tick(Duration::from_millis(120));
                Row { name: one.name.clone(), bar, shown: 0 }
            })
            .collect();
        Self { screen, rows }
    }

    /// Shows how far a boot is.
    pub(super) fn update(&mut self, index: usize, boot: &Boot, events: &[BootEvent]) {
        let Some(row) = self.rows.get_mut(index) else { return };
        // A new boot of the same machine starts over.
        if events.len() < row.shown {
            row.shown = 0;
        }
        if self.screen.is_hidden() {
            for event in events.iter().skip(row.shown) {
                eprintln!("{} {}", row.name, step(boot, event));
            }
        } else if let Some(last) = events.last() {
            let address = boot.address.map_or_else(|| "-".to_owned(), |a| a.to_string());
            row.bar.set_message(format!("{address:<16} {:<9} {}", last.phase, last.detail));
        }
        row.shown = events.len();
        if boot.outcome == Outcome::Healthy {
            row.bar.finish();
        }
    }

    /// Ends the row of a machine.
    pub(super) fn finish(&mut self, index: usize, failure: Option<&str>) {
        let Some(row) = self.rows.get_mut(index) else { return };
        if let Some(failure) = failure {
            if self.screen.is_hidden() {
                eprintln!("{} failed: {failure}", row.name);
            }
            row.bar.set_message(format!("failed: {failure}"));
        }
        row.bar.finish();
    }
}

/// Describes one step of a boot: when, what, and how much.
pub(super) fn step(boot: &Boot, event: &BootEvent) -> String {
    let since = event.at.saturating_sub(boot.started).max(0);
    let mut text = format!(
        "{:>4}.{} s  {:<8}  {}",
        since / 1000,
        since % 1000 / 100,
        event.phase,
        event.detail
    );
    if let Some(bytes) = event.bytes {
        text.push_str("  ");
        text.push_str(&size(bytes));
        // Faster than the clock can tell is no rate.
        if let Some(millis) = event.millis.filter(|millis| *millis >= 10) {
            text.push_str(&format!(" at {}/s", size(bytes.saturating_mul(1000) / millis)));
        }
    }
    text.trim_end().to_owned()
}

/// Writes a number of bytes for people, in the units of network cards: powers of ten.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_inventory::{BootId, MachineId, Phase};
    use kiln_types::Mac;

    #[test]
    fn a_step_tells_time_size_and_rate() {
        let boot = Boot {
            id: BootId(1),
            machine: MachineId(1),
            machine_name: "n1".to_owned(),
            mac: Mac::new([0x52, 0x54, 0, 0x77, 0, 1]),
            firmware: None,
            image: None,
            version: None,
            arch: None,
            address: None,
            started: 1_000,
            outcome: Outcome::Booting,
            ended: None,
            kernel_start: None,
        };
        let event = BootEvent {
            at: 3_500,
            phase: Phase::Segment,
            detail: "init".to_owned(),
            bytes: Some(2_500_000),
            millis: Some(500),
            took: None,
            resent: None,
        };
        assert_eq!(step(&boot, &event), "   2.5 s  segment   init  2.5 MB at 5.0 MB/s");
        let event =
            BootEvent { phase: Phase::Healthy, detail: String::new(), bytes: None, ..event };
        assert_eq!(step(&boot, &event), "   2.5 s  healthy");
    }
}
