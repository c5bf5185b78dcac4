//! Open files handed from one process to another over a socket (`unix(7)`, `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// No more are ever handed over at a time.
const MOST: usize = 3;

/// Hands files over.
pub(crate) fn send_files(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&files)];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(b"f")],
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Takes files; there must be just so many of them.
pub(crate) fn receive_files(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut bytes,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = part {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else has them.
            files.extend(rights.iter().map(|file| unsafe { OwnedFd::from_raw_fd(*file) }));
        }
    }
    if files.len() == count {
        Ok(files)
    } else {
        Err(io::Error::other(format!("{} files came, not {count}", files.len())))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_arrive_and_are_counted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send_files(&theirs, &[file.as_fd(), file.as_fd()]).unwrap();
        assert_eq!(receive_files(&ours, 2).unwrap().len(), 2);
        send_files(&theirs, &[file.as_fd()]).unwrap();
        assert!(receive_files(&ours, 3).is_err());
        (&theirs).write_all(b"x").unwrap();
        assert!(receive_files(&ours, 3).is_err());
        drop(theirs);
        assert!(receive_files(&ours, 3).is_err());
    }
}
