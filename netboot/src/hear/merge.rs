//! One log of all that was heard of a boot.

use super::{HeardLine, Source};

/// Puts the lines of a kernel's log, which count from its start, among those that were heard, in the order of time.
/// Where it is not known when the kernel started, its lines come at `end`.
pub fn merge(
    heard: Vec<HeardLine>,
    log: &str,
    kernel_start: Option<i64>,
    end: i64,
) -> Vec<HeardLine> {
    let mut at = kernel_start.unwrap_or(end);
    let kernel = log.lines().map(|text| {
        // Lines without a time belong to the one before.
        if let Some((start, millis)) = kernel_start.zip(stamp(text)) {
            at = start.saturating_add(millis);
        }
        HeardLine { at, source: Source::Kernel, text: text.to_owned() }
    });
    let mut lines: Vec<HeardLine> = kernel.chain(heard).collect();
    // Stable: what came at one time stays in its order.
    lines.sort_by_key(|line| line.at);
    lines
}

/// Reads the time in front of a line: `[   12.345678] eth0: up`.
fn stamp(line: &str) -> Option<i64> {
    let (time, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let (seconds, rest) = time.trim().split_once('.')?;
    let seconds: i64 = seconds.parse().ok()?;
    let millis: i64 = rest.get(..3)?.parse().ok()?;
    seconds.checked_mul(1000)?.checked_add(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_the_kernel_comes_between_what_was_heard_meanwhile() {
        let heard =
            |at, text: &str| HeardLine { at, source: Source::Syslog, text: text.to_owned() };
        let log =
            "[    0.000000] Linux version\n[    1.500000] eth0: up\n  more of it\n[x] no time";
        let lines = || vec![heard(1_000_500, "early"), heard(1_001_600, "late")];
        let texts = |lines: Vec<HeardLine>| -> Vec<String> {
            lines.into_iter().map(|line| line.text.trim().to_owned()).collect()
        };
        let merged = merge(lines(), log, Some(1_000_000), 0);
        assert!(merged.is_sorted_by_key(|line| line.at));
        assert_eq!(merged[2].at, 1_001_500);
        let expected = [
            "[    0.000000] Linux version",
            "early",
            "[    1.500000] eth0: up",
            "more of it",
            "[x] no time",
            "late",
        ];
        assert_eq!(texts(merged), expected);
        assert_eq!(texts(merge(lines(), log, None, 2_000_000))[..2], ["early", "late"]);
        assert_eq!(merge(Vec::new(), "[99999999999999999999.123] x", Some(5), 0)[0].at, 5);
    }
}
