//! The time after which a watchdog resets the machine (linux/watchdog.h).

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::libc;

nix::ioctl_readwrite!(set_time, b'W', 6, libc::c_int);

/// Sets the time of an open watchdog and returns the one that it took: hardware has its own steps.
pub(crate) fn set_watchdog_time(watchdog: &File, seconds: i32) -> nix::Result<i32> {
    let mut seconds: libc::c_int = seconds;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `int`.
    unsafe { set_time(watchdog.as_raw_fd(), &mut seconds) }?;
    Ok(seconds)
}
