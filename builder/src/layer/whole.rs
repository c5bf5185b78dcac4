//! Decompresses a layer of usual size in one go, in memory: in half the time that it takes piece by piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libdeflater::Decompressor;
use memmap2::{Advice, MmapMut};

use crate::hash::sha256;
use crate::oci::LayerFile;

/// Larger layers are decompressed piece by piece, so that memory does not grow with them.
const PACKED: u64 = 16 << 20;
const UNPACKED: u64 = 32 << 20;

/// One layer at a time is in memory.
static TURN: Mutex<()> = Mutex::new(());

/// A whole layer, decompressed and checked.
pub(super) struct Whole {
    bytes: MmapMut,
    _turn: MutexGuard<'static, ()>,
}

impl Whole {
    /// Decompresses a layer of gzip, if it is small enough, has at most so many bytes then, and is what it should be.
    /// All others are left to those who can say what is wrong with them.
    pub(super) fn read(file: &File, layer: &LayerFile, limit: u64) -> io::Result<Option<Self>> {
        if layer.len > PACKED || layer.len < 18 {
            return Ok(None);
        }
        // RFC 1952 §2.3.1: the length modulo 2^32 ends a member. Where there are several, it will turn out wrong.
        let mut size = [0; 4];
        file.read_exact_at(&mut size, layer.offset + layer.len - 4)?;
        let unpacked = u64::from(u32::from_le_bytes(size));
        if unpacked == 0 || unpacked > limit.min(UNPACKED) {
            return Ok(None);
        }
        let map = |len: u64| MmapMut::map_anon(usize::try_from(len).map_err(io::Error::other)?);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut packed, mut bytes) = (map(layer.len)?, map(unpacked)?);
        for memory in [&packed, &bytes] {
            // Faults for each small page would take as long as the hash does. Without, it is only slower.
            let _ = memory.advise(Advice::HugePage);
        }
        file.read_exact_at(&mut packed, layer.offset)?;
        let good = Decompressor::new().gzip_decompress(&packed, &mut bytes) == Ok(bytes.len())
            && sha256(&bytes) == layer.layer.diff_id;
        Ok(good.then_some(Self { bytes, _turn: turn }))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::{file, gzip, store, tar};
    use super::*;

    fn read(packed: &[u8], unpacked: &[u8], limit: u64) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let layer = store(dir.path(), 1, packed, unpacked);
        let whole = Whole::read(&File::open(&layer.path).unwrap(), &layer, limit).unwrap();
        whole.map(|whole| whole.bytes().to_vec())
    }

    #[test]
    fn only_what_is_good_small_and_in_one_member_is_taken_whole() {
        let plain = tar(&[file("a", "text"), file("b", "more")]);
        let packed = gzip(&plain);
        assert_eq!(read(&packed, &plain, UNPACKED).as_ref(), Some(&plain));
        assert_eq!(read(&packed, &plain, plain.len() as u64 - 1), None);
        assert_eq!(read(&packed, b"another", UNPACKED), None);
        assert_eq!(read(&packed[..packed.len() - 1], &plain, UNPACKED), None);
        assert_eq!(read(&packed[..12], &plain, UNPACKED), None);
        let (first, second) = plain.split_at(plain.len() / 2);
        let members = [gzip(first), gzip(second)].concat();
        assert_eq!(read(&members, &plain, UNPACKED), None);
        let mut lies = packed.clone();
        for size in [0_u32, 1, u32::MAX, 1 << 30] {
            let at = lies.len() - 4;
            lies[at..].copy_from_slice(&size.to_le_bytes());
            assert_eq!(read(&lies, &plain, u64::MAX), None);
        }
        let large = vec![0; usize::try_from(UNPACKED).unwrap() + 1];
        assert_eq!(read(&gzip(&large), &large, u64::MAX), None);
    }
}
