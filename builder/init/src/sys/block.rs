//! Block devices.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

// `BLKRRPART` of linux/fs.h.
nix::ioctl_none!(reread, 0x12, 95);

/// Has the kernel read the partition table of a disk again.
pub(crate) fn read_partitions_again(disk: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes no argument.
    unsafe { reread(disk.as_raw_fd()) }?;
    Ok(())
}
