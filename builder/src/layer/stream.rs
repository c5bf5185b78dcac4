use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::Digest;

use super::Limits;
use super::error::Fault;
use super::whole::Whole;
use crate::hash::Hasher;
use crate::oci::LayerFile;
use crate::tree::Content;

/// The size of a tar block.
pub(super) const BLOCK: usize = 512;
/// Decoded at once: it stays in the processor's cache while it is hashed, written and read.
const BUFFER: usize = 256 << 10;
/// Below this, a layer may grow by any ratio.
const FREE: u64 = 64 << 20;
const ZSTD_WINDOW_LOG: u32 = 27;

/// The unlinked files that the contents of an image are in.
pub(super) struct Spool {
    dir: PathBuf,
    /// The decompressed layers, one after the other.
    data: Arc<File>,
    used: u64,
    /// Sparse files, laid out with their holes.
    expanded: Option<Arc<File>>,
    expanded_used: u64,
}

impl Spool {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let data = Arc::new(tempfile::tempfile_in(dir)?);
        Ok(Self { dir: dir.to_owned(), data, used: 0, expanded: None, expanded_used: 0 })
    }
}

/// The decompressed bytes of a layer. All that is taken from it has been hashed and spooled.
pub(super) struct Stream<'a> {
    decoder: Box<dyn Read>,
    /// Everything that the decoder would have given, where that was little; else a part of it is in the buffer.
    whole: Option<Whole>,
    buffer: Vec<u8>,
    /// The part of the buffer that has not been taken yet.
    start: usize,
    end: usize,
    hasher: Hasher,
    /// What is known to come out of that.
    known: Option<Digest>,
    spool: &'a mut Spool,
    /// How many bytes the layer may still have, and what to say when it has more.
    left: u64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    Bytes(u64),
    Ratio(u64),
}

impl<'a> Stream<'a> {
    pub(super) fn open(
        layer: &LayerFile,
        limits: &Limits,
        spool: &'a mut Spool,
    ) -> Result<Self, Fault> {
        let file = File::open(&layer.path).map_err(Fault::Read)?;
        let mut magic = [0; 4];
        let want = magic.len().min(usize::try_from(layer.len).unwrap_or(usize::MAX));
        file.read_exact_at(&mut magic[..want], layer.offset).map_err(Fault::data)?;
        let bytes = limits.bytes.saturating_sub(spool.used.saturating_add(spool.expanded_used));
        let grown = layer.len.saturating_mul(limits.ratio).max(FREE);
        let bound = match grown < bytes {
            true => Bound::Ratio(limits.ratio),
            false => Bound::Bytes(limits.bytes),
        };
        let left = grown.min(bytes);
        let whole = match magic {
            [0x1f, 0x8b, ..] => Whole::read(&file, layer, left).map_err(Fault::data)?,
            _ => None,
        };
        let mut stream = Self {
            decoder: Box::new(io::empty()),
            whole: None,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            hasher: Hasher::default(),
            known: None,
            spool,
            left,
            bound,
        };
        match whole {
            Some(whole) => stream.take(whole, layer.layer.diff_id)?,
            None => {
                stream.decoder = decoder(file, magic, layer)?;
                stream.buffer = vec![0; BUFFER];
            }
        }
        Ok(stream)
    }

    /// Takes all at once.
    fn take(&mut self, whole: Whole, digest: Digest) -> Result<(), Fault> {
        let bytes = whole.bytes();
        let len = bytes.len() as u64;
        (&*self.spool.data).write_all(bytes).map_err(Fault::Spool)?;
        self.spool.used += len;
        self.left = self.left.saturating_sub(len);
        (self.end, self.known) = (bytes.len(), Some(digest));
        self.whole = Some(whole);
        Ok(())
    }

    /// Fills the buffer, which is empty. Returns whether there is anything in it.
    fn fill(&mut self) -> Result<bool, Fault> {
        let mut got = 0;
        while got < self.buffer.len() {
            match self.decoder.read(&mut self.buffer[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::data(error)),
            }
        }
        self.left = self.left.checked_sub(got as u64).ok_or_else(|| self.too_much())?;
        let bytes = &self.buffer[..got];
        self.hasher.update(bytes);
        (&*self.spool.data).write_all(bytes).map_err(Fault::Spool)?;
        self.spool.used += got as u64;
        (self.start, self.end, self.whole) = (0, got, None);
        Ok(got > 0)
    }

    /// The next bytes: at least one, unless the stream is at its end.
    fn peek(&mut self) -> Result<&[u8], Fault> {
        if self.start == self.end {
            self.fill()?;
        }
        let all = self.whole.as_ref().map_or(&self.buffer[..], Whole::bytes);
        Ok(&all[self.start..self.end])
    }

