//! UEFI programs: PE32+ files, read as far as sections can be added and signatures made ("PE Format", Microsoft).

mod checksum;

use std::io;

use kiln_types::Arch;

pub use self::checksum::with_checksum;
use super::plan::Plan;
use crate::store::Store;

/// Length of a section header.
const SECTION: usize = 40;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const READ_ONLY_DATA: u32 = 0x4000_0040;
/// `IMAGE_NT_OPTIONAL_HDR64_MAGIC`.
const PE32_PLUS: u16 = 0x20b;
/// Index of the data directory that says where signatures are.
const CERTIFICATES: usize = 4;
/// Headers lie in the first pages of a file. No program has this much.
pub const MAX_HEADERS: u64 = 64 << 10;

/// A file is not a UEFI program that can be worked with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeError {
    /// It has other headers.
    #[error("it is not a 64-bit UEFI program ({0})")]
    NotPe(&'static str),
    /// It is for other processors.
    #[error("it is a program for machine type {found:#06x}, not for {wanted}")]
    Machine {
        /// The type in its header.
        found: u16,
        /// What is needed.
        wanted: Arch,
    },
    /// It is signed, and a change would make the signature wrong.
    #[error("it is signed already; take an unsigned one")]
    Signed,
    /// There is no room for the headers of more sections.
    #[error("its headers have {have} bytes of room and {need} are needed; take another stub")]
    NoRoom {
        /// Bytes for section headers up to the first section.
        have: usize,
        /// Bytes that would be needed.
        need: usize,
    },
    /// It has a section of this name already.
    #[error("it has a section `{0}` already; take a bare stub")]
    Duplicate(String),
    /// The result would not fit into 4 GiB, which PE cannot describe.
    #[error("with `{section}` it would be larger than 4 GiB, more than a UEFI program can be")]
    TooLarge {
        /// The section that does not fit.
        section: String,
    },
    /// There are bytes between sections, which the firmware would not check.
    #[error("its sections do not lie one after the other, so it cannot be signed")]
    Gap,
}

/// What the headers of a program say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    machine: u16,
    /// Offset of the optional header.
    optional: usize,
    /// Offset of the first section header.
    table: usize,
    section_alignment: u32,
    file_alignment: u32,
    size_of_image: u32,
    size_of_headers: u32,
    directories: u32,
    certificates: (u32, u32),
    sections: Vec<Section>,
}

/// A section of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, with its dot.
    pub name: String,
    /// Where it is in memory, from the beginning of the image.
    pub address: u32,
    /// Its length in memory.
    pub size: u32,
    /// Where it is in the file.
    pub offset: u32,
    /// Its length in the file, rounded up.
    pub file_size: u32,
}

/// A section to add.
#[derive(Clone, Debug)]
pub struct NewSection {
    /// Its name: a dot and at most seven letters.
    pub name: &'static str,
    /// Its content.
    pub content: Plan,
    /// Its length in memory where that is more than the content.
    pub memory: u64,
}

impl Headers {
    /// Reads the headers from the beginning of a program.
    ///
    /// # Errors
    ///
    /// Fails when they are not those of a 64-bit PE program, or not all there.
    pub fn parse(bytes: &[u8]) -> Result<Self, PeError> {
        Self::read(bytes).ok_or_else(|| {
            let mz = bytes.starts_with(b"MZ");
            PeError::NotPe(if mz { "its PE headers are damaged" } else { "it lacks the mark MZ" })
        })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let pe = usize::try_from(u32_at(bytes, 0x3c)?).ok()?;
        let mark = bytes.get(pe..pe.checked_add(4)?)?;
        let optional = pe.checked_add(24)?;
        if !bytes.starts_with(b"MZ") || mark != b"PE\0\0" || u16_at(bytes, optional)? != PE32_PLUS {
            return None;
        }
        let table = optional + usize::from(u16_at(bytes, pe + 20)?);
        let directories = u32_at(bytes, optional + 108)?;
        let directory = optional + 112 + 8 * CERTIFICATES;
        let certificates = match directory + 8 <= table && directories as usize > CERTIFICATES {
            true => (u32_at(bytes, directory)?, u32_at(bytes, directory + 4)?),
            false => (0, 0),
        };
        let sections = (0..usize::from(u16_at(bytes, pe + 6)?))
            .map(|n| Section::read(bytes, table + n * SECTION))
            .collect::<Option<_>>()?;
        let headers = Self {
            machine: u16_at(bytes, pe + 4)?,
            optional,
            table,
            section_alignment: u32_at(bytes, optional + 32)?,
            file_alignment: u32_at(bytes, optional + 36)?,
            size_of_image: u32_at(bytes, optional + 56)?,
            size_of_headers: u32_at(bytes, optional + 60)?,
            directories,
            certificates,
            sections,
        };
        let aligned = |n: u32| n.is_power_of_two() && (0x10..=0x10_0000).contains(&n);
        (aligned(headers.section_alignment) && aligned(headers.file_alignment)).then_some(headers)
    }

