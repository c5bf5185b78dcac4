//! Reading files without making a thread wait for the disk that serves connections.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Reads what is in memory already, and returns nothing when the disk has to be asked.
///
/// # Errors
///
/// Fails when the file cannot be read.
pub(super) fn read_now(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(Some(read)),
        // Some file systems cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether the last byte of a part is in memory, and with it, because files are read forwards, what is before
/// it. Where the file system cannot tell, it says so too.
pub(super) fn is_in_memory(file: &File, offset: u64, len: usize) -> bool {
    let Some(last) = len.checked_sub(1) else { return true };
    let mut byte = [0];
    let at =
        |offset| preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    let mut at = at;
    [offset, offset + last as u64].into_iter().all(|offset| at(offset) != Err(Errno::AGAIN))
}

/// Reads a part, and waits for the disk. Keeps the bytes when they are wanted, else leaves them in the kernel's memory.
///
/// # Errors
///
/// Fails when the file cannot be read.
pub(super) fn read(file: &File, offset: u64, len: usize, keep: bool) -> io::Result<Bytes> {
    if keep {
        let mut buffer = BytesMut::zeroed(len);
        let read = file.read_at(&mut buffer, offset)?;
        buffer.truncate(read);
        return Ok(buffer.freeze());
    }
    let mut scratch = vec![0; len.min(64 << 10)];
    let (mut at, end) = (offset, offset + len as u64);
    while at < end {
        let read = file.read_at(&mut scratch, at)?;
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(Bytes::new())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_part_of_a_file_is_the_same_from_memory_and_from_the_disk() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        file.write_all(&bytes).unwrap();
        let kept = read(&file, 1000, 500, true).unwrap();
        assert_eq!(kept, bytes[1000..1500]);
        assert!(read(&file, 0, bytes.len(), false).unwrap().is_empty());
        assert!(is_in_memory(&file, 0, bytes.len()));
        let mut buffer = [0; 500];
        if let Some(read) = read_now(&file, &mut buffer, 1000).unwrap() {
            assert_eq!(buffer[..read], bytes[1000..1000 + read]);
        }
        assert!(read(&file, 1 << 30, 10, true).unwrap().is_empty(), "beyond its end");
    }
}
