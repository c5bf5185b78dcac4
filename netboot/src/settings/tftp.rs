//! `[tftp]`.

use std::ops::RangeInclusive;

use serde::Deserialize;
use toml::Spanned;

use super::Problems;
use crate::tftp::{Config, Engine, Limits};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireTftp {
    pub(super) port: Option<u16>,
    #[serde(default)]
    engine: Engine,
    block_size: Option<Spanned<u16>>,
    window_size: Option<Spanned<u16>>,
    transfers: Option<Spanned<u16>>,
    transfers_per_client: Option<Spanned<u16>>,
    rollover: Option<Spanned<u16>>,
}

impl WireTftp {
    pub(super) fn check(self, problems: &mut Problems) -> Config {
        let default = Limits::default();
        let mut number =
            |name: &str, set: Option<Spanned<u16>>, range: RangeInclusive<u16>, default: u16| {
                let Some(set) = set else { return default };
                if !range.contains(set.get_ref()) {
                    let (low, high) = (range.start(), range.end());
                    let message = format!("`{name}` is a number from {low} to {high}");
                    problems.push((Some(set.span()), message));
                }
                set.into_inner()
            };
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let limits = Limits {
            block: number("block-size", self.block_size, 512..=65464, default.block),
            window: number("window-size", self.window_size, 1..=64, default.window),
            transfers: usize::from(number(
                "transfers",
                self.transfers,
                1..=4096,
                count(default.transfers),
            )),
            per_client: usize::from(number(
                "transfers-per-client",
                self.transfers_per_client,
                1..=4096,
                count(default.per_client),
            )),
            rollover: number("rollover", self.rollover, 0..=1, default.rollover),
        };
        Config { engine: self.engine, limits }
    }
}
