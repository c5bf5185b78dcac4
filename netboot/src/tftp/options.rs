//! What a request asks for, and what it is granted.

use std::time::Duration;

use super::wire::{self, Asked, Mode};

/// The smallest and the largest block (RFC 2348).
const BLOCKS: std::ops::RangeInclusive<u64> = 8..=65464;
/// The block of a request without options (RFC 1350).
const PLAIN_BLOCK: u16 = 512;
/// How long a client that names no time gets for its acknowledgement, at first.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The most that a server grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a block.
    pub block: u16,
    /// Blocks of a window.
    pub window: u16,
    /// Transfers at a time.
    pub transfers: usize,
    /// Transfers of one client at a time.
    pub per_client: usize,
    /// What follows block 65535: 0, or 1 as some old firmware has it.
    pub rollover: u16,
}

impl Default for Limits {
    fn default() -> Self {
        // 1468 fits a frame of 1500 bytes: firmware cannot put fragments together.
        Self { block: 1468, window: 16, transfers: 256, per_client: 32, rollover: 0 }
    }
}

impl Limits {
    /// Returns these limits with blocks that fit the frames of an interface: IP and UDP headers take 28 bytes of them,
    /// or 48 where the address is IPv6, and ours 4.
    #[must_use]
    pub fn within_mtu(self, mtu: u32, ipv6: bool) -> Self {
        let heads = if ipv6 { 52 } else { 32 };
        let fits = u16::try_from(mtu.saturating_sub(heads)).unwrap_or(u16::MAX);
        Self { block: self.block.min(fits).max(PLAIN_BLOCK), ..self }
    }
}

/// What a transfer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) block: u16,
    pub(super) window: u16,
    pub(super) timeout: Duration,
    pub(super) rollover: u16,
}

/// Settles the terms, and what to tell the client of them: nothing when it asked for nothing that it gets.
///
/// An answer has only what was asked, blocks and windows at most as large as asked, and the time as asked: firmware
/// ends a transfer with error 8 otherwise.
pub(super) fn settle(
    asked: &Asked,
    mode: Mode,
    size: u64,
    limits: &Limits,
) -> (Terms, Option<Vec<u8>>) {
    let mut granted = Vec::with_capacity(4);
    let mut terms =
        Terms { block: PLAIN_BLOCK, window: 1, timeout: TIMEOUT, rollover: limits.rollover };
    if let Some(block) = asked.blksize.filter(|block| BLOCKS.contains(block)) {
        terms.block = u16::try_from(block).unwrap_or(u16::MAX).min(limits.block);
        granted.push(("blksize", u64::from(terms.block)));
    }
    // A text has another length as netascii than on disk.
    if asked.tsize.is_some() && mode == Mode::Octet {
        granted.push(("tsize", size));
    }
    if let Some(seconds) = asked.timeout.filter(|seconds| (1..=255).contains(seconds)) {
        terms.timeout = Duration::from_secs(seconds);
        granted.push(("timeout", seconds));
    }
    if let Some(window) = asked.windowsize.filter(|window| (1..=65535).contains(window)) {
        terms.window = u16::try_from(window).unwrap_or(u16::MAX).min(limits.window).max(1);
        granted.push(("windowsize", u64::from(terms.window)));
    }
    let answer = (!granted.is_empty()).then(|| wire::oack(&granted));
    (terms, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: Asked, mode: Mode) -> String {
        let (_, answer) = settle(&asked, mode, 9000, &Limits::default());
        let answer = answer.unwrap_or_default();
        String::from_utf8_lossy(&answer).replace('\0', " ").trim().to_owned()
    }

    #[test]
    fn an_answer_has_what_was_asked_and_no_more_than_that() {
        let none = Asked::default();
        assert_eq!(said(none, Mode::Octet), "");
        let probe = Asked { tsize: Some(0), blksize: Some(1468), windowsize: Some(4), ..none };
        assert_eq!(said(probe, Mode::Octet), "\u{6}blksize 1468 tsize 9000 windowsize 4");
        assert_eq!(said(probe, Mode::Netascii), "\u{6}blksize 1468 windowsize 4");
        let much = Asked { blksize: Some(65464), windowsize: Some(65535), ..none };
        assert_eq!(said(much, Mode::Octet), "\u{6}blksize 1468 windowsize 16");
        let little = Asked { blksize: Some(8), timeout: Some(255), ..none };
        assert_eq!(said(little, Mode::Octet), "\u{6}blksize 8 timeout 255");
    }

    #[test]
    fn a_number_that_no_option_can_have_counts_as_not_asked() {
        let none = Asked::default();
        for asked in [
            Asked { blksize: Some(0), ..none },
            Asked { blksize: Some(7), ..none },
            Asked { blksize: Some(65465), ..none },
            Asked { windowsize: Some(0), ..none },
            Asked { windowsize: Some(65536), ..none },
            Asked { timeout: Some(0), ..none },
            Asked { timeout: Some(u64::MAX), ..none },
        ] {
            assert_eq!(said(asked, Mode::Octet), "", "{asked:?}");
            let terms = settle(&asked, Mode::Octet, 1, &Limits::default()).0;
            assert_eq!((terms.block, terms.window, terms.timeout), (512, 1, TIMEOUT));
        }
    }

    #[test]
    fn blocks_fit_the_frames_of_the_interface() {
        let limits = Limits { block: 65464, ..Limits::default() };
        assert_eq!(limits.within_mtu(1500, false).block, 1468);
        assert_eq!(limits.within_mtu(1500, true).block, 1448);
        assert_eq!(limits.within_mtu(1400, false).block, 1368);
        assert_eq!(limits.within_mtu(9000, false).block, 8968);
        assert_eq!(limits.within_mtu(65536, false).block, 65464);
        assert_eq!(limits.within_mtu(0, false).block, 512, "a request without options has that");
    }
}
