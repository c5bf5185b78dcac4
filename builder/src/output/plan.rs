use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use kiln_types::Digest;

use crate::hash::Hasher;
use crate::store::Store;

/// How much is read at a time.
const CHUNK: usize = 128 << 10;
/// Shorter runs of zeros are not worth a hole in a file.
const HOLE: u64 = 4096;

/// A file that is not written yet: what its bytes are, in order, and so its exact length.
///
/// Headers are in the plan itself; what is large stays in the store until it is read. So a plan is small however
/// large the file is, and a server can answer ranges of it without making the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pieces: Vec<Piece>,
    len: u64,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// That many zeros.
    Zeros(u64),
    /// A part of an artifact of the store.
    Artifact {
        /// The artifact.
        digest: Digest,
        /// Where the part begins in it.
        offset: u64,
        /// Its length.
        len: u64,
    },
}

impl Piece {
    /// Returns the length in bytes.
    pub const fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) | Self::Artifact { len, .. } => *len,
        }
    }

    /// Returns whether there are no bytes in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a part of it. The range lies inside.
    fn slice(&self, range: &Range<u64>) -> Self {
        let wanted = range.end - range.start;
        match self {
            Self::Bytes(bytes) => {
                let at = |pos: u64| usize::try_from(pos).unwrap_or(usize::MAX).min(bytes.len());
                Self::Bytes(bytes.slice(at(range.start)..at(range.end)))
            }
            Self::Zeros(_) => Self::Zeros(wanted),
            Self::Artifact { digest, offset, .. } => Self::Artifact {
                digest: *digest,
                offset: offset.saturating_add(range.start),
                len: wanted,
            },
        }
    }
}

/// An artifact that a plan names is not in the store, or not whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{path}` of the store; build the image again")]
pub struct ArtifactError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Plan {
    /// Returns the length of the file in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the file has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the parts in order. None is empty.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Adds a part.
    pub fn push(&mut self, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        self.len = self.len.saturating_add(piece.len());
        if let (Piece::Zeros(more), Some(Piece::Zeros(zeros))) = (&piece, self.pieces.last_mut()) {
            *zeros = zeros.saturating_add(*more);
            return;
        }
        self.pieces.push(piece);
    }

    /// Adds bytes.
    pub fn push_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.push(Piece::Bytes(bytes.into()));
    }

    /// Adds a whole artifact of this length.
    pub fn push_artifact(&mut self, digest: Digest, len: u64) {
        self.push(Piece::Artifact { digest, offset: 0, len });
    }

    /// Adds another plan.
    pub fn append(&mut self, other: &Self) {
        for piece in &other.pieces {
            self.push(piece.clone());
        }
    }

    /// Adds zeros up to a length. Does nothing when the plan is that long already.
    pub fn pad_to(&mut self, len: u64) {
        self.push(Piece::Zeros(len.saturating_sub(self.len)));
    }

    /// Adds zeros up to the next multiple of a number.
    pub fn align(&mut self, multiple: u64) {
        self.pad_to(self.len.next_multiple_of(multiple));
    }

    /// Returns a part of the file. What lies behind its end is left out.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut part = Self::default();
        let mut start = 0;
        for piece in &self.pieces {
            let end = start + piece.len();
            let inside = range.start.max(start)..range.end.min(end);
            if inside.start < inside.end {
                part.push(piece.slice(&(inside.start - start..inside.end - start)));
            }
            start = end;
        }
        part
    }

    /// Returns a reader of the whole file. Its errors carry an [`ArtifactError`] when the store lacks something.
    pub fn reader<'a>(&'a self, store: &'a Store) -> PlanReader<'a> {
        PlanReader { pieces: self.pieces.iter(), store, now: Source::Nothing }
    }

    /// Returns the digest of the file.
    ///
    /// # Errors
    ///
    /// Fails when an artifact cannot be read.
    pub fn sha256(&self, store: &Store) -> io::Result<Digest> {
        let mut hasher = Hasher::default();
        self.each_chunk(store, |chunk| hasher.update(chunk))?;
        Ok(hasher.finish())
    }

    /// Hands the whole file to a function, a chunk at a time.
    pub(super) fn each_chunk(&self, store: &Store, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.try_each_chunk(store, |chunk| {
            take(chunk);
            Ok(())
        })
    }

    fn try_each_chunk(
        &self,
        store: &Store,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut reader = self.reader(store);
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                got => take(buffer.get(..got).unwrap_or_default())?,
            }
        }
    }

    /// Writes the file to any writer.
    ///
    /// # Errors
    ///
    /// Fails when an artifact cannot be read or the writer fails.
    pub fn write(&self, store: &Store, out: &mut impl Write) -> io::Result<()> {
        self.try_each_chunk(store, |chunk| out.write_all(chunk))
    }

    /// Writes the file to an empty file, with holes where there are zeros.
    ///
    /// # Errors
    ///
    /// Fails when an artifact cannot be read or the file cannot be written.
    pub fn write_sparse(&self, store: &Store, out: &mut File) -> io::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Zeros(len) if *len >= HOLE => {
                    let len = i64::try_from(*len).map_err(io::Error::other)?;
                    out.seek(SeekFrom::Current(len))?;
                }
                Piece::Bytes(bytes) => out.write_all(bytes)?,
                Piece::Zeros(len) => io::copy(&mut io::repeat(0).take(*len), out).map(drop)?,
                Piece::Artifact { digest, offset, len } => {
                    let (mut file, path) = open(store, digest, *offset, *len)?;
                    // From file to file the kernel copies, or lets them share what is on the disk.
                    if io::copy(&mut file, out)? != *len {
                        return Err(lacking(path, io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
        // A hole at the end is only there once the length says so.
        out.set_len(self.len)
    }
}

/// Reads a [`Plan`] from its beginning to its end.
#[derive(Debug)]
pub struct PlanReader<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    store: &'a Store,
    now: Source<'a>,
}

/// What is left of the part that is being read.
#[derive(Debug)]
enum Source<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Zeros(u64),
    File { file: io::Take<File>, path: PathBuf },
}

