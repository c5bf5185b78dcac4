use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// How many bytes are copied at once.
const COPY: usize = 256 << 10;

/// Bytes of a regular file.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory: small things that Kiln makes itself.
    Bytes(Arc<[u8]>),
    /// A part of an open file, such as an unpacked package.
    Span {
        /// The file. It may have been unlinked.
        file: Arc<File>,
        /// Where the bytes begin.
        offset: u64,
        /// How many there are.
        len: u64,
    },
}

impl Content {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Span { len, .. } => *len,
        }
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at `pos`, which counts from the beginning of the content. Returns 0 at its end.
    ///
    /// # Errors
    ///
    /// Fails when the file below cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], pos: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(pos)).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let (buffer, _) = buffer.split_at_mut(want);
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(pos).unwrap_or(usize::MAX).min(bytes.len());
                buffer.copy_from_slice(&bytes[start..start + want]);
                Ok(want)
            }
            Self::Span { file, offset, .. } => file.read_at(buffer, offset + pos),
        }
    }

    /// Writes everything, in large pieces. The buffer may be used again for the next content.
    ///
    /// # Errors
    ///
    /// Fails when the file below cannot be read or is shorter than it was, and when the bytes cannot be written.
    pub fn copy_to(&self, out: &mut impl io::Write, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Self::Bytes(bytes) = self {
            return out.write_all(bytes);
        }
        buffer.resize(COPY, 0);
        let mut pos = 0;
        while pos < self.len() {
            match self.read_at(buffer, pos) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    out.write_all(&buffer[..n])?;
                    pos += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns a reader from the beginning.
    pub const fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, pos: 0 }
    }

    /// Reads everything into memory.
    ///
    /// # Errors
    ///
    /// Fails when there is more than `limit`, or when the file below cannot be read.
    pub fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len() > limit {
            return Err(io::Error::other(format!(
                "{} bytes where at most {limit} fit",
                self.len()
            )));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.reader(), &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a [`Content`] from its beginning to its end.
#[derive(Debug)]
pub struct ContentReader<'a> {
    content: &'a Content,
    pos: u64,
}

impl io::Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read_at(buffer, self.pos)?;
        if n == 0 && !buffer.is_empty() && self.pos < self.content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pos += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_shorter_than_promised_is_an_error_not_a_short_read() {
        let content =
            Content::Span { file: Arc::new(tempfile::tempfile().unwrap()), offset: 0, len: 3 };
        assert_eq!(content.read_all(10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let copied = content.copy_to(&mut io::sink(), &mut Vec::new());
        assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
