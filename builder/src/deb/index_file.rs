//! Lists of packages, in the cache and as mirrors have them.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use kiln_types::Digest;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use tempfile::NamedTempFile;

use super::error::DebError;
use crate::durable::folder_of;
use crate::fetch::publish;
use crate::hash::sha256;

const XZ_MEMORY: u64 = 256 << 20;
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a list is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packed {
    Xz,
    Zstd,
    Gzip,
    Plain,
}

impl Packed {
    /// The smallest first.
    pub(super) const ALL: [Self; 4] = [Self::Xz, Self::Zstd, Self::Gzip, Self::Plain];

    /// Returns what the name of the file ends with.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::Plain => "",
        }
    }

    /// Returns the extension of the fetched file.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Zstd => "zst",
            Self::Gzip => "gz",
            Self::Plain => "txt",
        }
    }

    fn open<'r>(self, reader: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Xz => Box::new(xz(reader)?),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Self::Gzip => Box::new(MultiGzDecoder::new(reader)),
            Self::Plain => Box::new(reader),
        })
    }
}

/// Reads an index from the cache if it is there and whole.
pub(super) fn read_index(
    path: &Path,
    size: u64,
    digest: Digest,
) -> Result<Option<String>, DebError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DebError::Cache { path: path.to_owned(), source }),
    };
    let whole = bytes.len() as u64 == size && sha256(&bytes) == digest;
    Ok(if whole { String::from_utf8(bytes).ok() } else { None })
}

/// Unpacks a fetched index into the cache and checks it: what is parsed is what was signed.
pub(super) fn unpack_index(
    form: Packed,
    packed: &Path,
    path: &Path,
    size: u64,
    digest: Digest,
) -> Result<String, IndexError> {
    let reader = File::open(packed).map_err(IndexError::Io)?;
    let mut text = Vec::new();
    let decoder = form.open(reader).map_err(IndexError::Unpack)?;
    decoder.take(size + 1).read_to_end(&mut text).map_err(IndexError::Unpack)?;
    if text.len() as u64 != size || sha256(&text) != digest {
        return Err(IndexError::Other("its content is not the one that was signed"));
    }
    let mut temp = NamedTempFile::new_in(folder_of(path)).map_err(IndexError::Io)?;
    temp.write_all(&text).map_err(IndexError::Io)?;
    temp.as_file().sync_all().map_err(IndexError::Io)?;
    publish(temp, path).map_err(IndexError::Publish)?;
    String::from_utf8(text).map_err(|_| IndexError::Other("it is not text"))
}

pub(super) enum IndexError {
    Io(io::Error),
    Unpack(io::Error),
    Publish(crate::fetch::FetchError),
    Other(&'static str),
}

pub(super) fn bad_index(error: IndexError, path: &Path, url: &str) -> DebError {
    let bad = |reason| DebError::Index { url: url.to_owned(), reason };
    match error {
        IndexError::Io(error) => DebError::cache(path)(error),
        IndexError::Publish(error) => error.into(),
        IndexError::Unpack(error) => bad(format!("it cannot be unpacked ({error})")),
        IndexError::Other(reason) => bad(reason.to_owned()),
    }
}

/// Returns a reader of xz data that uses a limited amount of memory.
pub(crate) fn xz<R: Read>(reader: R) -> io::Result<XzDecoder<R>> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
    Ok(XzDecoder::new_stream(reader, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_list_gives_the_signed_text() {
        let text = b"Package: a\n".repeat(100);
        let dir = tempfile::tempdir().unwrap();
        for form in Packed::ALL {
            let packed = match form {
                Packed::Xz => liblzma::encode_all(text.as_slice(), 6).unwrap(),
                Packed::Zstd => zstd::encode_all(text.as_slice(), 3).unwrap(),
                Packed::Gzip => {
                    let mut out =
                        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                    out.write_all(&text).unwrap();
                    out.finish().unwrap()
                }
                Packed::Plain => text.clone(),
            };
            let (from, to) = (dir.path().join("packed"), dir.path().join("text"));
            fs::write(&from, packed).unwrap();
            let unpack = |size, digest| unpack_index(form, &from, &to, size, digest);
            let size = text.len() as u64;
            assert!(unpack(size, sha256(&text)).is_ok_and(|found| found.as_bytes() == text));
            // Neither more nor other text than was signed.
            assert!(unpack(size - 1, sha256(&text[1..])).is_err());
            assert!(unpack(size, sha256(b"other")).is_err());
        }
    }
}
