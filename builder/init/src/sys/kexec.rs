use std::ffi::CString;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;

/// Says whether the kernel that runs can load another one from files (`CONFIG_KEXEC_FILE`).
pub(crate) fn kexec_by_file() -> nix::Result<()> {
    // Unloads what was loaded before, which is nothing most of the time.
    call(-1, -1, &CString::default(), libc::KEXEC_FILE_UNLOAD)
}

/// Loads a kernel and its initrd, to be started in place of a reboot.
pub(crate) fn kexec_load_files(kernel: &File, initrd: &File, cmdline: &str) -> nix::Result<()> {
    let cmdline = CString::new(cmdline).map_err(|_| Errno::EINVAL)?;
    call(kernel.as_raw_fd(), initrd.as_raw_fd(), &cmdline, 0)
}

fn call(kernel: i32, initrd: i32, cmdline: &CString, flags: i32) -> nix::Result<()> {
    let bytes = cmdline.as_bytes_with_nul();
    // SAFETY: the kernel reads the text during the call only, and only as many bytes as it has; descriptors that are
    // not open are refused by it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel,
            initrd,
            bytes.len(),
            bytes.as_ptr(),
            libc::c_long::from(flags),
        )
    };
    Errno::result(result).map(drop)
}

/// A piece of memory as the next kernel finds it.
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where it will lie; on a page.
    pub(crate) address: u64,
    /// How much memory it has there, in whole pages.
    pub(crate) space: u64,
}

/// Loads pieces of memory, to be entered at an address in place of a reboot.
pub(crate) fn kexec_load_pieces(entry: u64, pieces: &[Piece<'_>]) -> nix::Result<()> {
    /// As in `linux/kexec.h`.
    #[repr(C)]
    struct Segment {
        bytes: *const u8,
        length: usize,
        address: u64,
        space: u64,
    }
    let segments: Vec<Segment> = pieces
        .iter()
        .map(|piece| Segment {
            bytes: piece.bytes.as_ptr(),
            length: piece.bytes.len(),
            address: piece.address,
            space: piece.space,
        })
        .collect();
    // SAFETY: the kernel reads the list and the bytes that it names during the call only; both are alive until it
    // returns, and the lengths are theirs. Flags 0: this architecture, to be started by a reboot.
    let result = unsafe {
        libc::syscall(libc::SYS_kexec_load, entry, segments.len(), segments.as_ptr(), 0_usize)
    };
    Errno::result(result).map(drop)
}

/// A file in memory, seen as bytes.
pub(crate) struct Mapped {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

impl Mapped {
    /// The file must be one that nobody changes as long as this lives: one of `memfd_create` that is ours alone.
    pub(crate) fn new(file: &File) -> nix::Result<Self> {
        let length = file.metadata().map(|data| data.len()).unwrap_or_default();
        let length = usize::try_from(length).ok().and_then(NonZeroUsize::new);
        let length = length.ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length.get(),
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(start).map(|start| Self { start, length }).ok_or(Errno::EINVAL)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has this length, can be read, lives as long as `self`, and nobody changes the file.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length.get()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr(), self.length.get()) };
    }
}
