//! CD images that UEFI boots (ECMA-119; "El Torito" 1.0; UEFI 2.10 §13.3.2.1), and that boot from a stick as well.
//!
//! ```text
//! 0        GPT for those who take it for a disk; it names the same partition
//! 32 KiB   volume descriptors, path tables, root directory, boot catalog
//! 1 MiB    the firmware's partition: FAT with EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI; also the file EFI.IMG
//! the end  copy of the GPT
//! ```

use kiln_types::{Arch, Digest};

use super::fat::{self, Volume};
use super::gpt::{self, Guid, Partition, TAIL_SECTORS, Table};
use super::plan::Plan;
use super::raw::{DiskError, ESP_LABEL, default_path};

/// Length of a sector of a CD.
const SECTOR: usize = 2048;
/// Where the firmware's partition begins.
const ESP: u64 = 1 << 20;
/// The same in sectors of a CD.
const ESP_SECTOR: u32 = 512;

const DESCRIPTORS: u32 = 16;
const PATHS: u32 = 19;
const ROOT: u32 = 21;
const CATALOG: u32 = 22;

/// Plans a CD that boots this program.
///
/// # Errors
///
/// Fails when the program is too large.
pub fn plan(program: &Plan, arch: Arch, version: &Digest, name: &str) -> Result<Plan, DiskError> {
    let guid = |purpose| Guid::derive(version, purpose);
    let size = fat::size_for(program.len());
    let volume = Volume {
        label: "KILN-ESP",
        id: guid("volume").serial(),
        size,
        hidden_sectors: u32::try_from(ESP / gpt::SECTOR).unwrap_or_default(),
    };
    let esp = fat::plan(&volume, &[(default_path(arch), program.clone())])?;
    // A file of the CD has its length in 32 bits too.
    let esp_len = u32::try_from(size).map_err(|_| fat::FatError::Size(size))?;
    let total = (ESP + size + TAIL_SECTORS * gpt::SECTOR).next_multiple_of(SECTOR as u64);
    let table = Table {
        guid: guid("disk"),
        sectors: total / gpt::SECTOR,
        partitions: vec![Partition {
            kind: Guid::ESP,
            guid: guid("esp"),
            name: ESP_LABEL.to_owned(),
            first: ESP / gpt::SECTOR,
            sectors: size / gpt::SECTOR,
        }],
    };

    let mut out = Plan::default();
    out.push_bytes(table.head());
    out.pad_to(u64::from(DESCRIPTORS) * SECTOR as u64);
    let sectors = u32::try_from(total / SECTOR as u64).unwrap_or(u32::MAX);
    for sector in [
        primary(sectors, name),
        boot_record(),
        terminator(),
        path(ROOT.to_le_bytes(), 1_u16.to_le_bytes()),
        path(ROOT.to_be_bytes(), 1_u16.to_be_bytes()),
        root(esp_len),
        catalog(size),
    ] {
        out.push_bytes(sector);
    }
    out.pad_to(ESP);
    out.append(&esp);
    out.pad_to(total - TAIL_SECTORS * gpt::SECTOR);
    out.push_bytes(table.tail());
    Ok(out)
}

/// A sector in the making.
struct Sector(Vec<u8>);

