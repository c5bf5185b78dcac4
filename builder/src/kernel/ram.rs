//! The least memory that a machine needs.

use crate::manifest::{SegmentCompression, SegmentEntry};

const MIB: u64 = 1 << 20;

/// What decides about the memory of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Length of the kernel's file.
    pub kernel: u64,
    /// The initrd.
    pub segments: &'a [SegmentEntry],
}

/// Returns the least memory to boot with, in bytes.
///
/// While the kernel unpacks the initrd, the machine holds all of it packed and what is unpacked so far; and the first
/// file system is a tmpfs, which takes no more than half of the memory.
pub fn min_ram(load: &Load<'_>) -> u64 {
    let packed: u64 = load.segments.iter().map(|segment| segment.size).sum();
    let unpacked: u64 = load.segments.iter().map(unpacked).sum();
    // A kernel unpacks to about five times its size, and takes its page tables and slabs on top.
    let running = 5 * load.kernel + 48 * MIB;
    (packed + unpacked + running).max(2 * unpacked + 48 * MIB).next_multiple_of(16 * MIB)
}

fn unpacked(segment: &SegmentEntry) -> u64 {
    match segment.compression {
        SegmentCompression::None => segment.unpacked.max(segment.size),
        _ => segment.unpacked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    fn segment(size: u64, unpacked: u64, compression: SegmentCompression) -> SegmentEntry {
        SegmentEntry {
            component: String::new(),
            digest: sha256(b""),
            size: size * MIB,
            unpacked: unpacked * MIB,
            compression,
        }
    }

    #[test]
    fn there_is_room_for_both_forms_of_the_initrd() {
        let least = |size, unpacked| {
            let segments = [segment(size, unpacked, SegmentCompression::Zstd)];
            min_ram(&Load { kernel: 10 * MIB, segments: &segments }) / MIB
        };
        assert_eq!(least(10, 30), 144);
        assert_eq!(least(100, 1000), 2048);
    }
}
