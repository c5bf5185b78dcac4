//! The least memory that a machine needs.

use kiln_types::Arch;

use crate::manifest::{SegmentCompression, SegmentEntry};

const MIB: u64 = 1 << 20;
/// What a kernel takes before it can unpack anything, besides itself: page tables, a list of all pages, firmware.
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
/// The first file system is a tmpfs, made before anything is unpacked: it may fill half of what is then left beside
/// the kernel, the packed initrd and the kernel's reserve for devices, and no more (`shmem_default_max_blocks` in
/// `mm/shmem.c`). An initrd that does not fit fails with `Initramfs unpacking failed: write error`.
///
/// Measured with the demo image, whose initrd has 10 MB and unpacks to 33 MB on x86_64 and 42 MB on arm64: x86_64 boots
/// with 128 MiB and not with 112, where this says 152; arm64 boots with 208 MiB, which this says, and not with 192.
pub fn min_ram(load: &Load<'_>) -> u64 {
    let packed: u64 = load.segments.iter().map(|segment| segment.size).sum();
    let unpacked: u64 = load.segments.iter().map(unpacked).sum();
    (load.kernel + reserve(load.arch) + START + packed + 2 * unpacked).next_multiple_of(8 * MIB)
}

/// Memory that is kept for devices until they ask for it (`CONFIG_CMA_SIZE_MBYTES`), as Debian's kernels have it.
const fn reserve(arch: Arch) -> u64 {
    match arch {
        Arch::Arm64 => 64 * MIB,
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
    fn the_demo_image_gets_what_it_was_measured_to_need_and_a_quarter_more_at_most() {
        for (arch, kernel, packed, unpacked, boots) in [
            (Arch::X86_64, 58_576_896, 10_207_432, 32_900_000, 128),
            (Arch::Arm64, 31_916_032, 10_193_960, 42_400_000, 208),
        ] {
            let segments = [segment(packed, unpacked, SegmentCompression::Zstd)];
            let least = min_ram(&Load { arch, kernel, segments: &segments }) / MIB;
            assert!((boots..=boots * 5 / 4).contains(&least), "{arch}: {least} MiB");
        }
    }

    #[test]
    fn what_is_packed_in_itself_is_counted_as_it_is() {
        let segments = [segment(100 * MIB, 100 * MIB, SegmentCompression::None)];
        let load = Load { arch: Arch::X86_64, kernel: 28 * MIB, segments: &segments };
        assert_eq!(min_ram(&load) / MIB, 344);
    }
}
