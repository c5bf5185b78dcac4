//! Unpacks modules, each compressed in its own way, into one file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::info::ModuleInfo;
use super::{Chosen, ModulesError, plain};
use crate::tree::{Content, Tree, TreePath};

/// No module comes near this.
const MAX_MODULE: u64 = 128 << 20;
/// Memory that unpacking one module may take.
const XZ_MEMORY: u64 = 256 << 20;
const WINDOW_LOG: u32 = 27;

/// Unpacked modules, in one file that has no name.
pub(super) struct Spool<'a> {
    dir: &'a Path,
    file: Arc<File>,
    end: u64,
}

impl<'a> Spool<'a> {
    pub(super) fn new(dir: &'a Path) -> Result<Self, ModulesError> {
        let file = tempfile::tempfile_in(dir).map_err(ModulesError::spool(dir))?;
        Ok(Self { dir, file: Arc::new(file), end: 0 })
    }

    pub(super) fn unpack(
        &mut self,
        package: &Tree,
        base: &str,
        file: &str,
    ) -> Result<Chosen, ModulesError> {
        let (bytes, info) = read(package, base, file)?;
        let offset = self.end;
        self.file.write_all_at(&bytes, offset).map_err(ModulesError::spool(self.dir))?;
        let len = bytes.len() as u64;
        self.end += len;
        let content = Content::Span { file: Arc::clone(&self.file), offset, len };
        let file = plain(file).to_owned();
        Ok(Chosen { file, info, content })
    }
}

/// Reads a module and what it says about itself.
pub(super) fn read(
    package: &Tree,
    base: &str,
    file: &str,
) -> Result<(Vec<u8>, ModuleInfo), ModulesError> {
    let path = TreePath::new(&format!("{base}{file}"))?;
    let failed = |source| ModulesError::Read { path: path.clone(), source };
    let content = package.content(&path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let bytes = unpack(file, content).map_err(failed)?;
    let info = ModuleInfo::parse(&bytes)
        .map_err(|source| ModulesError::NotModule { path: path.clone(), source })?;
    Ok((bytes, info))
}

/// Unpacks a module: inside a segment, which is compressed as a whole, it takes less room that way.
fn unpack(file: &str, content: &Content) -> io::Result<Vec<u8>> {
    let packed = content.reader();
    let reader: Box<dyn Read + '_> = match file.rsplit('.').next() {
        Some("xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        Some("zst") => {
            let mut decoder = zstd::Decoder::new(packed)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let mut bytes = Vec::new();
    reader.take(MAX_MODULE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MODULE {
        return Err(io::Error::other("it unpacks to more than 128 MiB"));
    }
    Ok(bytes)
}
