//! Compresses segments in the ways that kernels understand, into the same bytes on any host.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::write::GzEncoder;
use zstd::zstd_safe::{CParameter, Strategy};

use crate::manifest::SegmentCompression;
use crate::segment::Packing;

/// Up to this level of zstd it is to be quick.
const QUICK: i32 = 3;
/// How many bytes a worker of zstd compresses at a time then. Left to itself it takes twice as many and with them twice
/// the memory, for 0.3 % less; higher levels lose more, since they look back further.
const JOB: u32 = 4 << 20;
/// How far back repetitions are looked for, as powers of two. Programs that are linked statically repeat each other from
/// afar: 16 MiB instead of 2 make an initrd of them 12 % smaller. The machine needs as much memory while it unpacks, which
/// is why a window is never larger than what it slides over.
const WINDOW: std::ops::RangeInclusive<u32> = 21..=24;
/// The search for near repetitions is then a rough one: 20 % less time than the level's own for 4 % more bytes, of which
/// far repetitions give back more.
const HASH_LOG: u32 = 16;
const MIN_MATCH: u32 = 6;
/// A single segment that is packed anew has both cores of a small host.
const WORKERS: u32 = 2;

/// How many segments are being compressed.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// Says that a segment is being compressed, until it is dropped.
pub(crate) struct Turn(());

/// Begins a segment, and returns how many workers it should have: each needs memory of its own, and where several
/// segments are compressed at a time the cores are busy anyway. The bytes are the same with any number.
pub(crate) fn turn() -> (Turn, u32) {
    let others = RUNNING.fetch_add(1, Ordering::Relaxed);
    (Turn(()), if others == 0 { WORKERS } else { 1 })
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Compresses in one of the ways.
pub(crate) enum Encoder<W: Write> {
    Plain(W),
    Zstd(zstd::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> Encoder<W> {
    /// Begins to compress about so many bytes.
    pub(crate) fn new(out: W, packing: Packing, bytes: u64, workers: u32) -> io::Result<Self> {
        Ok(match packing.compression {
            SegmentCompression::None => Self::Plain(out),
            SegmentCompression::Zstd => Self::Zstd(zstd(out, packing.level, bytes, workers)?),
            SegmentCompression::Gzip => {
                let level = u32::try_from(packing.level.clamp(1, 9)).unwrap_or(6).max(6);
                Self::Gzip(GzEncoder::new(out, flate2::Compression::new(level)))
            }
        })
    }

    /// Ends the stream and returns what it was written to.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Returns how many bytes a machine has to keep at hand while it unpacks about so many of a segment.
pub(crate) fn window(bytes: u64) -> u64 {
    1 << bytes.max(1).ilog2().clamp(*WINDOW.start(), *WINDOW.end())
}

/// Any number of workers gives the same bytes, but none at all gives others: never leave it to a default.
fn zstd<W: Write>(
    out: W,
    level: i32,
    bytes: u64,
    workers: u32,
) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    encoder.multithread(workers)?;
    let window = window(bytes).ilog2();
    encoder.set_parameter(CParameter::WindowLog(window))?;
    if level <= QUICK {
        for parameter in [
            CParameter::JobSize(JOB),
            CParameter::EnableLongDistanceMatching(window > *WINDOW.start()),
            CParameter::Strategy(Strategy::ZSTD_fast),
            CParameter::HashLog(HASH_LOG),
            CParameter::MinMatch(MIN_MATCH),
        ] {
            encoder.set_parameter(parameter)?;
        }
    }
    Ok(encoder)
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(buffer),
            Self::Zstd(out) => out.write(buffer),
            Self::Gzip(out) => out.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            // Flushing would end a block, and so change the bytes; the end of the stream does it.
            Self::Zstd(_) | Self::Gzip(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    /// Several jobs, with what can be compressed across their borders.
    fn text() -> Vec<u8> {
        let lines = (0..400_000_u32)
            .flat_map(|n| sha256(&(n % 70_000).to_le_bytes()).as_bytes()[..24].to_vec());
        lines.collect()
    }

    fn packed(text: &[u8], workers: u32) -> Vec<u8> {
        let level = Packing::default().level;
        let mut out = zstd(Vec::new(), level, text.len() as u64, workers).unwrap();
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn any_number_of_workers_gives_the_same_bytes() {
        let text = text();
        assert!(text.len() > 2 * JOB as usize);
        let one = packed(&text, 1);
        assert!(one.len() < text.len() / 2 && packed(&text, WORKERS) == one);
        assert!(packed(&text, 5) == one);
    }

    #[test]
    fn the_window_is_not_larger_than_what_it_slides_over() {
        // RFC 8878 §3.1.1.1.2: the byte after the magic number and the descriptor; 10 is the smallest exponent.
        let window = |bytes: usize| {
            let frame = packed(&vec![7; bytes], 1);
            let size = zstd::zstd_safe::get_frame_content_size(&frame);
            assert!(matches!(size, Ok(None)), "the length is in the way");
            10 + (frame[5] >> 3)
        };
        assert_eq!(window(1000), 21);
        assert_eq!(window((4 << 20) - 1), 21);
        assert_eq!(window(4 << 20), 22);
        assert_eq!(window(40 << 20), 24);
        assert_eq!(super::window(40 << 20), 1 << 24);
        let mut best = zstd(Vec::new(), 19, 1000, 1).unwrap();
        best.write_all(&[7; 1000]).unwrap();
        let best = best.finish().unwrap();
        assert_eq!(10 + (best[5] >> 3), 21, "nor is that of the highest level");
    }

    #[test]
    fn a_segment_that_is_alone_has_both_cores() {
        // Other tests compress as well.
        let (first, _) = turn();
        let (second, workers) = turn();
        assert_eq!(workers, 1);
        drop((first, second));
    }
}
