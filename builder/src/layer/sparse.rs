//! Maps of sparse files, in the four forms that GNU tar has written over time (its manual, "Storing Sparse Files").

use super::error::Fault;
use super::stream::{BLOCK, Stream};

/// The most pieces of one file.
const MAX_PIECES: usize = 1 << 16;

/// What is known of a sparse file before its data.
#[derive(Default)]
pub(super) struct Sparse {
    /// Offset and length of each piece.
    pub(super) map: Vec<(u64, u64)>,
    /// Whether the map is at the beginning of the data (form 1.0).
    pub(super) map_in_data: bool,
    /// The length of the file with its holes.
    pub(super) size: u64,
    /// An offset whose length has not come yet (form 0.0).
    offset: Option<u64>,
}

const BAD_MAP: &str = "is sparse in a way that makes no sense";

impl Sparse {
    /// Reads a record `GNU.sparse.…` of a PAX header.
    pub(super) fn record(&mut self, key: &str, value: &[u8]) -> Result<(), &'static str> {
        let number = || number(value).ok_or(BAD_MAP);
        match key {
            "major" => self.map_in_data = number()? >= 1,
            "size" | "realsize" => self.size = number()?,
            "offset" => self.offset = Some(number()?),
            "numbytes" => {
                let offset = self.offset.take().ok_or(BAD_MAP)?;
                self.piece(offset, number()?)?;
            }
            "map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(self::number);
                while let Some(offset) = numbers.next() {
                    let len = numbers.next().flatten();
                    self.piece(offset.ok_or(BAD_MAP)?, len.ok_or(BAD_MAP)?)?;
                }
            }
            // Their number, the minor version and the name, which is read elsewhere.
            _ => {}
        }
        Ok(())
    }

    fn piece(&mut self, offset: u64, len: u64) -> Result<(), &'static str> {
        if self.map.len() >= MAX_PIECES {
            return Err("is sparse in more than 65536 pieces");
        }
        self.map.push((offset, len));
        Ok(())
    }

    /// Reads the map from an old GNU header and the blocks that may follow it.
    pub(super) fn read_old(
        header: &tar::GnuHeader,
        stream: &mut Stream<'_>,
    ) -> Result<Result<Self, &'static str>, Fault> {
        let mut sparse = Self::default();
        let Ok(size) = header.real_size() else { return Ok(Err(BAD_MAP)) };
        sparse.size = size;
        if let Err(reason) = sparse.old_pieces(&header.sparse) {
            return Ok(Err(reason));
        }
        let mut more = header.is_extended();
        while more {
            let block = stream.block()?.ok_or(Fault::Truncated)?;
            let mut header = tar::GnuExtSparseHeader::new();
            header.as_mut_bytes().copy_from_slice(&block);
            if let Err(reason) = sparse.old_pieces(header.sparse()) {
                return Ok(Err(reason));
            }
            more = header.isextended[0] == 1;
        }
        Ok(Ok(sparse))
    }

    fn old_pieces(&mut self, pieces: &[tar::GnuSparseHeader]) -> Result<(), &'static str> {
        for piece in pieces.iter().take_while(|piece| !piece.is_empty()) {
            let (offset, len) = (piece.offset(), piece.length());
            self.piece(offset.map_err(|_| BAD_MAP)?, len.map_err(|_| BAD_MAP)?)?;
        }
        Ok(())
    }

    /// Reads the map at the beginning of the data, if that is where it is, and returns how many bytes are left.
    pub(super) fn read_map(
        &mut self,
        stream: &mut Stream<'_>,
        mut len: u64,
    ) -> Result<Result<u64, &'static str>, Fault> {
        if !self.map_in_data {
            return Ok(Ok(len));
        }
        // Decimal numbers, one a line: how many pieces, then offset and length of each.
        let mut numbers = Vec::new();
        let mut text = Vec::new();
        let mut want = 1;
        while numbers.len() < want {
            if len < BLOCK as u64 {
                return Ok(Err(BAD_MAP));
            }
            len -= BLOCK as u64;
            for byte in stream.block()?.ok_or(Fault::Truncated)? {
                if byte != b'\n' {
                    text.push(byte);
                    continue;
                }
                let Some(value) = number(&text) else { return Ok(Err(BAD_MAP)) };
                text.clear();
                if numbers.is_empty() {
                    let pieces = usize::try_from(value).ok().filter(|it| *it <= MAX_PIECES);
                    let Some(pieces) = pieces else { return Ok(Err(BAD_MAP)) };
                    want = 1 + 2 * pieces;
                }
                numbers.push(value);
                if numbers.len() == want {
                    break;
                }
            }
            if text.len() > 20 {
                return Ok(Err(BAD_MAP));
            }
        }
        self.map = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Ok(len))
    }

    /// Checks that the pieces come one after the other, inside the file, and are just what is stored.
    pub(super) fn check(&self, stored: u64) -> Result<(), &'static str> {
        let mut end = 0;
        let mut total: u64 = 0;
        for (offset, len) in &self.map {
            let after = offset.checked_add(*len).filter(|it| *it <= self.size).ok_or(BAD_MAP)?;
            if *offset < end {
                return Err(BAD_MAP);
            }
            end = after;
            total = total.checked_add(*len).ok_or(BAD_MAP)?;
        }
        if total == stored { Ok(()) } else { Err(BAD_MAP) }
    }
}

pub(super) fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(text).ok()?.parse().ok()).flatten()
}
