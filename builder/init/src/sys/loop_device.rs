//! Loop devices: a file as a block device (`loop(4)`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

const CONTROL: &str = "/dev/loop-control";
/// `LO_FLAGS_READ_ONLY` and `LO_FLAGS_AUTOCLEAR` of linux/loop.h: the device lets go of its file
/// with its last user, which is the mount.
const READ_ONLY_AND_AUTOCLEAR: u32 = 1 | 4;
/// Another process may take the device that was free a moment ago.
const ATTEMPTS: usize = 64;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

nix::ioctl_none_bad!(get_free, 0x4C82);
nix::ioctl_write_ptr_bad!(configure, 0x4C0A, Config);

/// A loop device that exists at least as long as this is held.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Attaches a file to a free loop device, read-only.
    pub(crate) fn attach(file: &Path) -> io::Result<Self> {
        let backing = File::open(file)?;
        let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        for _ in 0..ATTEMPTS {
            // SAFETY: the descriptor is open, and the call takes no argument.
            let number = unsafe { get_free(control.as_raw_fd()) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::open(&path)?;
            let config = config_for(&backing, file);
            // SAFETY: both descriptors are open, and the kernel reads one `loop_config`.
            match unsafe { configure(device.as_raw_fd(), &config) } {
                Ok(_) => return Ok(Self { path, _open: device }),
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EBUSY.into())
    }

    /// Returns the path of the device.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn config_for(backing: &File, file: &Path) -> Config {
    let mut file_name = [0; 64];
    // Only for people who look at /sys/block; the last byte stays zero.
    let name = file.as_os_str().as_encoded_bytes();
    for (place, byte) in file_name.iter_mut().take(63).zip(name) {
        *place = *byte;
    }
    Config {
        fd: u32::try_from(backing.as_raw_fd()).unwrap_or(u32::MAX),
        // That of the file system.
        block_size: 0,
        info: Info {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: READ_ONLY_AND_AUTOCLEAR,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_the_size_that_the_kernel_wants() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }

    #[test]
    fn a_file_that_is_not_there_cannot_be_attached() {
        let error = LoopDevice::attach(Path::new("/nonexistent/root.sqfs")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
