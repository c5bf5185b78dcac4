//! Metadata blocks: 8 KiB of tables, each compressed behind a length of 16 bits.

use std::io::{self, Seek, Write};

use super::PackedError;

/// Bytes of one block before compression.
const BLOCK: usize = 8192;
/// In a length: the block is stored as it is.
const STORED: u16 = 0x8000;

/// A table that grows in memory, compressed block by block.
pub(super) struct Metadata {
    /// Less than one block.
    pending: Vec<u8>,
    packed: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
}

/// Where something in a table begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Where its block begins, counted from the table's first byte.
    pub(super) block: u32,
    /// Where it begins in the unpacked block.
    pub(super) offset: u16,
}

impl Position {
    /// Returns the form in which references to inodes and attributes are written.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

impl Metadata {
    pub(super) fn new(level: i32) -> Result<Self, PackedError> {
        let compressor = zstd::bulk::Compressor::new(level).map_err(PackedError::Compress)?;
        Ok(Self { pending: Vec::with_capacity(2 * BLOCK), packed: Vec::new(), compressor })
    }

    /// Returns where the next byte goes.
    pub(super) fn position(&self) -> Result<Position, PackedError> {
        Ok(Position {
            block: u32::try_from(self.packed.len()).map_err(|_| PackedError::TooMany)?,
            offset: u16::try_from(self.pending.len()).map_err(|_| PackedError::TooMany)?,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackedError> {
        self.pending.extend_from_slice(bytes);
        while let Some(block) = self.pending.get(..BLOCK) {
            pack(&mut self.compressor, block, &mut self.packed)?;
            self.pending.drain(..BLOCK);
        }
        Ok(())
    }

    /// Returns the whole table.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, PackedError> {
        if !self.pending.is_empty() {
            pack(&mut self.compressor, &self.pending, &mut self.packed)?;
        }
        Ok(self.packed)
    }
}

/// Appends one block.
fn pack(
    compressor: &mut zstd::bulk::Compressor<'_>,
    block: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), PackedError> {
    let packed = compressor.compress(block).map_err(PackedError::Compress)?;
    let (bytes, mark) = if packed.len() < block.len() { (&packed[..], 0) } else { (block, STORED) };
    // Neither form is longer than 8 KiB.
    let len = u16::try_from(bytes.len()).map_err(|_| PackedError::TooMany)?;
    out.extend_from_slice(&(len | mark).to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// The file, and how much of it is written.
pub(super) struct Output<'a, W> {
    out: &'a mut W,
    /// Where the file system begins in what it is written to.
    base: u64,
    written: u64,
}

impl<'a, W: Write + Seek> Output<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Result<Self, PackedError> {
        let base = out.stream_position().map_err(PackedError::Write)?;
        Ok(Self { out, base, written: 0 })
    }

    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackedError> {
        self.out.write_all(bytes).map_err(PackedError::Write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes a table that is looked up by number: its blocks, then where each begins. Returns where that list begins.
    pub(super) fn table(&mut self, entries: &[u8], level: i32) -> Result<u64, PackedError> {
        let starts = self.blocks(entries, level)?;
        let list = self.written;
        self.starts(&starts)?;
        Ok(list)
    }

    /// Writes the blocks of a table and returns where each begins.
    pub(super) fn blocks(&mut self, entries: &[u8], level: i32) -> Result<Vec<u64>, PackedError> {
        let mut compressor = zstd::bulk::Compressor::new(level).map_err(PackedError::Compress)?;
        let mut starts = Vec::new();
        let mut packed = Vec::new();
        for block in entries.chunks(BLOCK) {
            starts.push(self.written);
            packed.clear();
            pack(&mut compressor, block, &mut packed)?;
            self.write(&packed)?;
        }
        Ok(starts)
    }

    pub(super) fn starts(&mut self, starts: &[u64]) -> Result<(), PackedError> {
        let bytes: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        self.write(&bytes)
    }

    /// Writes over the beginning and returns to the end.
    pub(super) fn finish(self, superblock: &[u8]) -> Result<(), PackedError> {
        let patch = |out: &mut W| -> io::Result<()> {
            out.seek(io::SeekFrom::Start(self.base))?;
            out.write_all(superblock)?;
            out.seek(io::SeekFrom::Start(self.base + self.written))?;
            out.flush()
        };
        patch(self.out).map_err(PackedError::Write)
    }
}
