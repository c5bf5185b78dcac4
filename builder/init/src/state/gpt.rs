//! Partition tables of the GPT kind (UEFI 2.10 §5.3): read with distrust, and written for a disk that is empty.
//!
//! The builder has a writer for images, which knows sectors of 512 bytes only and takes its numbers from a version;
//! here they come from the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::bytes::{crc32, u32_at, u64_at};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
/// Tables that are larger than this are nobody's.
const LARGEST_TABLE: u64 = 1 << 20;
/// The longest name, in UTF-16 units.
const NAME: usize = 36;
/// Partitions begin and end at multiples of this.
pub(super) const ALIGN: u64 = 1 << 20;
/// A file system of Linux: 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
const LINUX: [u8; 16] = [
    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];

/// How large a disk is, and in what pieces it is written. Both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) size: u64,
    pub(super) sector: u64,
}

impl Geometry {
    /// Returns it if it can be that of a disk.
    pub(super) fn new(size: u64, sector: u64) -> Option<Self> {
        let usual = matches!(sector, 512 | 1024 | 2048 | 4096);
        (usual && size >= 4 * ALIGN).then_some(Self { size: size / sector * sector, sector })
    }

    const fn sectors(self) -> u64 {
        self.size / self.sector
    }

    /// Returns how many bytes the entries of our own table take.
    const fn entries(self) -> u64 {
        ((ENTRIES * ENTRY) as u64).next_multiple_of(self.sector)
    }