    /// Returns the sections in the order of their headers.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns how much memory the program takes.
    pub const fn size_of_image(&self) -> u32 {
        self.size_of_image
    }

    /// Returns whether it carries signatures.
    pub const fn is_signed(&self) -> bool {
        self.certificates.1 != 0
    }

    /// Checks that it runs on an architecture.
    ///
    /// # Errors
    ///
    /// Fails when it is for another one.
    pub const fn check_arch(&self, arch: Arch) -> Result<(), PeError> {
        // IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64
        match (arch, self.machine) {
            (Arch::X86_64, 0x8664) | (Arch::Arm64, 0xaa64) => Ok(()),
            _ => Err(PeError::Machine { found: self.machine, wanted: arch }),
        }
    }

    /// Returns where the checksum is.
    const fn checksum_at(&self) -> usize {
        self.optional + 64
    }

    /// Returns where the entry for signatures is.
    fn certificates_at(&self) -> Result<usize, PeError> {
        let at = self.optional + 112 + 8 * CERTIFICATES;
        if self.directories as usize > CERTIFICATES && at + 8 <= self.table {
            return Ok(at);
        }
        Err(PeError::NotPe("its header has no place for signatures"))
    }

    /// Checks that the firmware's way of hashing, headers and then each section, covers the file from end to end.
    fn check_gapless(&self) -> Result<(), PeError> {
        let mut spans: Vec<_> = self
            .sections
            .iter()
            .filter(|section| section.file_size > 0)
            .map(|section| (section.offset, section.offset.saturating_add(section.file_size)))
            .collect();
        spans.sort_unstable();
        let mut end = self.size_of_headers;
        for (start, next) in spans {
            if start != end {
                return Err(PeError::Gap);
            }
            end = next;
        }
        Ok(())
    }
}

impl Section {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let name = bytes.get(at..at + 8)?;
        let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Some(Self {
            name: String::from_utf8_lossy(name.get(..len)?).into_owned(),
            size: u32_at(bytes, at + 8)?,
            address: u32_at(bytes, at + 12)?,
            file_size: u32_at(bytes, at + 16)?,
            offset: u32_at(bytes, at + 20)?,
        })
    }
}

