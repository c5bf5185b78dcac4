//! The least memory that a machine needs.

use kiln_types::Arch;

use crate::compress;
use crate::manifest::{SegmentCompression, SegmentEntry};

const MIB: u64 = 1 << 20;
/// What a kernel takes while it starts, besides itself: page tables, devices, caches.
const START: u64 = 12 * MIB;

/// What decides about the memory of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// What the machine is.
    pub arch: Arch,
    /// What the kernel takes for itself, as [`memory_of`](super::memory_of) tells.
    pub kernel: u64,
    /// The initrd.
    pub segments: &'a [SegmentEntry],
}

/// Returns the least memory to boot with, in bytes; what programs need comes on top.
///
/// Two things must fit. The first file system is a tmpfs, made before anything is unpacked: it may fill half of what is
/// then left beside the kernel, the packed initrd and the kernel's reserve for devices, and no more
/// (`shmem_default_max_blocks` in `mm/shmem.c`); an initrd that does not fit fails with `Initramfs unpacking failed:
/// write error`. And while the last segment is unpacked there is all at once: what the kernel has started, the packed
/// initrd, what is unpacked, and the window of the decompressor; without room for that the kernel panics.
///
/// | measured | packed | unpacked | boots with | and not with | this says |
/// |---|---|---|---|---|---|
/// | demo, x86_64 | 10 MB | 33 MB | 128 MiB | 112 MiB | 136 MiB |
/// | demo, arm64 | 10 MB | 42 MB | 208 MiB | 192 MiB | 208 MiB |
/// | minimal, x86_64 | 6 MB | 14 MB | 88 MiB | 80 MiB | 88 MiB |
/// | minimal, arm64 | 6 MB | 15 MB | 72 MiB | 64 MiB | 88 MiB |
pub fn min_ram(load: &Load<'_>) -> u64 {
    let packed: u64 = load.segments.iter().map(|segment| segment.size).sum();
    let unpacked: u64 = load.segments.iter().map(unpacked).sum();
    let window = load.segments.iter().map(window).max().unwrap_or(0);
    let kernel = resident(load);
    let room = kernel + packed + 2 * unpacked;
    let all = (kernel + START + packed + unpacked + window).max(room);
    // Where that cannot be found in one piece, nothing is kept.
    let reserve = reserve(load.arch);
    let kept = if all < kernel + packed + reserve { 0 } else { reserve };
    all.max(room + kept).next_multiple_of(8 * MIB)
}

/// What a kernel occupies from its start on. That of x86 counts the room in which it unpacks itself; that of arm64 does
/// not count what it makes at once: the list of all pages, a copy of the device tree.
fn resident(load: &Load<'_>) -> u64 {
    match load.arch {
        Arch::Arm64 => load.kernel + 5 * MIB,
        _ => load.kernel / 8 * 7,
    }
}

/// Memory that is kept for devices until they ask for it (`CONFIG_CMA_SIZE_MBYTES`), as Debian's kernels have it.
const fn reserve(arch: Arch) -> u64 {
    match arch {
        Arch::Arm64 => 64 * MIB,
        _ => 0,
    }
}

/// What the decompressor keeps at hand, with its tables.
fn window(segment: &SegmentEntry) -> u64 {
    match segment.compression {
        SegmentCompression::Zstd => compress::window(segment.unpacked) + MIB,
        _ => 0,
    }
}

/// Each file takes whole pages. Small ones are many where root file systems are unpacked, and few where they are packed.
fn unpacked(segment: &SegmentEntry) -> u64 {
    match segment.compression {
        SegmentCompression::None => segment.unpacked,
        _ => segment.unpacked + segment.unpacked / 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    fn segment(size: u64, unpacked: u64, compression: SegmentCompression) -> SegmentEntry {
        SegmentEntry { component: String::new(), digest: sha256(b""), size, unpacked, compression }
    }

    #[test]
    fn images_get_what_they_were_measured_to_need_and_a_quarter_more_at_most() {
        let (x86_64, arm64) = ((Arch::X86_64, 58_576_896), (Arch::Arm64, 31_916_032));
        for ((arch, kernel), segments, boots) in [
            (x86_64, [(10_207_432, 32_900_000), (0, 0)], 128),
            (arm64, [(10_193_960, 42_400_000), (0, 0)], 208),
            (x86_64, [(3_100_000, 8_900_000), (2_700_000, 5_300_000)], 88),
            (arm64, [(3_400_000, 10_100_000), (2_600_000, 5_100_000)], 72),
        ] {
            let segments =
                segments.map(|(packed, size)| segment(packed, size, SegmentCompression::Zstd));
            let least = min_ram(&Load { arch, kernel, segments: &segments }) / MIB;
            assert!((boots..=boots * 5 / 4).contains(&least), "{arch}: {least} MiB, not {boots}");
        }
    }

    #[test]
    fn what_is_packed_in_itself_is_counted_as_it_is() {
        let segments = [segment(100 * MIB, 100 * MIB, SegmentCompression::None)];
        let load = Load { arch: Arch::X86_64, kernel: 32 * MIB, segments: &segments };
        assert_eq!(min_ram(&load) / MIB, 328);
    }
}