    /// Returns where the one partition of a disk of ours begins and how long it is, in bytes.
    pub(super) const fn partition(self) -> (u64, u64) {
        let end = (self.size - self.sector - self.entries()) / ALIGN * ALIGN;
        (ALIGN, end - ALIGN)
    }
}

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub(super) enum GptError {
    #[error("its partition table cannot be read")]
    Read(#[source] io::Error),
    #[error("its partition table is damaged, and so is the copy at its end")]
    Damaged,
    #[error("its partition table has partitions that overlap, or that lie outside the disk")]
    Overlap,
}

/// A partition as a table has it; the end is that of its last byte and one more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Reads the table of a disk, or its copy where that is damaged, and refuses one that cannot be true.
pub(super) fn read(disk: &File, geometry: Geometry) -> Result<Vec<Partition>, GptError> {
    let first = read_at(disk, geometry, 1).map_err(GptError::Read)?;
    let table = match first {
        Some(table) => Some(table),
        None => read_at(disk, geometry, geometry.sectors() - 1).map_err(GptError::Read)?,
    };
    let (usable, mut partitions) = table.ok_or(GptError::Damaged)?;
    partitions.sort_by_key(|partition| partition.start);
    let mut free = usable.0;
    for partition in &partitions {
        if partition.start < free || partition.end <= partition.start || partition.end > usable.1 {
            return Err(GptError::Overlap);
        }
        free = partition.end;
    }
    Ok(partitions)
}

type Table = ((u64, u64), Vec<Partition>);

/// Reads the table whose header is in one sector; `None` when it is not one, or its sums are wrong.
fn read_at(disk: &File, geometry: Geometry, at: u64) -> io::Result<Option<Table>> {
    let sector = geometry.sector;
    let mut header = vec![0; usize::try_from(sector).unwrap_or(512)];
    disk.read_exact_at(&mut header, at * sector)?;
    let (Some(length), Some(sum)) = (u32_at(&header, 12), u32_at(&header, 16)) else {
        return Ok(None);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !header.starts_with(SIGNATURE) || length < HEADER {
        return Ok(None);
    }
    let Some(covered) = header.get_mut(..length) else { return Ok(None) };
    if let Some(place) = covered.get_mut(16..20) {
        place.fill(0);
    }
    let number = |offset| u64_at(&header, offset).unwrap_or(u64::MAX);
    let small = |offset| u64::from(u32_at(&header, offset).unwrap_or(u32::MAX));
    let (entries, count, length_of_one) = (number(72), small(80), small(84));
    let bytes = count.saturating_mul(length_of_one);
    let sectors = geometry.sectors();
    let whole = crc32(header.get(..length).unwrap_or_default()) == sum
        && number(24) == at
        && length_of_one >= ENTRY as u64
        && bytes <= LARGEST_TABLE
        && entries < sectors
        && bytes <= (sectors - entries) * sector
        && number(40) <= number(48)
        && number(48) < sectors;
    if !whole {
        return Ok(None);
    }
    let mut table = vec![0; usize::try_from(bytes).unwrap_or(0)];
    disk.read_exact_at(&mut table, entries * sector)?;
    if u64::from(crc32(&table)) != small(88) {
        return Ok(None);
    }
    let usable = (number(40) * sector, (number(48) + 1) * sector);
    let entries = table.chunks_exact(usize::try_from(length_of_one).unwrap_or(ENTRY));
    let used = entries.filter(|entry| entry.iter().take(16).any(|byte| *byte != 0));
    // What lies beyond any disk is still compared with its end.
    let place = |entry: &[u8], at, more| {
        u64_at(entry, at).and_then(|n: u64| n.checked_add(more)?.checked_mul(sector))
    };
    let partitions = used.map(|entry| Partition {
        name: name_of(entry.get(56..56 + 2 * NAME).unwrap_or_default()),
        start: place(entry, 32, 0).unwrap_or(u64::MAX),
        end: place(entry, 40, 1).unwrap_or(u64::MAX),
    });
    Ok(Some((usable, partitions.collect())))
}

fn name_of(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// What makes a disk of ours different from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guids {
    pub(super) disk: [u8; 16],
    pub(super) partition: [u8; 16],
}

/// The pieces of the table of a disk with one partition, each with where it goes, in the order in which they are
/// written: what makes the others count comes last.
pub(super) fn pieces(geometry: Geometry, guids: Guids, label: &str) -> Vec<(u64, Vec<u8>)> {
    let Geometry { size, sector } = geometry;
    let (start, length) = geometry.partition();
    let mut entries = Vec::new();
    entries.extend(LINUX);
    entries.extend(guids.partition);
    entries.extend((start / sector).to_le_bytes());
    entries.extend(((start + length) / sector - 1).to_le_bytes());
    entries.extend([0; 8]);
    entries.extend(label.encode_utf16().take(NAME).flat_map(u16::to_le_bytes));
    entries.resize(ENTRIES * ENTRY, 0);
    let (last, first_of_copy) = (geometry.sectors() - 1, size - sector - geometry.entries());
    let header = |at: u64, copy: u64, entries_at: u64| {
        let mut out = SIGNATURE.to_vec();
        out.extend([0, 0, 1, 0, 92, 0, 0, 0]);
        out.extend([0; 8]);
        let usable = [2 + geometry.entries() / sector, first_of_copy / sector - 1];
        for number in [at, copy, usable[0], usable[1]] {
            out.extend(number.to_le_bytes());
        }
        out.extend(guids.disk);
        out.extend(entries_at.to_le_bytes());
        for number in [128, 128, crc32(&entries)] {
            out.extend(u32::to_le_bytes(number));
        }
        let sum = crc32(&out);
        if let Some(place) = out.get_mut(16..20) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        out.resize(usize::try_from(sector).unwrap_or(512), 0);
        out
    };
    let pieces = [
        (last * sector, header(last, 1, first_of_copy / sector)),
        (sector, header(1, last, 2)),
        (0, protective_mbr(geometry)),
    ];
    let copies = [(first_of_copy, entries.clone()), (2 * sector, entries.clone())];
    copies.into_iter().chain(pieces).collect()
}

/// A first sector in which programs that know no GPT see one partition that fills the disk.
fn protective_mbr(geometry: Geometry) -> Vec<u8> {
    let mut out = vec![0; 446];
    out.extend([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    out.extend(1_u32.to_le_bytes());
    out.extend(u32::try_from(geometry.sectors() - 1).unwrap_or(u32::MAX).to_le_bytes());
    out.resize(510, 0);
    out.extend([0x55, 0xaa]);
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::disk;
    use super::*;

    const GUIDS: Guids = Guids { disk: [7; 16], partition: [9; 16] };

    fn geometry(sector: u64) -> Geometry {
        Geometry::new(64 << 20, sector).unwrap()
    }

    fn written(sector: u64) -> File {
        let disk = disk(64 << 20);
        for (at, bytes) in pieces(geometry(sector), GUIDS, "kiln-state") {
            disk.write_all_at(&bytes, at).unwrap();
        }
        disk
    }

    #[test]
    fn what_is_written_is_read_again_with_sectors_of_either_size() {
        for sector in [512, 4096] {
            let found = read(&written(sector), geometry(sector)).unwrap();
            let whole = Partition { name: "kiln-state".to_owned(), start: 1 << 20, end: 63 << 20 };
            assert_eq!(found, [whole]);
        }
    }

    #[test]
    fn the_copy_counts_where_the_table_is_damaged_and_both_damaged_are_refused() {
        let disk = written(512);
        disk.write_all_at(&[1], 512 + 60).unwrap();
        assert_eq!(read(&disk, geometry(512)).unwrap().len(), 1);
        disk.write_all_at(&[1], (64 << 20) - 512 + 60).unwrap();
        assert!(matches!(read(&disk, geometry(512)), Err(GptError::Damaged)));
        assert!(matches!(
            read(&super::super::testing::disk(64 << 20), geometry(512)),
            Err(GptError::Damaged)
        ));
    }

    /// Changes the entries and makes the sums right again.
    fn forged(change: impl Fn(&mut Vec<u8>)) -> File {
        let disk = written(512);
        let mut entries = vec![0; ENTRIES * ENTRY];
        disk.read_exact_at(&mut entries, 1024).unwrap();
        change(&mut entries);
        disk.write_all_at(&entries, 1024).unwrap();
        let mut header = vec![0; 92];
        disk.read_exact_at(&mut header, 512).unwrap();
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        header[16..20].fill(0);
        let sum = crc32(&header).to_le_bytes();
        header[16..20].copy_from_slice(&sum);
        disk.write_all_at(&header, 512).unwrap();
        disk
    }

    #[test]
    fn partitions_that_overlap_or_lie_outside_the_disk_are_refused() {
        let overlapping = forged(|entries| {
            let first = entries[..128].to_vec();
            entries[128..256].copy_from_slice(&first);
        });
        assert!(matches!(read(&overlapping, geometry(512)), Err(GptError::Overlap)));
        for (at, number) in [(40, u64::MAX), (40, 1 << 40), (40, 0), (32, 0)] {
            let outside =
                forged(|entries| entries[at..at + 8].copy_from_slice(&number.to_le_bytes()));
            assert!(matches!(read(&outside, geometry(512)), Err(GptError::Overlap)), "{at}");
        }
    }

    #[test]
    fn a_header_with_impossible_numbers_and_right_sums_is_damaged() {
        for (at, bytes) in [
            (12, vec![0xff; 4]),
            (12, vec![0; 4]),
            (72, vec![0xff; 8]),
            (80, vec![0xff; 4]),
            (84, vec![0; 4]),
            (48, vec![0xff; 8]),
        ] {
            let disk = written(512);
            disk.write_all_at(&[0; 512], (64 << 20) - 512).unwrap();
            let mut header = vec![0; 92];
            disk.read_exact_at(&mut header, 512).unwrap();
            header[at..at + bytes.len()].copy_from_slice(&bytes);
            header[16..20].fill(0);
            let sum = crc32(&header).to_le_bytes();
            header[16..20].copy_from_slice(&sum);
            disk.write_all_at(&header, 512).unwrap();
            assert!(matches!(read(&disk, geometry(512)), Err(GptError::Damaged)), "{at}");
        }
    }

    #[test]
    fn a_disk_that_is_too_small_or_has_odd_sectors_has_no_geometry() {
        assert_eq!(Geometry::new(3 << 20, 512), None);
        assert_eq!(Geometry::new(64 << 20, 520), None);
        assert_eq!(Geometry::new((64 << 20) + 100, 512).unwrap().size, 64 << 20);
    }
}