/// Adds sections behind those of a program, which keeps its own.
///
/// # Errors
///
/// Fails when the program is signed, its headers have no room, it has such a section or the result is too large.
pub fn append(program: &[u8], sections: &[NewSection]) -> Result<Plan, PeError> {
    let headers = Headers::parse(program)?;
    if headers.is_signed() {
        return Err(PeError::Signed);
    }
    let count = headers.sections.len() + sections.len();
    let need = count * SECTION;
    let first = headers.sections.iter().map(|section| section.offset).filter(|&at| at > 0).min();
    let limit = first.unwrap_or(headers.size_of_headers).min(headers.size_of_headers) as usize;
    let have = limit.min(program.len()).saturating_sub(headers.table);
    if need > have {
        return Err(PeError::NoRoom { have, need });
    }

    let mut head = program.to_vec();
    let file_alignment = u64::from(headers.file_alignment);
    head.resize(usize_of((head.len() as u64).next_multiple_of(file_alignment)), 0);
    let mut body = Plan::default();
    let mut address = headers
        .sections
        .iter()
        .map(|section| u64::from(section.address) + u64::from(section.size))
        .max()
        .unwrap_or_default();
    let mut data = u64::from(u32_at(program, headers.optional + 8).unwrap_or_default());
    for (n, new) in sections.iter().enumerate() {
        if headers.sections.iter().any(|section| section.name == new.name) {
            return Err(PeError::Duplicate(new.name.to_owned()));
        }
        let fit = |n: u64| {
            u32::try_from(n).map_err(|_| PeError::TooLarge { section: new.name.to_owned() })
        };
        address = address.next_multiple_of(u64::from(headers.section_alignment));
        let size = new.content.len().max(new.memory);
        let offset = head.len() as u64 + body.len();
        body.append(&new.content);
        body.align(file_alignment);
        let file_size = head.len() as u64 + body.len() - offset;
        fit(head.len() as u64 + body.len())?;
        data = data.saturating_add(file_size);

        let mut header = [0; SECTION];
        let mut name = new.name.as_bytes().to_vec();
        name.resize(8, 0);
        put(&mut header, 0, &name);
        put(&mut header, 8, &fit(size)?.to_le_bytes());
        put(&mut header, 12, &fit(address)?.to_le_bytes());
        put(&mut header, 16, &fit(file_size)?.to_le_bytes());
        put(&mut header, 20, &fit(offset)?.to_le_bytes());
        put(&mut header, 36, &READ_ONLY_DATA.to_le_bytes());
        put(&mut head, headers.table + (headers.sections.len() + n) * SECTION, &header);
        address += size;
        fit(address.next_multiple_of(u64::from(headers.section_alignment)))?;
    }
    let image = address.next_multiple_of(u64::from(headers.section_alignment));
    let image = u32::try_from(image).unwrap_or(u32::MAX);
    let data = u32::try_from(data).unwrap_or(u32::MAX);
    let count = u16::try_from(count).map_err(|_| PeError::NoRoom { have, need })?;
    put(&mut head, headers.optional - 24 + 6, &count.to_le_bytes());
    put(&mut head, headers.optional + 8, &data.to_le_bytes());
    put(&mut head, headers.optional + 56, &image.to_le_bytes());
    put(&mut head, headers.checksum_at(), &[0; 4]);

    let mut plan = Plan::default();
    plan.push_bytes(head);
    plan.append(&body);
    Ok(plan)
}

/// Returns the part of a program that a signature is of: all but its checksum, and what says where signatures are
/// ("Windows Authenticode Portable Executable Signature Format", Calculating the PE Image Hash).
///
/// # Errors
///
/// Fails when it is signed already or cannot be signed.
pub fn authenticated(plan: &Plan, headers: &Headers) -> Result<Plan, PeError> {
    if headers.is_signed() {
        return Err(PeError::Signed);
    }
    headers.check_gapless()?;
    let (checksum, entry) = (headers.checksum_at() as u64, headers.certificates_at()? as u64);
    let mut part = plan.slice(0..checksum);
    part.append(&plan.slice(checksum + 4..entry));
    part.append(&plan.slice(entry + 8..plan.len()));
    Ok(part)
}

/// Adds a table of signatures. It must be a multiple of eight long.
///
/// # Errors
///
/// Fails when there is no place for it, or the result is too large.
pub fn attach(plan: &Plan, headers: &Headers, table: Vec<u8>) -> Result<Plan, PeError> {
    let fit =
        |n: u64| u32::try_from(n).map_err(|_| PeError::TooLarge { section: "signature".into() });
    let at = headers.certificates_at()? as u64;
    let mut body = plan.slice(at + 8..plan.len());
    body.pad_to((at + 8 + body.len()).next_multiple_of(8) - (at + 8));
    let mut entry = fit(at + 8 + body.len())?.to_le_bytes().to_vec();
    entry.extend(fit(table.len() as u64)?.to_le_bytes());
    let mut signed = plan.slice(0..at);
    signed.push_bytes(entry);
    signed.append(&body);
    signed.push_bytes(table);
    fit(signed.len())?;
    Ok(signed)
}

/// Returns the headers of a program that is not written yet.
///
/// # Errors
///
/// Fails when they cannot be read or are not those of a program.
pub fn headers(plan: &Plan, store: &Store) -> io::Result<Headers> {
    let mut head = Vec::new();
    plan.slice(0..MAX_HEADERS).write(store, &mut head)?;
    Headers::parse(&head).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Overwrites bytes. The place has been checked to be there.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "pe_tests.rs"]
pub(super) mod tests;