    fn too_much(&self) -> Fault {
        Fault::Malformed(match self.bound {
            Bound::Bytes(limit) => {
                format!("its image unpacks to more than {} MiB, which is the limit", limit >> 20)
            }
            Bound::Ratio(ratio) => {
                format!("it unpacks to more than {ratio} times its size, as only traps do")
            }
        })
    }

    /// Checks that so many bytes could follow without going beyond the limits. The error says beyond which.
    pub(super) fn could_have(&self, bytes: u64) -> Result<(), String> {
        if bytes <= self.left.saturating_add((self.end - self.start) as u64) {
            return Ok(());
        }
        Err(match self.bound {
            Bound::Bytes(limit) => {
                format!("has {bytes} bytes, beyond the limit of {} MiB for an image", limit >> 20)
            }
            Bound::Ratio(ratio) => {
                format!("has {bytes} bytes, beyond the limit of {ratio} times the layer's size")
            }
        })
    }

    /// Takes the next block, or nothing at the end.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        let mut got = 0;
        while got < BLOCK {
            let bytes = self.peek()?;
            let n = bytes.len().min(BLOCK - got);
            if n == 0 && got == 0 {
                return Ok(None);
            }
            if n == 0 {
                return Err(Fault::Truncated);
            }
            block[got..got + n].copy_from_slice(&bytes[..n]);
            got += n;
            self.start += n;
        }
        Ok(Some(block))
    }

    /// Passes the next bytes to a function, in pieces.
    fn pass(
        &mut self,
        mut len: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while len > 0 {
            let bytes = self.peek()?;
            let n = bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            if n == 0 {
                return Err(Fault::Truncated);
            }
            each(&bytes[..n])?;
            self.start += n;
            len -= n as u64;
        }
        Ok(())
    }

    /// Takes so many bytes into memory, and the padding after them.
    pub(super) fn bytes(&mut self, len: u64) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        self.pass(len, |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        self.pad(len)?;
        Ok(out)
    }

    /// Passes over so many bytes and the padding after them, and returns where they are.
    pub(super) fn content(&mut self, len: u64) -> Result<Content, Fault> {
        let offset = self.spool.used - (self.end - self.start) as u64;
        self.pass(len, |_| Ok(()))?;
        self.pad(len)?;
        Ok(Content::Span { file: Arc::clone(&self.spool.data), offset, len })
    }

    /// Lays the next bytes out with holes between them: `map` says where each piece belongs. It has been checked.
    /// The padding is left.
    pub(super) fn expand(&mut self, map: &[(u64, u64)], size: u64) -> Result<Content, Fault> {
        self.left = self.left.checked_sub(size).ok_or_else(|| self.too_much())?;
        let file = match &self.spool.expanded {
            Some(file) => Arc::clone(file),
            None => {
                let file = tempfile::tempfile_in(&self.spool.dir).map_err(Fault::Spool)?;
                Arc::clone(self.spool.expanded.insert(Arc::new(file)))
            }
        };
        let offset = self.spool.expanded_used;
        self.spool.expanded_used += size;
        file.set_len(self.spool.expanded_used).map_err(Fault::Spool)?;
        for (at, len) in map {
            let mut at = offset + at;
            self.pass(*len, |bytes| {
                file.write_all_at(bytes, at).map_err(Fault::Spool)?;
                at += bytes.len() as u64;
                Ok(())
            })?;
        }
        Ok(Content::Span { file, offset, len: size })
    }

    /// Passes over what fills the last block of so many bytes.
    pub(super) fn pad(&mut self, len: u64) -> Result<(), Fault> {
        self.pass(len.wrapping_neg() % BLOCK as u64, |_| Ok(()))
    }

    /// Reads to the end, and returns the digest of all that came.
    pub(super) fn finish(mut self) -> Result<Digest, Fault> {
        while self.fill()? {}
        Ok(self.known.unwrap_or_else(|| self.hasher.finish()))
    }
}

/// Begins to decompress a layer piece by piece.
fn decoder(mut file: File, magic: [u8; 4], layer: &LayerFile) -> Result<Box<dyn Read>, Fault> {
    file.seek(SeekFrom::Start(layer.offset)).map_err(Fault::Read)?;
    // What is promised is what must be there, or a layer that was cut at a good place would pass for a whole one.
    let input = BufReader::with_capacity(BUFFER, Exactly { file, left: layer.len });
    // By what they are, not by what the manifest calls them: some tools get that wrong, and runtimes do the same.
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut decoder = zstd::Decoder::with_buffer(input).map_err(Fault::data)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(Fault::data)?;
            Box::new(decoder)
        }
        _ => Box::new(input),
    })
}

/// Reads just so many bytes of a file, and fails when it has fewer.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read(&mut buffer[..want])?;
        if got == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got as u64;
        Ok(got)
    }
}
