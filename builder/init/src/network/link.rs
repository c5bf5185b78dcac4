//! Network interfaces of containers: moved to them or made for them (`rtnetlink(7)`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Numbers of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/veth.h.
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const HEADER: usize = 16;
/// How long the kernel may take to answer.
const PATIENCE_SECS: i64 = 5;

/// Asks the kernel about network interfaces.
#[derive(Debug)]
pub(crate) struct Links(OwnedFd);

impl Links {
    pub(crate) fn open() -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECS))?;
        Ok(Self(socket))
    }

    /// Moves an interface of the machine into the network namespace of a process.
    pub(crate) fn give(&self, name: &str, pid: i32) -> nix::Result<()> {
        let index = if_nametoindex(name)?;
        self.ask(0, index, &[attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes())])
    }

    /// Makes an interface of a kind, such as `wireguard`, in the network namespace of a process or in the machine's.
    /// With a `peer` it is one end of a pair, of which the other one stays with the machine.
    pub(crate) fn make(
        &self,
        name: &str,
        kind: &str,
        peer: Option<&str>,
        pid: Option<i32>,
    ) -> nix::Result<()> {
        let mut info = attribute(IFLA_INFO_KIND, kind.as_bytes());
        if let Some(peer) = peer {
            let end = [link(0).as_slice(), &named(peer)?].concat();
            info.extend(attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &end)));
        }
        let mut attributes = vec![named(name)?, attribute(IFLA_LINKINFO, &info)];
        attributes.extend(pid.map(|pid| attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes())));
        self.ask(NLM_F_CREATE | NLM_F_EXCL, 0, &attributes)
    }

    fn ask(&self, flags: u16, index: u32, attributes: &[Vec<u8>]) -> nix::Result<()> {
        let message = message(flags, index, attributes)?;
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(answer.get(..length).unwrap_or_default())
    }
}

fn message(flags: u16, index: u32, attributes: &[Vec<u8>]) -> nix::Result<Vec<u8>> {
    let body = [link(index).as_slice(), &attributes.concat()].concat();
    let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Number of the request and of the asker: there is one of each.
    message.extend([0; 8]);
    message.extend(body);
    Ok(message)
}

/// `struct ifinfomsg`: family and type any, then the index, flags and which of them change.
fn link(index: u32) -> [u8; 16] {
    let mut link = [0; 16];
    if let Some(place) = link.get_mut(4..8) {
        place.copy_from_slice(&index.to_ne_bytes());
    }
    link
}

fn named(name: &str) -> nix::Result<Vec<u8>> {
    // `IFNAMSIZ` is 16 with the NUL.
    if name.is_empty() || name.len() > 15 || name.contains(['\0', '/']) {
        return Err(Errno::EINVAL);
    }
    Ok(attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat()))
}

/// Length, type and value, padded to a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
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
        (Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw(-error)),
        _ => Err(Errno::EBADMSG),
    }
}

/// Does what a bundle wants of one interface for the container with this first process.
pub(crate) fn arrange(
    name: &str,
    kind: &str,
    peer: &str,
    in_root: bool,
    pid: i32,
) -> io::Result<()> {
    let links = Links::open()?;
    let peer = (!peer.is_empty()).then_some(peer);
    // A pair is always of one kind.
    let kind = if kind.is_empty() && peer.is_some() { "veth" } else { kind };
    if kind.is_empty() {
        links.give(name, pid)?;
    } else if in_root {
        links.make(name, kind, peer, None)?;
        links.give(name, pid)?;
    } else {
        links.make(name, kind, peer, Some(pid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_wants_it() {
        let pid = attribute(IFLA_NET_NS_PID, &7i32.to_ne_bytes());
        let bytes = message(0, 3, &[pid]).unwrap();
        assert_eq!(bytes.len(), HEADER + 16 + 8);
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[4..6], RTM_NEWLINK.to_ne_bytes());
        assert_eq!(bytes[6..8], 5u16.to_ne_bytes());
        assert_eq!(bytes[20..24], 3u32.to_ne_bytes());
        assert_eq!(bytes[32..36], [8, 0, 19, 0]);
        // Padded: `veth` has four letters, `wg` two.
        assert_eq!(attribute(IFLA_INFO_KIND, b"wg"), [6, 0, 1, 0, b'w', b'g', 0, 0]);
    }

    #[test]
    fn a_name_that_is_no_name_is_refused() {
        for name in ["", "a-name-with-16-b", "a/b", "a\0"] {
            assert_eq!(named(name), Err(Errno::EINVAL), "{name:?}");
        }
        assert!(named("a-name-with-15b").is_ok());
    }

    #[test]
    fn the_answer_of_the_kernel_is_understood() {
        let links = Links::open().unwrap();
        // Whoever asks, no such process or no right.
        let error = links.make("kiln-test0", "veth", Some("kiln-test1"), Some(i32::MAX));
        assert!(matches!(error, Err(Errno::ESRCH | Errno::EPERM)), "{error:?}");
        assert!(links.give("no-such-link", 1).is_err());
        assert_eq!(verdict(&[0; 8]), Err(Errno::EBADMSG));
    }
}
