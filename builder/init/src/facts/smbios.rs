//! The tables in which PC firmware describes the machine (SMBIOS, DMTF DSP0134).

use kiln_types::facts::{FirmwareFacts, MemoryModule, SystemFacts, line};

/// No table has more structures than this.
const MOST_STRUCTURES: usize = 4096;
/// From this version on, the first three fields of a UUID have their lowest byte first.
const LITTLE_ENDIAN_UUID: u16 = 0x0206;

/// What the tables say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) system: SystemFacts,
    pub(super) firmware: FirmwareFacts,
    pub(super) processor: String,
    pub(super) memory: Vec<MemoryModule>,
}

/// Reads the version of the tables from their entry point: major in the high byte.
pub(super) fn version(entry: &[u8]) -> u16 {
    let at = if entry.starts_with(b"_SM3_") { 7 } else { 6 };
    match entry.get(at..at + 2) {
        Some(&[major, minor]) if entry.starts_with(b"_SM") => u16::from_be_bytes([major, minor]),
        _ => u16::MAX,
    }
}

/// Reads the tables. What is broken ends the reading, and what was read before counts.
pub(super) fn parse(mut table: &[u8], version: u16) -> Tables {
    let mut tables = Tables::default();
    for _ in 0..MOST_STRUCTURES {
        let Some((structure, rest)) = Structure::split(table) else { break };
        table = rest;
        match structure.kind() {
            0 => {
                tables.firmware.vendor = structure.text(0x04);
                tables.firmware.version = structure.text(0x05);
                tables.firmware.date = structure.text(0x08);
            }
            1 => {
                let system = &mut tables.system;
                system.vendor = structure.text(0x04);
                system.product = structure.text(0x05);
                system.version = structure.text(0x06);
                system.serial = structure.text(0x07);
                system.uuid = structure.uuid(version);
                system.sku = structure.text(0x19);
            }
            2 if tables.system.board.is_empty() => {
                let board = format!("{} {}", structure.text(0x04), structure.text(0x05));
                tables.system.board = board.trim().to_owned();
            }
            3 if tables.system.asset_tag.is_empty() => {
                tables.system.asset_tag = structure.text(0x08);
            }
            4 if tables.processor.is_empty() => tables.processor = structure.text(0x10),
            17 => tables.memory.extend(structure.memory_module()),
            // The end of the table.
            127 => break,
            _ => {}
        }
    }
    tables
}

/// One structure: a part of fixed form, then the texts that it counts.
struct Structure<'a> {
    fixed: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Structure<'a> {
    /// Takes the first structure off a table.
    fn split(table: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = usize::from(*table.get(1)?);
        if length < 4 {
            return None;
        }
        let (fixed, rest) = table.split_at_checked(length)?;
        // Two zero bytes end the texts, whether there are any or none.
        let end = rest.windows(2).position(|pair| pair == [0, 0])?;
        let (texts, rest) = rest.split_at_checked(end + 2)?;
        Some((Self { fixed, texts }, rest))
    }

    fn kind(&self) -> u8 {
        self.byte(0).unwrap_or_default()
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.fixed.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte(at)?, self.byte(at + 1)?]))
    }

    /// Returns the text whose number is in a byte.
    fn text(&self, at: usize) -> String {
        let number = usize::from(self.byte(at).unwrap_or_default());
        let text = match number {
            0 => None,
            _ => self.texts.split(|byte| *byte == 0).nth(number - 1),
        };
        let text = line(&String::from_utf8_lossy(text.unwrap_or_default()));
        if says_nothing(&text) { String::new() } else { text }
    }

    fn uuid(&self, version: u16) -> String {
        let Some(bytes) = self.fixed.get(0x08..0x18) else { return String::new() };
        if bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xff) {
            return String::new();
        }
        let little = [3, 2, 1, 0, 5, 4, 7, 6];
        let mut text = String::with_capacity(36);
        for at in 0..16 {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            let from =
                if version >= LITTLE_ENDIAN_UUID { little.get(at).unwrap_or(&at) } else { &at };
            let byte = bytes.get(*from).copied().unwrap_or_default();
            for nibble in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(nibble), 16));
            }
        }
        text
    }

    fn memory_module(&self) -> Option<MemoryModule> {
        let size = match self.word(0x0c)? {
            // Nothing in the slot, or nothing known.
            0 | 0xffff => return None,
            0x7fff => {
                let bytes = self.fixed.get(0x1c..0x20)?.try_into().ok()?;
                u64::from(u32::from_le_bytes(bytes) & 0x7fff_ffff) << 20
            }
            size if size & 0x8000 != 0 => u64::from(size & 0x7fff) << 10,
            size => u64::from(size) << 20,
        };
        let kind = match self.byte(0x12) {
            Some(0x14) => "DDR2",
            Some(0x18) => "DDR3",
            Some(0x1a) => "DDR4",
            Some(0x1d) => "LPDDR3",
            Some(0x1e) => "LPDDR4",
            Some(0x20) => "HBM",
            Some(0x21) => "HBM2",
            Some(0x22) => "DDR5",
            Some(0x23) => "LPDDR5",
            _ => "",
        };
        Some(MemoryModule {
            slot: self.text(0x10),
            size,
            kind: kind.to_owned(),
            speed: self.word(0x15).filter(|speed| !matches!(speed, 0 | 0xffff)).map(u32::from),
            vendor: self.text(0x17),
            serial: self.text(0x18),
            part: self.text(0x1a),
        })
    }
}

