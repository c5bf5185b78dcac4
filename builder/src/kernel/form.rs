//! The forms in which kernels come, and what is packed inside them.
//!
//! | form | begins with | inside |
//! |---|---|---|
//! | bzImage | a boot sector, `HdrS` at 0x202 (`Documentation/arch/x86/boot.rst`) | a compressed ELF file |
//! | Image of arm64 | `ARM\x64` at 0x38 (`Documentation/arch/arm64/booting.rst`) | itself |
//! | zboot | `zimg` at 4 (`drivers/firmware/efi/libstub/zboot-header.S`) | a compressed Image |
//! | gzip | 1f 8b | any of these |

use std::io::{self, Read};

use super::MAX_KERNEL;

/// Memory that unpacking a kernel may take: its compressors use windows of up to 128 MiB.
const WINDOW_LOG: u32 = 27;
const XZ_MEMORY: u64 = 160 << 20;

/// What a kernel's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// A bzImage of x86.
    BzImage,
    /// An Image of arm64, not compressed.
    Arm64Image,
    /// An arm64 Image that unpacks itself where UEFI starts it.
    Zboot,
    /// A file that no loader takes before it is unpacked.
    Gzip,
    /// Something else.
    Other,
}

impl Form {
    /// Returns the form of a file.
    pub fn of(bytes: &[u8]) -> Self {
        let has = |at: usize, mark: &[u8]| bytes.get(at..).is_some_and(|b| b.starts_with(mark));
        match () {
            () if has(0, &[0x1f, 0x8b]) => Self::Gzip,
            () if has(0x202, b"HdrS") => Self::BzImage,
            () if has(0, b"MZ") && has(4, b"zimg") => Self::Zboot,
            () if has(0x38, b"ARM\x64") => Self::Arm64Image,
            () => Self::Other,
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

/// Returns the compressed part of a bzImage (protocol 2.08 and later) or of a zboot file.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let (at, len) = match Form::of(bytes) {
        Form::BzImage => {
            let version = u16::from_le_bytes(bytes.get(0x206..0x208)?.try_into().ok()?);
            let setup = match *bytes.get(0x1f1)? {
                0 => 4,
                sectors => usize::from(sectors),
            };
            let at = ((setup + 1) * 512).checked_add(number(bytes, 0x248)?)?;
            (version >= 0x208).then_some((at, number(bytes, 0x24c)?))?
        }
        Form::Zboot => (number(bytes, 8)?, number(bytes, 12)?),
        _ => return None,
    };
    bytes.get(at..at.checked_add(len)?)
}

/// Returns a reader of the uncompressed kernel in any form, or nothing when it is compressed in a way that is not
/// known here, such as LZ4. It ends after 256 MiB.
///
/// # Errors
///
/// Fails when the decompressor cannot be made.
pub(super) fn unpacked(bytes: &[u8]) -> io::Result<Option<Box<dyn Read + '_>>> {
    let packed = match Form::of(bytes) {
        Form::BzImage | Form::Zboot => match payload(bytes) {
            Some(payload) => payload,
            None => return Ok(None),
        },
        _ => bytes,
    };
    let reader: Box<dyn Read + '_> = match packed {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        [0x5d, 0, 0, ..] => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        _ if matches!(Form::of(bytes), Form::BzImage | Form::Zboot) => return Ok(None),
        plain => Box::new(plain),
    };
    Ok(Some(Box::new(reader.take(MAX_KERNEL))))
}

/// Reads all of the uncompressed kernel.
///
/// # Errors
///
/// Fails when it cannot be unpacked, or unpacks to more than 256 MiB.
pub(super) fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let Some(mut reader) = unpacked(bytes)? else {
        return Err(io::Error::other(
            "it is compressed in a way that Kiln cannot unpack; gzip, zstd, xz and LZMA are known",
        ));
    };
    let mut all = Vec::new();
    reader.read_to_end(&mut all)?;
    if all.len() as u64 >= MAX_KERNEL {
        return Err(io::Error::other("it unpacks to more than 256 MiB"));
    }
    Ok(all)
}

/// Returns the release that a bzImage names in its header.
pub(super) fn release(bytes: &[u8]) -> Option<String> {
    if Form::of(bytes) != Form::BzImage {
        return None;
    }
    let at = u16::from_le_bytes(bytes.get(0x20e..0x210)?.try_into().ok()?);
    let text = bytes.get(usize::from(at).checked_add(0x200)?..)?;
    word(text)
}

/// Looks for `Linux version RELEASE` in an uncompressed kernel.
///
/// # Errors
///
/// Fails when the kernel cannot be read.
pub(super) fn find_release(mut kernel: impl Read) -> io::Result<Option<String>> {
    const MARK: &[u8] = b"Linux version ";
    const LONGEST: usize = 128;
    let mut window = Vec::new();
    loop {
        let read = kernel.by_ref().take(1 << 20).read_to_end(&mut window)?;
        for at in memchr::memmem::find_iter(&window, MARK) {
            let text = &window[at + MARK.len()..];
            // The kernel has the words in format strings as well, with `%s` after them.
            let release = (text.len() >= LONGEST || read == 0).then(|| word(text)).flatten();
            if release.as_ref().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit())) {
                return Ok(release);
            }
        }
        if read == 0 {
            return Ok(None);
        }
        let keep = window.len().saturating_sub(MARK.len() + LONGEST);
        window.drain(..keep);
    }
}

/// Returns the first word of a text, if it is fit to be a release: it becomes part of paths.
fn word(text: &[u8]) -> Option<String> {
    let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'~');
    let len = text.iter().take(65).take_while(|b| fine(b)).count();
    let ends = matches!(text.get(len), Some(b' ' | 0 | b'\n'));
    let word = str::from_utf8(&text[..len]).ok()?;
    ((1..=64).contains(&len) && ends && !word.starts_with('.')).then(|| word.to_owned())
}

/// Returns how much memory a kernel takes for itself once it runs, by the head of its file and the file's length: the
/// fields `init_size` of a bzImage (protocol 2.10) and `image_size` of an Image of arm64 say so. Others are taken to
/// unpack to five times their length.
pub(super) fn memory(head: &[u8], len: u64) -> u64 {
    let said = match Form::of(head) {
        Form::BzImage => number(head, 0x260).and_then(|n| u64::try_from(n).ok()),
        Form::Arm64Image => {
            head.get(16..24).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
        }
        _ => None,
    };
    said.filter(|said| (len..=len.saturating_mul(16)).contains(said)).unwrap_or(5 * len)
}

/// Returns whether the file has the headers of a PE program: `MZ`, and `PE` where its word at 0x3c says.
pub(super) fn has_efi_stub(bytes: &[u8]) -> bool {
    let mark = number(bytes, 0x3c).and_then(|at| bytes.get(at..)?.get(..4));
    bytes.starts_with(b"MZ") && mark == Some(b"PE\0\0")
}
