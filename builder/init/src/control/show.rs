//! The services as a table for a person.

use std::fs;
use std::time::Duration;

use crate::clock::uptime;
use crate::container;
use crate::services::{Status, Table, Wellness};

const HEAD: [&str; 7] = ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "MEMORY", "HEALTH"];

/// Writes all services with what is known of them.
pub(super) fn services(table: &Table) -> String {
    let now = uptime();
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(table.all().iter().map(|(name, status)| {
        let first =
            status.started.and_then(|_| container::first_process(&format!("services-{name}")));
        row(name, status, now, first, first.and_then(memory))
    }));
    columns(&rows)
}

fn row(
    name: &str,
    status: &Status,
    now: Duration,
    first: Option<i32>,
    memory: Option<u64>,
) -> [String; 7] {
    let none = || "-".to_owned();
    let health = match status.health {
        Wellness::Unknown => none(),
        Wellness::Well => "well".to_owned(),
        Wellness::Ill(times) => format!("ill ({times})"),
    };
    let ran = status.started.map(|started| now.saturating_sub(started));
    [
        name.to_owned(),
        status.state.word().to_owned(),
        first.map_or_else(none, |pid| pid.to_string()),
        ran.map_or_else(none, time),
        status.restarts.to_string(),
        memory.map_or_else(none, bytes),
        health,
    ]
}

/// Returns what the control group of a process takes.
fn memory(pid: i32) -> Option<u64> {
    let group = container::group_of(pid)?;
    fs::read_to_string(group.join("memory.current")).ok()?.trim().parse().ok()
}

fn columns(rows: &[[String; 7]]) -> String {
    let mut widths = [0; 7];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes a time with its two largest units.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Writes a size in KiB, MiB or GiB, with one digit after the point.
pub(crate) fn bytes(bytes: u64) -> String {
    let (size, unit) = match bytes {
        0..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    match bytes % size {
        0 => format!("{} {unit}", bytes / size),
        rest => format!("{}.{} {unit}", bytes / size, rest * 10 / size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::State;

    #[test]
    fn services_are_a_table_whose_columns_stand_below_each_other() {
        let up = Status {
            state: State::Up,
            started: Some(Duration::from_secs(10)),
            restarts: 3,
            health: Wellness::Ill(2),
            ..Status::default()
        };
        let now = Duration::from_secs(100);
        let rows = [
            HEAD.map(str::to_owned),
            row("web", &up, now, Some(123), Some(1_300_000)),
            row("a-long-name", &Status::default(), now, None, None),
        ];
        assert_eq!(
            columns(&rows),
            "NAME         STATE    PID  UPTIME  RESTARTS  MEMORY   HEALTH\n\
             web          up       123  1m30s   3         1.2 MiB  ill (2)\n\
             a-long-name  waiting  -    -       0         -        -\n"
        );
    }

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (3660, "1h01m"), (200_000, "2d07h")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
        for (size, text) in
            [(0, "0 KiB"), (67_108_864, "64 MiB"), (1_600, "1.5 KiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }
}
