//! GUID partition tables (UEFI 2.10 §5.3): a protective MBR, a table at the beginning of a disk and its copy at the
//! end. All numbers are derived from what is on the disk, none are drawn.

use kiln_types::Digest;

use crate::hash::Hasher;

/// Length of a sector in bytes.
pub const SECTOR: u64 = 512;
/// Sectors at the beginning of the disk that are taken: MBR, header and 128 entries.
pub const HEAD_SECTORS: u64 = 34;
/// Sectors at the end that are taken: the copies of entries and header.
pub const TAIL_SECTORS: u64 = 33;

const ENTRIES: u32 = 128;
const ENTRY: u32 = 128;
/// Length of all entries in bytes.
const ALL_ENTRIES: usize = 128 * 128;
/// Length of a header in bytes.
const HEADER: u8 = 92;
/// The longest name of a partition, in UTF-16 units.
const MAX_NAME: usize = 36;

/// A GUID as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guid([u8; 16]);

impl Guid {
    /// The partition that the firmware reads: C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
    pub const ESP: Self = Self([
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9,
        0x3b,
    ]);
    /// A file system of Linux: 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
    pub const LINUX: Self = Self([
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ]);

    /// Makes one from a version and what it is for. Version 8 of RFC 9562 §5.8: bits of the maker's choice.
    pub fn derive(version: &Digest, purpose: &str) -> Self {
        let mut hasher = Hasher::default();
        hasher.field("kiln guid");
        hasher.field(purpose);
        hasher.update(version.as_bytes());
        let digest = hasher.finish();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(digest.as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
        // The third field is little-endian: its high byte comes second.
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Returns the first four bytes as a number, for what has shorter serial numbers.
    pub const fn serial(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub kind: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// Its name, `PARTLABEL` in Linux; what is longer than 36 letters is cut off.
    pub name: String,
    /// Its first sector.
    pub first: u64,
    /// How many sectors it has; at least one.
    pub sectors: u64,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which disk it is.
    pub guid: Guid,
    /// How many sectors the disk has.
    pub sectors: u64,
    /// Its partitions, at most 128, which lie between the two tables and do not overlap.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// Returns the first [`HEAD_SECTORS`] of the disk.
    pub fn head(&self) -> Vec<u8> {
        let entries = self.entries();
        let mut out = self.protective_mbr();
        out.extend(self.header(&entries, 1, self.sectors - 1, 2));
        out.extend(entries);
        out
    }

    /// Returns the last [`TAIL_SECTORS`] of the disk.
    pub fn tail(&self) -> Vec<u8> {
        let mut out = self.entries();
        let at = self.sectors - 1;
        let header = self.header(&out, at, 1, at - TAIL_SECTORS + 1);
        out.extend(header);
        out
    }

    fn entries(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ALL_ENTRIES);
        for partition in self.partitions.iter().take(ENTRIES as usize) {
            out.extend(partition.kind.0);
            out.extend(partition.guid.0);
            out.extend(partition.first.to_le_bytes());
            out.extend((partition.first + partition.sectors - 1).to_le_bytes());
            out.extend([0; 8]);
            let name = partition.name.encode_utf16().take(MAX_NAME).flat_map(u16::to_le_bytes);
            out.extend(name);
            out.resize(out.len().next_multiple_of(ENTRY as usize), 0);
        }
        out.resize(ALL_ENTRIES, 0);
        out
    }

    /// Returns a header that says where it is, where its copy is and where its entries are.
    fn header(&self, entries: &[u8], at: u64, copy: u64, entries_at: u64) -> Vec<u8> {
        let mut out = b"EFI PART\x00\x00\x01\x00".to_vec();
        out.extend([HEADER, 0, 0, 0]);
        out.extend([0; 8]);
        for number in [at, copy, HEAD_SECTORS, self.sectors - TAIL_SECTORS - 1] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.guid.0);
        out.extend(entries_at.to_le_bytes());
        for number in [ENTRIES, ENTRY, crc32(entries)] {
            out.extend(number.to_le_bytes());
        }
        let sum = crc32(&out);
        if let Some(place) = out.get_mut(16..20) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        out.resize(512, 0);
        out
    }

    /// Returns a first sector in which old programs see one partition that fills the disk (§5.2.3).
    fn protective_mbr(&self) -> Vec<u8> {
        let mut out = vec![0; 446];
        out.extend([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        out.extend(1_u32.to_le_bytes());
        out.extend(u32::try_from(self.sectors - 1).unwrap_or(u32::MAX).to_le_bytes());
        out.resize(510, 0);
        out.extend([0x55, 0xaa]);
        out
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    fn table() -> Table {
        let version = sha256(b"version");
        Table {
            guid: Guid::derive(&version, "disk"),
            sectors: 10_000,
            partitions: vec![Partition {
                kind: Guid::ESP,
                guid: Guid::derive(&version, "esp"),
                name: "kiln-esp".to_owned(),
                first: 2048,
                sectors: 4096,
            }],
        }
    }

    fn number(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn both_headers_name_each_other_and_their_sums_fit() {
        let (head, tail) = (table().head(), table().tail());
        assert_eq!(head.len() as u64, HEAD_SECTORS * SECTOR);
        assert_eq!(tail.len() as u64, TAIL_SECTORS * SECTOR);
        let (first, last) = (&head[512..1024], &tail[tail.len() - 512..]);
        assert_eq!([number(first, 24), number(first, 32)], [1, 9_999]);
        assert_eq!([number(last, 24), number(last, 32)], [9_999, 1]);
        assert_eq!([number(first, 72), number(last, 72)], [2, 9_967]);
        assert_eq!([number(first, 40), number(first, 48)], [34, 9_966]);
        for (header, entries) in [(first, &head[1024..]), (last, &tail[..tail.len() - 512])] {
            let mut bare = header[..92].to_vec();
            bare[16..20].fill(0);
            assert_eq!(header[16..20], crc32(&bare).to_le_bytes());
            assert_eq!(header[88..92], crc32(entries).to_le_bytes());
            assert_eq!([number(entries, 32), number(entries, 40)], [2048, 6143]);
            assert_eq!(&entries[56..60], b"k\0i\0");
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!((head[450], &head[510..512]), (0xee, &[0x55, 0xaa][..]));
    }

    #[test]
    fn guids_differ_by_version_and_purpose_and_are_marked_as_made_up() {
        let (a, b) = (sha256(b"a"), sha256(b"b"));
        assert_ne!(Guid::derive(&a, "disk"), Guid::derive(&a, "esp"));
        assert_ne!(Guid::derive(&a, "disk"), Guid::derive(&b, "disk"));
        let Guid(bytes) = Guid::derive(&a, "disk");
        assert_eq!((bytes[7] >> 4, bytes[8] >> 6), (8, 2));
    }
}
