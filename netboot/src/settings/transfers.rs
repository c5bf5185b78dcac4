//! `[transfers]`: how many files are sent at a time, and how fast.

use std::ops::RangeInclusive;

use serde::Deserialize;
use toml::Spanned;

use super::Problems;

/// Rates that make sense, in bytes per second: nothing boots at less, and no card has more.
const RATES: RangeInclusive<u64> = 64_000..=1_000_000_000_000;
/// The most transfers at a time that can be set.
const MOST: usize = 100_000;

/// How many files are sent at a time, and how fast. Without a number there is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferSettings {
    /// Large files at a time.
    pub at_once: Option<usize>,
    /// Bytes per second, all clients together.
    pub bandwidth: Option<u64>,
    /// Bytes per second for each client.
    pub bandwidth_per_client: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireTransfers {
    at_once: Option<Spanned<usize>>,
    bandwidth: Option<Spanned<String>>,
    bandwidth_per_client: Option<Spanned<String>>,
}

impl WireTransfers {
    pub(super) fn check(self, problems: &mut Problems) -> TransferSettings {
        let at_once = self.at_once.and_then(|wire| {
            let (span, number) = (wire.span(), wire.into_inner());
            if (1..=MOST).contains(&number) {
                return Some(number);
            }
            let message = format!("`{number}` transfers at once is not between 1 and {MOST}");
            problems.push((Some(span), message));
            None
        });
        let mut rate = |wire: Option<Spanned<String>>| {
            let wire = wire?;
            let span = wire.span();
            parse_rate(wire.get_ref()).map_err(|message| problems.push((Some(span), message))).ok()
        };
        TransferSettings {
            at_once,
            bandwidth: rate(self.bandwidth),
            bandwidth_per_client: rate(self.bandwidth_per_client),
        }
    }
}

/// Reads bits per second, as networks are measured, and returns bytes.
fn parse_rate(text: &str) -> Result<u64, String> {
    let error = || format!("`{text}` is not a rate; write it as 800Mbit or 2Gbit");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..) {
        Some("Mbit") => 1_000_000 / 8,
        Some("Gbit") => 1_000_000_000 / 8,
        _ => return Err(error()),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    let rate = number.saturating_mul(factor);
    if RATES.contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("`{text}` is not between 1Mbit and 8000Gbit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bits_as_networks_are_measured() {
        assert_eq!(parse_rate("800Mbit"), Ok(100_000_000));
        assert_eq!(parse_rate("2Gbit"), Ok(250_000_000));
        for text in ["", "800", "800M", "Mbit", "-1Mbit", "1.5Gbit", "800 Mbit", "0Mbit"] {
            assert!(parse_rate(text).unwrap_err().contains(text), "{text}");
        }
        assert!(parse_rate("99999999999999999999Gbit").is_err());
        assert!(parse_rate("9999999999999Gbit").unwrap_err().contains("not between"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wire: WireTransfers =
            toml::from_str("at-once = 0\nbandwidth = \"fast\"\nbandwidth-per-client = \"1Gbit\"\n")
                .unwrap();
        let mut problems = Vec::new();
        let settings = wire.check(&mut problems);
        assert_eq!(settings.bandwidth_per_client, Some(125_000_000));
        let told: Vec<_> = problems.into_iter().map(|(span, text)| (span.unwrap(), text)).collect();
        assert_eq!(told[0].0, 10..11);
        assert!(told[0].1.contains("not between 1 and"), "{told:?}");
        assert_eq!((told.len(), told[1].0.clone()), (2, 24..30));
    }
}
