//! What the first bytes of a partition say of the file system in it (the kernel's
//! Documentation/filesystems/ext4/super.rst).

use super::blank;
use super::bytes::{u32_at, u64_at};

/// As much of a partition as is looked at.
pub(super) const HEAD: usize = 128 << 10;
const SUPERBLOCK: usize = 1024;
const MAGIC: [u8; 2] = [0x53, 0xef];
/// `INCOMPAT_64BIT`: the number of blocks has a high half.
const WIDE: u32 = 0x80;

/// Why a partition is not mounted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotExt4 {
    #[error(
        "it has no file system; make one by hand (mkfs.ext4), or name an empty disk for this machine"
    )]
    Nothing,
    #[error("it holds {0} and not ext4")]
    Other(&'static str),
    #[error(
        "its file system says that it has {says} MiB, and the partition has {has} MiB: it was cut off"
    )]
    CutOff { says: u64, has: u64 },
    #[error("the description of its file system is damaged")]
    Damaged,
}

/// Looks whether a partition of this size holds a file system that can be checked.
pub(super) fn look(head: &[u8], size: u64) -> Result<(), NotExt4> {
    if head.get(SUPERBLOCK + 56..SUPERBLOCK + 58) != Some(&MAGIC[..]) {
        return Err(match blank::known(head) {
            Some(other) => NotExt4::Other(other),
            None if head.iter().all(|byte| *byte == 0) => NotExt4::Nothing,
            None => NotExt4::Other("something unknown"),
        });
    }
    let number = |at| u32_at(head, SUPERBLOCK + at).unwrap_or(u32::MAX);
    let power = number(24);
    let high = if number(96) & WIDE == 0 { 0 } else { u64::from(number(336)) };
    let blocks = (high << 32) | u64::from(number(4));
    // Blocks have 1 KiB to 64 KiB.
    if power > 6 || blocks == 0 {
        return Err(NotExt4::Damaged);
    }
    let says = blocks.checked_mul(1024 << power).ok_or(NotExt4::Damaged)?;
    if says > size {
        return Err(NotExt4::CutOff { says: says >> 20, has: size >> 20 });
    }
    Ok(())
}

/// Says whether a file system was unmounted and has nothing in its journal to replay.
pub(super) fn is_clean(head: &[u8]) -> bool {
    /// `INCOMPAT_RECOVER`.
    const JOURNAL: u8 = 4;
    let byte = |at: usize| head.get(SUPERBLOCK + at).copied();
    byte(58) == Some(1) && byte(96).is_some_and(|features| features & JOURNAL == 0)
}

/// Says whether nothing but an interrupted `mke2fs` of ours can have written to a partition: its boot sector is empty,
/// and its file system, if there is one yet, has our number and was never mounted.
pub(super) fn is_half_made(head: &[u8], uuid: &[u8; 16]) -> bool {
    let Some(start) = head.get(..SUPERBLOCK) else { return false };
    if start.iter().any(|byte| *byte != 0) {
        return false;
    }
    if head.get(SUPERBLOCK + 56..SUPERBLOCK + 58) != Some(&MAGIC[..]) {
        return blank::known(head).is_none();
    }
    let ours = head.get(SUPERBLOCK + 104..SUPERBLOCK + 120) == Some(&uuid[..]);
    // Times of the last mount and of the last write of a mounted file system, and how often it was.
    let never = u32_at(head, SUPERBLOCK + 44) == Some(0)
        && u64_at(head, SUPERBLOCK + 52).is_some_and(|n| n & 0xffff == 0);
    ours && never
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(blocks: u32, power: u32) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[1028..1032].copy_from_slice(&blocks.to_le_bytes());
        head[1048..1052].copy_from_slice(&power.to_le_bytes());
        head[1080..1082].copy_from_slice(&MAGIC);
        head[1128..1144].fill(7);
        head
    }

    #[test]
    fn a_file_system_that_is_larger_than_its_partition_is_cut_off() {
        assert_eq!(look(&head(1024, 2), 4 << 20), Ok(()));
        assert_eq!(look(&head(1025, 2), 4 << 20), Err(NotExt4::CutOff { says: 4, has: 4 }));
        let mut wide = head(1024, 2);
        wide[1120] = 0x80;
        wide[1360] = 1;
        assert!(matches!(look(&wide, 4 << 20), Err(NotExt4::CutOff { .. })));
    }

    #[test]
    fn numbers_that_cannot_be_are_damage_and_no_fault_of_ours() {
        for (blocks, power) in [(0, 2), (1, 7), (1, u32::MAX)] {
            assert_eq!(look(&head(blocks, power), 1 << 40), Err(NotExt4::Damaged));
        }
        for length in [0, 1, 1024, 1082, 1100] {
            assert!(look(&head(1, 2)[..length], 1 << 30).is_err(), "{length}");
        }
    }

    #[test]
    fn a_file_system_that_was_not_unmounted_is_not_clean() {
        let mut left = head(1024, 2);
        assert!(!is_clean(&left));
        left[1024 + 58] = 1;
        assert!(is_clean(&left));
        left[1024 + 96] = 0x42 | 4;
        assert!(!is_clean(&left) && !is_clean(&[]));
    }

    #[test]
    fn what_is_not_ext4_is_called_by_its_name() {
        assert_eq!(look(&vec![0; HEAD], 1 << 30), Err(NotExt4::Nothing));
        let mut other = vec![0; HEAD];
        other[..4].copy_from_slice(b"XFSB");
        assert_eq!(look(&other, 1 << 30), Err(NotExt4::Other("an XFS file system")));
        other[0] = 0;
        assert_eq!(look(&other, 1 << 30), Err(NotExt4::Other("something unknown")));
    }

    #[test]
    fn only_what_an_interrupted_run_of_ours_leaves_is_made_anew() {
        assert!(is_half_made(&vec![0; HEAD], &[7; 16]));
        assert!(is_half_made(&head(1024, 2), &[7; 16]));
        assert!(!is_half_made(&head(1024, 2), &[8; 16]));
        let mounted = |at: usize| {
            let mut head = head(1024, 2);
            head[at] = 1;
            head
        };
        assert!(!is_half_made(&mounted(1024 + 44), &[7; 16]));
        assert!(!is_half_made(&mounted(1024 + 52), &[7; 16]));
        assert!(!is_half_made(&mounted(0), &[7; 16]));
        let mut btrfs = vec![0; HEAD];
        btrfs[65600..65608].copy_from_slice(b"_BHRfS_M");
        assert!(!is_half_made(&btrfs, &[7; 16]));
        assert!(!is_half_made(&[], &[7; 16]));
    }
}
