//! The note that a disk carries while it is being made: by it, work that was cut off is known for ours and finished,
//! and nothing else is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::bytes::crc32;
use super::ext4;
use super::gpt::{self, ALIGN, Geometry, Guids};

/// Between the partition table and the partition, where nothing else of ours lies.
const AT: u64 = 512 << 10;
/// A sector of any disk, so that it is written as a whole.
const LENGTH: usize = 4096;
const MAGIC: &[u8; 16] = b"kiln state disk\x01";
/// How much of it is summed.
const SUMMED: usize = 128;

/// What a disk that is being made is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) geometry: Geometry,
    pub(super) guids: Guids,
    pub(super) file_system: [u8; 16],
    pub(super) label: String,
}

impl Marker {
    /// Reads the note of a disk; `None` where there is none of ours that fits.
    pub(super) fn read(disk: &File, geometry: Geometry, label: &str) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; LENGTH];
        disk.read_exact_at(&mut bytes, AT)?;
        let guid = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
        let (Some(disk_guid), Some(partition), Some(file_system)) = (guid(32), guid(48), guid(64))
        else {
            return Ok(None);
        };
        let found = Self {
            geometry,
            guids: Guids { disk: disk_guid, partition },
            file_system,
            label: label.to_owned(),
        };
        // Equal to the last byte: size, label and sum are then what they must be.
        Ok((bytes == found.bytes()).then_some(found))
    }

    /// Writes the note and waits until it is on the disk.
    pub(super) fn write(&self, disk: &File) -> io::Result<()> {
        disk.write_all_at(&self.bytes(), AT)?;
        disk.sync_all()
    }

    /// Takes the note away.
    pub(super) fn clear(disk: &File) -> io::Result<()> {
        disk.write_all_at(&[0; LENGTH], AT)?;
        disk.sync_all()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.geometry.size.to_le_bytes());
        out.extend(self.geometry.sector.to_le_bytes());
        for guid in [&self.guids.disk, &self.guids.partition, &self.file_system] {
            out.extend(guid);
        }
        out.extend(self.label.as_bytes().iter().take(SUMMED - out.len()));
        out.resize(SUMMED, 0);
        let sum = crc32(&out);
        out.extend(sum.to_le_bytes());
        out.resize(LENGTH, 0);
        out
    }

    /// Says whether a disk with this note holds nothing but what we had written when we were cut off: around the
    /// partition every sector is zero or ours, and in it there is at most a file system that was never used.
    pub(super) fn covers(&self, disk: &File) -> io::Result<bool> {
        let (start, length) = self.geometry.partition();
        let end = start + length;
        let mut head = vec![0; as_len(ALIGN)];
        disk.read_exact_at(&mut head, 0)?;
        let mut tail = vec![0; as_len(self.geometry.size - end)];
        disk.read_exact_at(&mut tail, end)?;
        let mut ours = gpt::pieces(self.geometry, self.guids, &self.label);
        ours.push((AT, self.bytes()));
        for (at, bytes) in ours {
            let (place, base) = if at < start { (&mut head, 0) } else { (&mut tail, end) };
            let from = as_len(at - base);
            let Some(there) = place.get_mut(from..from + bytes.len()) else { return Ok(false) };
            let sector = as_len(self.geometry.sector);
            for (there, expected) in there.chunks_mut(sector).zip(bytes.chunks(sector)) {
                if there == expected {
                    there.fill(0);
                }
            }
        }
        if head.iter().chain(&tail).any(|byte| *byte != 0) {
            return Ok(false);
        }
        let mut inside = vec![0; as_len((ext4::HEAD as u64).min(length))];
        disk.read_exact_at(&mut inside, start)?;
        Ok(ext4::is_half_made(&inside, &self.file_system))
    }
}

fn as_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::disk;
    use super::*;

    const SIZE: u64 = (64 << 20) + 512 * 7;

    fn marker() -> Marker {
        Marker {
            geometry: Geometry::new(SIZE, 512).unwrap(),
            guids: Guids { disk: [1; 16], partition: [2; 16] },
            file_system: [3; 16],
            label: "kiln-state".to_owned(),
        }
    }

    fn marked() -> File {
        let disk = disk(SIZE);
        marker().write(&disk).unwrap();
        disk
    }

    #[test]
    fn a_note_is_found_again_and_only_with_the_same_size_and_label() {
        let disk = marked();
        let geometry = marker().geometry;
        assert_eq!(Marker::read(&disk, geometry, "kiln-state").unwrap(), Some(marker()));
        assert_eq!(Marker::read(&disk, geometry, "other").unwrap(), None);
        let smaller = Geometry::new(SIZE - 512, 512).unwrap();
        assert_eq!(Marker::read(&disk, smaller, "kiln-state").unwrap(), None);
        disk.write_all_at(&[9], AT + 40).unwrap();
        assert_eq!(Marker::read(&disk, geometry, "kiln-state").unwrap(), None);
    }

    #[test]
    fn work_that_was_cut_off_after_any_write_is_ours() {
        let disk = marked();
        assert!(marker().covers(&disk).unwrap());
        for (at, bytes) in gpt::pieces(marker().geometry, marker().guids, "kiln-state") {
            // Torn in the middle of a piece.
            let half = bytes.len().div_ceil(2).next_multiple_of(512).min(bytes.len());
            disk.write_all_at(&bytes[..half], at).unwrap();
            assert!(marker().covers(&disk).unwrap());
            disk.write_all_at(&bytes, at).unwrap();
            assert!(marker().covers(&disk).unwrap());
        }
        Marker::clear(&disk).unwrap();
        assert_eq!(Marker::read(&disk, marker().geometry, "kiln-state").unwrap(), None);
    }

    #[test]
    fn a_disk_with_a_note_that_somebody_else_wrote_to_is_not_ours() {
        let (start, length) = marker().geometry.partition();
        for at in [0, 512, 5000, AT - 1, AT + 4096, start, start + 1023, start + length, SIZE - 1] {
            let disk = marked();
            disk.write_all_at(&[1], at).unwrap();
            assert!(!marker().covers(&disk).unwrap(), "{at}");
        }
        // The partition table of another program.
        let other = Guids { disk: [4; 16], partition: [5; 16] };
        let disk = marked();
        for (at, bytes) in gpt::pieces(marker().geometry, other, "kiln-state") {
            disk.write_all_at(&bytes, at).unwrap();
        }
        assert!(!marker().covers(&disk).unwrap());
    }
}