impl Sector {
    fn new(kind: u8) -> Self {
        let mut sector = Self(vec![0; SECTOR]);
        sector.put(0, &[kind]);
        sector.put(1, b"CD001\x01");
        sector
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    /// Writes text, filled up with spaces.
    fn text(&mut self, at: usize, len: usize, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(len, b' ');
        self.put(at, &bytes);
    }
}

/// A number in both orders of bytes, as most numbers on a CD are (§7.3.3).
fn both(n: u32) -> Vec<u8> {
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

fn both_short(n: u16) -> Vec<u8> {
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

/// The primary volume descriptor (§8.4).
fn primary(sectors: u32, name: &str) -> Vec<u8> {
    let mut sector = Sector::new(1);
    sector.text(8, 32, "");
    sector.text(40, 32, &volume_name(name));
    sector.put(80, &both(sectors));
    sector.put(120, &both_short(1));
    sector.put(124, &both_short(1));
    sector.put(128, &both_short(2048));
    sector.put(132, &both(10));
    sector.put(140, &PATHS.to_le_bytes());
    sector.put(148, &(PATHS + 1).to_be_bytes());
    sector.put(156, &record(&[0], ROOT, 2048, true));
    for (at, len) in [(190, 128), (318, 128), (446, 128), (702, 37), (739, 37), (776, 37)] {
        sector.text(at, len, "");
    }
    sector.text(574, 128, "KILN");
    // Made and changed on the first day that FAT knows too; expires and is valid from: not said.
    for (at, date) in
        [(813, "1980010100000000"), (830, "1980010100000000"), (847, NO_DATE), (864, NO_DATE)]
    {
        sector.put(at, date.as_bytes());
    }
    sector.put(881, &[1]);
    sector.0
}

/// A date that is not said (§8.4.26.1).
const NO_DATE: &str = "0000000000000000";

/// Returns a name in the letters that are allowed: capitals, digits and `_`.
fn volume_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(plain).take(32).collect()
}

/// The boot record that names the catalog (El Torito §2.0).
fn boot_record() -> Vec<u8> {
    let mut sector = Sector::new(0);
    sector.put(7, b"EL TORITO SPECIFICATION");
    sector.put(71, &CATALOG.to_le_bytes());
    sector.0
}

fn terminator() -> Vec<u8> {
    Sector::new(255).0
}

/// A path table with the root alone (§9.4).
fn path(root: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut sector = Sector(vec![0; SECTOR]);
    sector.put(0, &[1, 0]);
    sector.put(2, &root);
    sector.put(6, &parent);
    sector.0
}

/// The root directory: itself, above it, the catalog and the firmware's partition.
fn root(esp_len: u32) -> Vec<u8> {
    let mut out = [
        record(&[0], ROOT, 2048, true),
        record(&[1], ROOT, 2048, true),
        record(b"BOOT.CAT;1", CATALOG, 2048, false),
        record(b"EFI.IMG;1", ESP_SECTOR, esp_len, false),
    ]
    .concat();
    out.resize(SECTOR, 0);
    out
}

/// A directory record (§9.1).
fn record(name: &[u8], at: u32, len: u32, directory: bool) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(both(at));
    out.extend(both(len));
    // 1 January 1980, midnight, UTC.
    out.extend([80, 1, 1, 0, 0, 0, 0]);
    out.extend([if directory { 2 } else { 0 }, 0, 0]);
    out.extend(both_short(1));
    out.push(u8::try_from(name.len()).unwrap_or_default());
    out.extend_from_slice(name);
    out.resize(out.len().next_multiple_of(2), 0);
    let len = u8::try_from(out.len()).unwrap_or_default();
    if let Some(first) = out.first_mut() {
        *first = len;
    }
    out
}

/// The boot catalog: one entry, for UEFI, without emulation (El Torito §2.1, §2.2; UEFI 2.10 §13.3.2.1).
fn catalog(esp_len: u64) -> Vec<u8> {
    let mut validation = [0; 32];
    validation[..2].copy_from_slice(&[1, 0xef]);
    validation[4..8].copy_from_slice(b"KILN");
    validation[30..].copy_from_slice(&[0x55, 0xaa]);
    let (words, _) = validation.as_chunks::<2>();
    let sum = words.iter().fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    validation[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    let mut out = validation.to_vec();
    out.extend([0x88, 0, 0, 0, 0, 0]);
    // More than fits in the field is 0: then the firmware reads on to the end of the CD.
    out.extend(u16::try_from(esp_len / 512).unwrap_or(0).to_le_bytes());
    out.extend(ESP_SECTOR.to_le_bytes());
    out.resize(SECTOR, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::store::Store;

    #[test]
    fn the_catalog_the_directory_and_the_partition_table_name_the_same_bytes() {
        let mut program = Plan::default();
        program.push_bytes(&b"MZ"[..]);
        program.pad_to(3_000_000);
        let plan = plan(&program, Arch::X86_64, &sha256(b"v"), "my-image").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut bytes = Vec::new();
        plan.write(&store, &mut bytes).unwrap();
        assert_eq!(bytes.len() % SECTOR, 0);
        let at = |sector: u32| &bytes[sector as usize * SECTOR..(sector as usize + 1) * SECTOR];
        let long =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());

        let primary = at(DESCRIPTORS);
        assert_eq!(long(primary, 80) as usize * SECTOR, bytes.len());
        assert_eq!(&primary[40..50], b"MY_IMAGE  ");
        assert_eq!(long(at(DESCRIPTORS + 1), 71), CATALOG);
        let catalog = at(CATALOG);
        let words = catalog[..32].as_chunks::<2>().0;
        let sum = words.iter().fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
        assert_eq!(sum, 0);
        let start = long(catalog, 40);
        let root = at(ROOT);
        let file = root.windows(9).position(|name| name == b"EFI.IMG;1").unwrap() - 33;
        assert_eq!(long(root, file + 2), start);
        let first = u64::from_le_bytes(bytes[1024 + 32..1024 + 40].try_into().unwrap());
        assert_eq!(first * 512, u64::from(start) * SECTOR as u64);
        let esp = &bytes[start as usize * SECTOR..][..long(root, file + 10) as usize];
        let esp =
            fatfs::FileSystem::new(std::io::Cursor::new(esp.to_vec()), fatfs::FsOptions::new());
        esp.unwrap().root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap();
    }
}
