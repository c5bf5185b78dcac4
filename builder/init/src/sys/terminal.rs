//! Terminals: their size, and new ones (`ioctl_tty(2)`, `pts(4)`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

nix::ioctl_read_bad!(get_size, libc::TIOCGWINSZ, libc::winsize);
nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, libc::winsize);
nix::ioctl_write_ptr_bad!(set_lock, libc::TIOCSPTLCK, libc::c_int);
nix::ioctl_write_int_bad!(open_peer, libc::TIOCGPTPEER);
nix::ioctl_write_int_bad!(make_controlling, libc::TIOCSCTTY);
// `VT_ACTIVATE` of linux/vt.h.
nix::ioctl_write_int_bad!(activate, 0x5606);

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// Returns the size of a terminal.
pub(crate) fn terminal_size(terminal: &impl AsFd) -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the kernel writes one `winsize`.
    unsafe { get_size(terminal.as_fd().as_raw_fd(), &mut size) }.ok()?;
    Some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Tells a terminal its size.
pub(crate) fn resize_terminal(terminal: &impl AsFd, size: Size) {
    let size =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the kernel reads one `winsize`.
    let _ = unsafe { set_size(terminal.as_fd().as_raw_fd(), &size) };
}

/// Opens a new terminal of the file system that is at `/dev/pts`: the end for who shows it, and the end for programs.
pub(crate) fn open_terminal() -> io::Result<(File, OwnedFd)> {
    let own = libc::O_NOCTTY | libc::O_NONBLOCK;
    let master =
        OpenOptions::new().read(true).write(true).custom_flags(own).open("/dev/pts/ptmx")?;
    // SAFETY: the descriptor is open, and the kernel reads one `int`.
    unsafe { set_lock(master.as_raw_fd(), &0) }?;
    // SAFETY: the descriptor is open, and the call takes flags.
    let peer = unsafe { open_peer(master.as_raw_fd(), libc::O_RDWR | libc::O_NOCTTY) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok((master, unsafe { OwnedFd::from_raw_fd(peer) }))
}

/// Shows the virtual terminal of this number on the screen to which a virtual terminal belongs.
pub(crate) fn show_terminal(terminal: &impl AsFd, number: u16) {
    // SAFETY: the descriptor is open, and the argument is a number.
    let _ = unsafe { activate(terminal.as_fd().as_raw_fd(), i32::from(number)) };
}

/// Makes a terminal the one from which this session is controlled.
pub(crate) fn control_from(terminal: &impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the argument says that no terminal is taken from another session.
    unsafe { make_controlling(terminal.as_fd().as_raw_fd(), 0) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_terminal_has_the_size_that_it_is_told() {
        // Where tests are built there may be no terminals.
        let Ok((master, peer)) = open_terminal() else { return };
        let size = Size { rows: 33, columns: 44 };
        resize_terminal(&master, size);
        assert_eq!(terminal_size(&peer), Some(size));
        assert_eq!(terminal_size(&File::open("/dev/null").unwrap()), None);
    }
}
