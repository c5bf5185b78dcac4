//! Disk images that UEFI boots: a partition table and the firmware's own partition with one program in it.
//!
//! ```text
//! sector 0    protective MBR, GPT
//! 1 MiB       kiln-esp    FAT: EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI, slot A; room for slot B, EFI/KILN/B.EFI
//! after it    kiln-state  the rest, where a size was asked for: empty, for the state that stays between images
//! the end     copy of the GPT
//! ```

use kiln_types::{Arch, Digest};

use super::fat::{self, FatError, Volume};
use super::gpt::{Guid, HEAD_SECTORS, Partition, SECTOR, TAIL_SECTORS, Table};
use super::plan::Plan;

/// Partitions begin at multiples of this, as disks and sticks like it.
const ALIGN: u64 = 1 << 20;
/// The least size of the firmware's partition, so that a larger image fits later.
const LEAST_ESP: u64 = 64 << 20;
/// A state partition smaller than this is of no use.
const LEAST_STATE: u64 = 16 << 20;
/// The name of the firmware's partition.
pub const ESP_LABEL: &str = "kiln-esp";
/// The name of the partition for what stays, unless the image gives another one.
pub const STATE_LABEL: &str = "kiln-state";

/// A disk to plan.
#[derive(Clone, Copy, Debug)]
pub struct Disk<'a> {
    /// What it boots on.
    pub arch: Arch,
    /// What its numbers are derived from.
    pub version: &'a Digest,
    /// Its size in bytes; without one, as much as the firmware's partition takes.
    pub size: Option<u64>,
    /// The name of the partition that takes the rest of the size.
    pub state_label: &'a str,
}

/// A disk image cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The size is too small.
    #[error("a disk of {given} bytes is too small; this image takes at least {least}")]
    TooSmall {
        /// What was asked for.
        given: u64,
        /// What it takes.
        least: u64,
    },
    /// The size is no whole number of sectors.
    #[error("a disk of {0} bytes is not possible; give a multiple of 512")]
    Odd(u64),
    /// The firmware's partition cannot be made.
    #[error("cannot make the partition for the firmware")]
    Fat(#[from] FatError),
}

/// Returns where the firmware looks on a disk that it knows nothing about (UEFI 2.10 §3.5.1.1).
pub const fn default_path(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "EFI/BOOT/BOOTX64.EFI",
        Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
    }
}

/// Plans a disk that boots this program.
///
/// # Errors
///
/// Fails when the disk is too small or the program is too large for FAT.
pub fn plan(program: &Plan, disk: &Disk<'_>) -> Result<Plan, DiskError> {
    // Two of them, each a quarter larger than this one is.
    let both = program.len().saturating_add(program.len() / 4).saturating_mul(2);
    let esp_size = fat::size_for(both).max(LEAST_ESP);
    let end = ALIGN + esp_size;
    let least = end + ALIGN;
    let size = disk.size.unwrap_or(least);
    if size < least {
        return Err(DiskError::TooSmall { given: size, least });
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(DiskError::Odd(size));
    }
    let guid = |purpose| Guid::derive(disk.version, purpose);
    let mut partitions = vec![Partition {
        kind: Guid::ESP,
        guid: guid("esp"),
        name: ESP_LABEL.to_owned(),
        first: ALIGN / SECTOR,
        sectors: esp_size / SECTOR,
    }];
    let rest = (size - TAIL_SECTORS * SECTOR) / ALIGN * ALIGN - end;
    if rest >= LEAST_STATE {
        partitions.push(Partition {
            kind: Guid::LINUX,
            guid: guid("state"),
            name: disk.state_label.to_owned(),
            first: end / SECTOR,
            sectors: rest / SECTOR,
        });
    }
    let table = Table { guid: guid("disk"), sectors: size / SECTOR, partitions };
    let volume = Volume {
        label: "KILN-ESP",
        id: guid("volume").serial(),
        size: esp_size,
        hidden_sectors: u32::try_from(ALIGN / SECTOR).unwrap_or_default(),
    };
    let esp = fat::plan(&volume, &[(default_path(disk.arch), program.clone())])?;

    let mut out = Plan::default();
    out.push_bytes(table.head());
    debug_assert_eq!(out.len(), HEAD_SECTORS * SECTOR);
    out.pad_to(ALIGN);
    out.append(&esp);
    out.pad_to(size - TAIL_SECTORS * SECTOR);
    out.push_bytes(table.tail());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::hash::sha256;
    use crate::store::Store;

    fn program(len: u64) -> Plan {
        let mut plan = Plan::default();
        plan.push_bytes(&b"MZ"[..]);
        plan.pad_to(len);
        plan
    }

    #[test]
    fn slot_b_fits_beside_slot_a_and_the_rest_is_for_state() {
        let version = sha256(b"version");
        let (arch, state_label) = (Arch::X86_64, STATE_LABEL);
        let disk = Disk { arch, version: &version, size: Some(256 << 20), state_label };
        let plan = plan(&program(30_000_000), &disk).unwrap();
        assert_eq!(plan.len(), 256 << 20);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut bytes = Vec::new();
        plan.write(&store, &mut bytes).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let [esp, state] = [1024, 1024 + 128].map(|at| (number(at + 32), number(at + 40)));
        assert_eq!((esp.0, state.0), (2048, esp.1 + 1));
        assert_eq!(state.1, (255 << 11) - 1);

        let size = usize::try_from((esp.1 + 1) * 512).unwrap();
        let esp = Cursor::new(bytes[1 << 20..size].to_vec());
        let esp = fatfs::FileSystem::new(esp, fatfs::FsOptions::new()).unwrap();
        let folder = esp.root_dir().create_dir("EFI/KILN").unwrap();
        let mut slot = folder.create_file("B.EFI").unwrap();
        std::io::Write::write_all(&mut slot, &vec![1; 37_000_000]).unwrap();
    }

    #[test]
    fn a_disk_that_is_too_small_says_what_it_takes() {
        let version = sha256(b"version");
        let (arch, state_label) = (Arch::Arm64, STATE_LABEL);
        let disk = |size| Disk { arch, version: &version, size, state_label };
        let least = plan(&program(1000), &disk(None)).unwrap().len();
        assert_eq!(least, 66 << 20);
        let given = least - 512;
        assert_eq!(
            plan(&program(1000), &disk(Some(given))),
            Err(DiskError::TooSmall { given, least })
        );
        assert_eq!(plan(&program(1000), &disk(Some(least + 1))), Err(DiskError::Odd(least + 1)));
    }
}
