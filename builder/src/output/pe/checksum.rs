//! The checksum in the headers of a program.

use std::io;

use bytes::Bytes;

use super::headers;
use crate::output::plan::Plan;
use crate::store::Store;

/// Fills in the checksum. No firmware looks at it, but some tools do; it takes reading the whole file once.
///
/// # Errors
///
/// Fails when the file cannot be read.
pub fn with_checksum(plan: &Plan, store: &Store) -> io::Result<Plan> {
    let at = headers(plan, store)?.checksum_at() as u64;
    let mut zeroed = plan.slice(0..at);
    zeroed.push_bytes(&[0; 4][..]);
    zeroed.append(&plan.slice(at + 4..plan.len()));
    let mut sum = Checksum::default();
    zeroed.each_chunk(store, |chunk| sum.update(chunk))?;
    let mut done = plan.slice(0..at);
    done.push_bytes(Bytes::copy_from_slice(&sum.finish().to_le_bytes()));
    done.append(&plan.slice(at + 4..plan.len()));
    Ok(done)
}

/// The sum of all 16-bit words with the carries added, and the length (`CheckSumMappedFile`).
#[derive(Default)]
pub(super) struct Checksum {
    sum: u64,
    len: u64,
    /// The first half of a word whose second half is in the next chunk.
    half: Option<u8>,
}

impl Checksum {
    pub(super) fn update(&mut self, mut chunk: &[u8]) {
        self.len += chunk.len() as u64;
        if let (Some(low), [high, rest @ ..]) = (self.half, chunk) {
            self.sum += u64::from(u16::from_le_bytes([low, *high]));
            self.half = None;
            chunk = rest;
        }
        let (words, rest) = chunk.as_chunks::<2>();
        self.sum += words.iter().map(|word| u64::from(u16::from_le_bytes(*word))).sum::<u64>();
        if let [low] = rest {
            self.half = Some(*low);
        }
    }

    pub(super) fn finish(mut self) -> u32 {
        self.sum += u64::from(self.half.unwrap_or_default());
        while self.sum > 0xffff {
            self.sum = (self.sum & 0xffff) + (self.sum >> 16);
        }
        u32::try_from(self.sum + self.len).unwrap_or(u32::MAX)
    }
}
