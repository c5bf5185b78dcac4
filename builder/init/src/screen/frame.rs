//! The whole screen as text: drawn over what was there, never cleared, so that nothing flickers.

use std::fmt::Write as _;
use std::time::Duration;

use crate::services::{State, Status, Wellness};
use crate::sys::Size;

/// What is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) image: String,
    pub(super) version: String,
    pub(super) host: String,
    pub(super) addresses: Vec<String>,
    pub(super) is_healthy: bool,
    pub(super) up: Duration,
    pub(super) rows: Vec<Row>,
}

/// One service.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) status: Status,
}

const LAST: &str = " Alt-F1: messages   Alt-F8: this   Ctrl-Alt-Del: start anew";

/// Draws all lines of a terminal of this size.
pub(super) fn draw(view: &View, size: Size) -> String {
    let (rows, columns) = (usize::from(size.rows), usize::from(size.columns));
    // No cursor, and no new line by a letter in the last column.
    let mut text = "\x1b[?25l\x1b[?7l".to_owned();
    for (number, line) in lines(view, rows).iter().enumerate() {
        let is_bar = number == 0 || number + 1 == rows;
        let look = if is_bar { "\x1b[7m" } else { "\x1b[0m" };
        let _ = write!(text, "\x1b[{};1H{look}{:columns$.columns$}", number + 1, plain(line));
    }
    text.push_str("\x1b[0m");
    text
}

/// Returns exactly as many lines as there are rows.
fn lines(view: &View, rows: usize) -> Vec<String> {
    let minutes = view.up.as_secs() / 60;
    let state = if view.is_healthy { "healthy" } else { "starting" };
    let mut lines = vec![
        format!(" {}   {}", view.image, short(&view.version)),
        String::new(),
        format!(" Machine    {}", view.host),
        format!(" Addresses  {}", view.addresses.join(", ")),
        format!(" State      {state}, up {} h {:02} min", minutes / 60, minutes % 60),
        String::new(),
        format!(" {:<32} {:<9} {:>8}  {}", "SERVICE", "STATE", "RESTARTS", "HEALTH"),
    ];
    // The last row says which keys there are, the one above it what has no room.
    let room = rows.saturating_sub(lines.len() + 2);
    let left = view.rows.len().saturating_sub(room);
    // Who has trouble comes first.
    let mut services: Vec<&Row> = view.rows.iter().collect();
    services.sort_by_key(|row| !is_trouble(&row.status));
    lines.extend(services.iter().take(room).map(|row| service(row)));
    lines.truncate(rows.saturating_sub(2));
    lines.resize(rows.saturating_sub(2), String::new());
    lines.push(if left > 0 { format!(" and {left} more: kiln-init ps") } else { String::new() });
    lines.push(LAST.to_owned());
    lines.truncate(rows);
    lines
}

fn service(row: &Row) -> String {
    let Row { name, status } = row;
    let health = match status.health {
        Wellness::Unknown => "-".to_owned(),
        Wellness::Well => "well".to_owned(),
        Wellness::Ill(failures) => format!("ill, {failures} checks"),
    };
    format!(" {name:<32.32} {:<9} {:>8}  {health}", status.state.word(), status.restarts)
}

fn is_trouble(status: &Status) -> bool {
    matches!(status.state, State::Failed | State::Pausing)
        || matches!(status.health, Wellness::Ill(_))
}

/// Enough of a digest for a person to tell versions apart.
fn short(version: &str) -> String {
    version.chars().take("sha256:".len() + 12).collect()
}

/// The letters that every font of a screen has, each one column wide.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(services: usize) -> View {
        let row = |number| Row {
            name: format!("service-{number:03}"),
            status: Status { state: State::Up, ..Status::default() },
        };
        View {
            image: "we\x1bb".to_owned(),
            version: "sha256:0123456789abcdef0123".to_owned(),
            host: "n1".to_owned(),
            addresses: vec!["10.0.0.5".to_owned(), "fd00::5".to_owned()],
            is_healthy: true,
            up: Duration::from_secs(3_725),
            rows: (0..services).map(row).collect(),
        }
    }

    /// What a terminal would show: the text after each place.
    fn shown(text: &str) -> Vec<String> {
        let places = text.split(";1H").skip(1);
        places
            .map(|place| {
                let place = place.split_once('m').map_or("", |(_, rest)| rest);
                place.split('\x1b').next().unwrap_or_default().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_screen_says_what_the_machine_is_and_what_runs_on_it() {
        let mut view = view(2);
        view.rows[1].status = Status {
            state: State::Pausing,
            restarts: 3,
            health: Wellness::Ill(2),
            ..Status::default()
        };
        let lines = shown(&draw(&view, Size { rows: 25, columns: 80 }));
        assert_eq!(lines.len(), 25);
        assert_eq!(lines[0].trim_end(), " we?b   sha256:0123456789ab");
        assert_eq!(lines[3].trim_end(), " Addresses  10.0.0.5, fd00::5");
        assert_eq!(lines[4].trim_end(), " State      healthy, up 1 h 02 min");
        // Who has trouble is seen first.
        assert!(
            lines[7].starts_with(" service-001 ")
                && lines[7].contains(" pausing          3  ill, 2 checks")
        );
        assert!(lines[8].starts_with(" service-000 ") && lines[8].contains(" up "));
        assert_eq!(lines[24].trim_end(), LAST);
    }

    #[test]
    fn every_line_is_as_long_as_the_screen_is_wide_whatever_its_size() {
        for (rows, columns) in [(25, 80), (50, 132), (10, 40), (3, 5), (2, 1), (1, 80)] {
            for services in [0, 3, 400] {
                let text = draw(&view(services), Size { rows, columns });
                let lines = shown(&text);
                assert_eq!(lines.len(), usize::from(rows));
                assert!(lines.iter().all(|line| line.len() == usize::from(columns)), "{lines:?}");
                assert!(!text.contains("\x1b[2J") && !text.contains('\n'));
            }
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let lines = shown(&draw(&view(20), Size { rows: 25, columns: 80 }));
        // Seven lines above, two below.
        assert_eq!(lines[23].trim_end(), " and 4 more: kiln-init ps");
        let all = shown(&draw(&view(16), Size { rows: 25, columns: 80 }));
        assert!(all[22].starts_with(" service-015") && all[23].trim().is_empty());
    }
}
