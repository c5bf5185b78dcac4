//! Whether a disk is empty. It is when all that is looked at is zero: its first and last MiB, and places in between
//! where file systems, arrays and volume managers keep what they are found by. Whatever else is there is somebody's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;
/// How much is read at each place between the ends.
const PROBE: u64 = 4096;
/// Places spread evenly over the disk, for what has no place of its own.
const SPREAD: u64 = 128;

/// Returns what the first thing on a disk is that is not zero, if there is one.
pub(super) fn first_use(disk: &File, size: u64) -> io::Result<Option<&'static str>> {
    let mut head = vec![0; as_len(MIB.min(size))];
    disk.read_exact_at(&mut head, 0)?;
    if head.iter().any(|byte| *byte != 0) {
        return Ok(Some(known(&head).unwrap_or("data")));
    }
    let mut probe = vec![0; as_len(PROBE)];
    for at in places(size) {
        disk.read_exact_at(&mut probe, at)?;
        if probe.iter().any(|byte| *byte != 0) {
            return Ok(Some("data"));
        }
    }
    let tail = size - head.len() as u64;
    disk.read_exact_at(&mut head, tail)?;
    let used = head.iter().any(|byte| *byte != 0);
    Ok(used.then_some("data at its end, such as that of an array or a partition table"))
}

fn as_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

/// Returns where to look between the first and the last MiB, sorted.
fn places(size: u64) -> Vec<u64> {
    // Powers of two have the copies of btrfs (64 MiB, 256 GiB) and of ext4 with 4 KiB blocks (128 MiB), VMFS (1 and
    // 2 MiB), and the second header of LUKS.
    let doubled = (20..63).map(|power| 1_u64 << power);
    // ext4 keeps copies at the beginning of groups of 8 MiB or 128 MiB, by odd numbers.
    let groups = [8 * MIB, 128 * MIB]
        .into_iter()
        .flat_map(|group| [1, 3, 5, 7, 9, 25, 27, 49].map(|n| n * group));
    let spread = (1..SPREAD).map(|n| size / SPREAD * n / PROBE * PROBE);
    let mut places: Vec<u64> =
        doubled.chain(groups).chain(spread).filter(|at| at + PROBE <= size).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Names what the beginning of a disk or partition is known by.
pub(super) fn known(head: &[u8]) -> Option<&'static str> {
    // Where, what, and whose.
    const SIGNATURES: &[(usize, &[u8], &str)] = &[
        (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
        (0, b"XFSB", "an XFS file system"),
        (0, b"hsqs", "a SquashFS file system"),
        (3, b"NTFS    ", "an NTFS file system"),
        (3, b"EXFAT   ", "an exFAT file system"),
        (54, b"FAT1", "a FAT file system"),
        (82, b"FAT32", "a FAT file system"),
        (512, b"EFI PART", "a partition table"),
        (4096, b"EFI PART", "a partition table"),
        (512, b"LABELONE", "a volume of LVM"),
        (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
        (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
        (4086, b"SWAPSPACE2", "swap space"),
        (4096, b"\xfc\x4e\x2b\xa9", "a member of an array (md)"),
        (0, b"\xfc\x4e\x2b\xa9", "a member of an array (md)"),
        (65600, b"_BHRfS_M", "a btrfs file system"),
        (510, b"\x55\xaa", "a partition table or boot sector"),
    ];
    let here = |(at, what, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|bytes| bytes.starts_with(what))
    };
    SIGNATURES.iter().find(here).map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::super::testing::disk;
    use super::*;

    const SIZE: u64 = 300 << 20;

    #[test]
    fn a_disk_of_zeros_is_empty() {
        assert_eq!(first_use(&disk(SIZE), SIZE).unwrap(), None);
        assert_eq!(first_use(&disk(100), 100).unwrap(), None);
    }

    #[test]
    fn one_byte_in_any_place_that_counts_makes_it_somebodys() {
        for at in [0, 511, MIB - 1, 8 * MIB + 1024, 64 * MIB + 3, 128 * MIB, SIZE - MIB, SIZE - 1] {
            let disk = disk(SIZE);
            disk.write_all_at(&[1], at).unwrap();
            assert!(first_use(&disk, SIZE).unwrap().is_some(), "{at}");
        }
    }

    #[test]
    fn what_is_there_is_called_by_its_name() {
        for (at, bytes, name) in [
            (1080, &[0x53, 0xef][..], "an ext2, ext3 or ext4 file system"),
            (512, b"EFI PART", "a partition table"),
            (0, b"XFSB", "an XFS file system"),
            (65600, b"_BHRfS_M", "a btrfs file system"),
            (77, b"?", "data"),
        ] {
            let disk = disk(SIZE);
            disk.write_all_at(bytes, at).unwrap();
            assert_eq!(first_use(&disk, SIZE).unwrap(), Some(name));
        }
    }
}
