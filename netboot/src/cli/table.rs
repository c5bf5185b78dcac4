//! Tables, times and sizes for people.

use comfy_table::{ContentArrangement, Table, presets};

/// Returns an empty table without lines.
pub(super) fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().map(|h| h.to_uppercase()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Returns the table without blanks at the ends of its lines.
pub(super) fn text(table: &Table) -> String {
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Takes out of a text from a machine what could play tricks on a terminal: control characters, and those that change
/// the direction of writing or cannot be seen.
pub(super) fn plain(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            )
    };
    text.chars().filter(|c| !hidden(*c)).collect()
}

/// Writes what there may be, or a dash.
pub(super) fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Writes what bounds something, or that nothing does.
pub(super) fn or_all<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "all".to_owned(), ToString::to_string)
}

/// Writes a length as people read it: `3.4 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Writes a time, given in milliseconds since 1970, in UTC.
pub(super) fn moment(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Writes milliseconds as seconds: `1.234 s`.
pub(super) fn seconds(millis: i64) -> String {
    format!("{}.{:03} s", millis / 1000, millis.rem_euclid(1000))
}

/// Writes how long ago something was.
pub(super) fn ago(then_ms: i64, now_ms: i64) -> String {
    let seconds = ((now_ms - then_ms) / 1000).max(0);
    match seconds {
        0..=119 => format!("{seconds}s ago"),
        120..=7_199 => format!("{}m ago", seconds / 60),
        7_200..=172_799 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_machine_cannot_play_tricks_on_a_terminal() {
        assert_eq!(plain("a\u{1b}[2J\u{9b}31m\r\nb\u{202e}c\u{200b}é漢"), "a[2J31mbcé漢");
    }

    #[test]
    fn lengths_and_times_read_well() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (3_456_789, "3.4 MB"),
            (24_000_000_000, "24.0 GB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(seconds(61_005), "61.005 s");
        assert_eq!(ago(0, 5_000), "5s ago");
        assert_eq!(ago(0, 10_000_000), "2h ago");
    }
}
