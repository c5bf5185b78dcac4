//! Requests to the kernel about links, addresses and routes (`rtnetlink(7)`), and news of them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Numbers of linux/netlink.h and linux/rtnetlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
pub(super) const HEADER: usize = 16;
/// How long the kernel may take to answer.
const PATIENCE_SECS: i64 = 5;
/// More news than this at once is not counted, only noticed.
const MOST_NEWS: usize = 64;

/// Asks the kernel, one request at a time.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> nix::Result<Self> {
        let socket = open()?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECS))?;
        Ok(Self(socket))
    }

    /// Sends one request and waits for the verdict.
    pub(super) fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        let message = message(kind, flags, body)?;
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(answer.get(..length).unwrap_or_default())
    }
}

/// Hears when something about a link or an IPv6 address changes.
#[derive(Debug)]
pub(super) struct News(OwnedFd);

impl News {
    pub(super) fn open() -> nix::Result<Self> {
        let socket = open()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK | RTMGRP_IPV6_IFADDR))?;
        Ok(Self(socket))
    }

    /// Waits until there are some, and takes them.
    pub(super) fn wait(&self) {
        let mut sockets = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut sockets, PollTimeout::NONE);
        self.take(0);
    }

    /// Takes what has come in without waiting, and says whether any of it is about this interface.
    pub(super) fn take(&self, index: u32) -> bool {
        let mut about_it = false;
        let mut buffer = [0; 4096];
        for _ in 0..MOST_NEWS {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                // The kernel puts one change into each datagram.
                Ok(length) => {
                    let text = buffer.get(..length).unwrap_or_default();
                    about_it |= subject(text).is_none_or(|subject| subject == index);
                }
                Err(Errno::EAGAIN) => break,
                // Some were lost, so anything may have changed.
                Err(_) => about_it = true,
            }
        }
        about_it
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
}

/// The index stands at the same place of `struct ifinfomsg` and `struct ifaddrmsg`.
fn subject(message: &[u8]) -> Option<u32> {
    let index = message.get(HEADER + 4..HEADER + 8)?;
    index.try_into().map(u32::from_ne_bytes).ok()
}

fn message(kind: u16, flags: u16, body: &[u8]) -> nix::Result<Vec<u8>> {
    let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Number of the request and of the asker: there is one of each.
    message.extend([0; 8]);
    message.extend(body);
    Ok(message)
}

/// Length, type and value, padded to a multiple of four.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// An answer is a header and an error number, which is 0 when all went well.
fn verdict(answer: &[u8]) -> nix::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
    match (kind, error.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw(error.wrapping_neg())),
        _ => Err(Errno::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_wants_it() {
        let bytes = message(16, NLM_F_CREATE, &[7; 24]).unwrap();
        assert_eq!(bytes.len(), HEADER + 24);
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 16u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x405u16.to_ne_bytes());
        // Padded: `veth` has four letters, `wg` two.
        assert_eq!(attribute(1, b"wg"), [6, 0, 1, 0, b'w', b'g', 0, 0]);
    }

    #[test]
    fn the_verdict_of_the_kernel_is_understood() {
        assert_eq!(verdict(&[0; 8]), Err(Errno::EBADMSG));
        let mut answer = message(NLMSG_ERROR, 0, &0i32.to_ne_bytes()).unwrap();
        assert_eq!(verdict(&answer), Ok(()));
        answer[HEADER..].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(verdict(&answer), Err(Errno::EEXIST));
    }

    #[test]
    fn news_are_told_apart_by_the_interface() {
        let mut news = message(16, 0, &[0; 16]).unwrap();
        news[HEADER + 4] = 3;
        assert_eq!(subject(&news), Some(u32::from_ne_bytes([3, 0, 0, 0])));
        assert_eq!(subject(&news[..20]), None);
        assert!(!News::open().unwrap().take(1), "nothing has happened yet");
    }
}