/// Opens a part of an artifact.
fn open(
    store: &Store,
    digest: &Digest,
    offset: u64,
    len: u64,
) -> io::Result<(io::Take<File>, PathBuf)> {
    let path = store.artifact(digest);
    let open = || {
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(len))
    };
    match open() {
        Ok(file) => Ok((file, path)),
        Err(source) => Err(lacking(path, source)),
    }
}

fn lacking(path: PathBuf, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), ArtifactError { path, source })
}

impl Read for PlanReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.now {
                Source::Bytes(bytes) if !bytes.is_empty() => return bytes.read(buffer),
                Source::Zeros(left) if *left > 0 => {
                    let got = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    buffer.get_mut(..got).unwrap_or_default().fill(0);
                    *left -= got as u64;
                    return Ok(got);
                }
                Source::File { file, path } if file.limit() > 0 => {
                    return match file.read(buffer) {
                        Ok(0) => Err(lacking(path.clone(), io::ErrorKind::UnexpectedEof.into())),
                        Err(source) => Err(lacking(path.clone(), source)),
                        read => read,
                    };
                }
                _ => {}
            }
            self.now = match self.pieces.next() {
                None => return Ok(0),
                Some(Piece::Bytes(bytes)) => Source::Bytes(bytes),
                Some(Piece::Zeros(len)) => Source::Zeros(*len),
                Some(Piece::Artifact { digest, offset, len }) => {
                    let (file, path) = open(self.store, digest, *offset, *len)?;
                    Source::File { file, path }
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    fn plan(store: &Store) -> (Plan, Vec<u8>) {
        let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let digest = store.put(&body).unwrap();
        let mut plan = Plan::default();
        plan.push_bytes(&b"head"[..]);
        plan.push_artifact(digest, body.len() as u64);
        plan.align(4096);
        plan.pad_to(3 * 4096 + 9000);
        plan.push(Piece::Artifact { digest, offset: 100, len: 5 });
        plan.pad_to(64 << 10);
        let mut bytes = b"head".to_vec();
        bytes.extend_from_slice(&body);
        bytes.resize(3 * 4096 + 9000, 0);
        bytes.extend_from_slice(&body[100..105]);
        bytes.resize(64 << 10, 0);
        (plan, bytes)
    }

    #[test]
    fn a_plan_knows_its_length_and_digest_and_writes_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (plan, bytes) = plan(&store);
        assert_eq!(plan.len(), bytes.len() as u64);
        assert_eq!(plan.sha256(&store).unwrap(), sha256(&bytes));
        let mut written = Vec::new();
        plan.write(&store, &mut written).unwrap();
        assert_eq!(written, bytes);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        plan.write_sparse(&store, file.as_file_mut()).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
    }

    #[test]
    fn any_range_of_a_plan_is_that_range_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (plan, bytes) = plan(&store);
        for (start, end) in
            [(0, 3), (2, 11), (4, 10_004), (9_990, 22_000), (21_289, 21_292), (7, 7)]
        {
            let part = plan.slice(start..end);
            let mut read = Vec::new();
            part.reader(&store).read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]);
            assert_eq!(part.len(), end - start);
        }
        assert_eq!(plan.slice(1 << 40..1 << 41), Plan::default());
    }

    #[test]
    fn an_artifact_that_is_short_or_gone_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"abc").unwrap();
        for (digest, len) in [(digest, 4), (sha256(b"other"), 1)] {
            let mut plan = Plan::default();
            plan.push_artifact(digest, len);
            let mut file = tempfile::tempfile().unwrap();
            for result in [plan.sha256(&store).map(drop), plan.write_sparse(&store, &mut file)] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(&digest.hex()), "{error}");
            }
        }
    }
}