/// What makers leave in fields that they do not fill.
fn says_nothing(text: &str) -> bool {
    const NOTHING: &[&str] = &[
        "0123456789",
        "default string",
        "n/a",
        "none",
        "not available",
        "not specified",
        "system manufacturer",
        "system product name",
        "system serial number",
        "system version",
        "to be filled by o.e.m.",
        "unknown",
    ];
    NOTHING.iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(kind: u8, fixed: &[u8], texts: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, u8::try_from(fixed.len() + 4).unwrap(), 0, 0];
        bytes.extend(fixed);
        for text in texts {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        if texts.is_empty() {
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    fn table() -> Vec<u8> {
        let mut system = vec![1, 2, 0, 3];
        system.extend((0_u8..16).map(|byte| byte * 0x11));
        system.extend([6, 4, 0]);
        let mut memory = [0_u8; 0x1c];
        memory[0x0c - 4..0x0e - 4].copy_from_slice(&0x4000_u16.to_le_bytes());
        memory[0x10 - 4] = 1;
        memory[0x12 - 4] = 0x1a;
        memory[0x15 - 4..0x17 - 4].copy_from_slice(&3200_u16.to_le_bytes());
        memory[0x17 - 4] = 2;
        let mut large = memory;
        large[0x0c - 4..0x0e - 4].copy_from_slice(&0x7fff_u16.to_le_bytes());
        large[0x1c - 4..].copy_from_slice(&(64_u32 << 10).to_le_bytes());
        let mut table = structure(0, &[1, 2, 0, 0, 3], &["Maker", "1.2", "01/02/2026"]);
        table.extend(structure(1, &system, &["ACME", "Box", "S-1", "SKU"]));
        table.extend(structure(17, &memory, &["DIMM A", "Chips"]));
        table.extend(structure(17, &[0; 0x18], &[]));
        table.extend(structure(17, &large, &["DIMM B"]));
        table.extend(structure(127, &[], &[]));
        table.extend(structure(1, &[1, 0, 0, 0], &["after the end"]));
        table
    }

    #[test]
    fn firmware_system_and_memory_are_read() {
        let tables = parse(&table(), 0x0300);
        assert_eq!(tables.firmware.version, "1.2");
        assert_eq!(tables.firmware.date, "01/02/2026");
        assert_eq!(
            (tables.system.vendor.as_str(), tables.system.product.as_str()),
            ("ACME", "Box")
        );
        assert_eq!((tables.system.serial.as_str(), tables.system.sku.as_str()), ("S-1", "SKU"));
        assert_eq!(tables.system.uuid, "33221100-5544-7766-8899-aabbccddeeff");
        let [module, large] = &tables.memory[..] else { panic!("{:?}", tables.memory) };
        assert_eq!((large.slot.as_str(), large.size), ("DIMM B", 64 << 30));
        assert_eq!((module.slot.as_str(), module.size), ("DIMM A", 16 << 30));
        assert_eq!((module.kind.as_str(), module.speed), ("DDR4", Some(3200)));
        assert_eq!(module.vendor, "Chips");
    }

    #[test]
    fn the_order_of_the_uuid_is_that_of_the_version() {
        assert_eq!(parse(&table(), 0x0205).system.uuid, "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(version(b"_SM_\0\x1f\x02\x05"), 0x0205);
        assert_eq!(version(b"_SM3_\0\x18\x03\x02"), 0x0302);
        assert!(version(b"") >= LITTLE_ENDIAN_UUID && version(b"nonsense") >= LITTLE_ENDIAN_UUID);
        let none = structure(1, &[[0; 4], [255; 4], [255; 4], [255; 4], [255; 4]].concat(), &[]);
        assert_eq!(parse(&none, 0x0300).system.uuid, "");
    }

    #[test]
    fn what_makers_leave_in_a_field_says_nothing() {
        let table = structure(1, &[1, 2, 3, 9], &["To Be Filled By O.E.M.", "Box", "a\u{1b}[2J"]);
        let system = parse(&table, 0x0300).system;
        assert_eq!((system.vendor.as_str(), system.product.as_str()), ("", "Box"));
        assert_eq!((system.version.as_str(), system.serial.as_str()), ("a[2J", ""));
    }

    #[test]
    fn tables_that_are_cut_or_broken_anywhere_are_read_up_to_there() {
        let whole = table();
        for end in 0..whole.len() {
            parse(&whole[..end], 0x0300);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                parse(&broken, 0x0300);
            }
        }
        assert_eq!(parse(&[1, 3, 0, 0, 0, 0], 0x0300), Tables::default());
        assert_eq!(parse(&[5, 4, 0, 0, 0, 0].repeat(100_000), 0x0300), Tables::default());
    }

    #[test]
    fn fuzzed_tables_are_read_as_far_as_they_make_sense() {
        let table = table();
        kiln_fuzz::check("smbios", &[&table], |bytes| {
            for version in [0, 0x0206, 0x0307] {
                let _ = parse(bytes, version);
            }
        });
    }
}
