//! Sends windows of blocks.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::transfer::Transfer;
use super::wire;

/// What one datagram may hold before the kernel cuts it into blocks (`UDP_MAX_SEGMENTS`, and the length that IP can have).
const MAX_SEGMENTS: u64 = 64;
const MAX_BYTES: u64 = 65_000;

/// The way to one client.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) socket: UdpSocket,
    pub(super) peer: SocketAddr,
    to: SockaddrStorage,
    /// Whether the kernel cuts one large datagram into blocks, which costs one way through its layers instead of many.
    cuts: bool,
}

impl Way {
    pub(super) fn new(socket: UdpSocket, peer: SocketAddr) -> Self {
        Self { socket, peer, to: SockaddrStorage::from(peer), cuts: true }
    }

    /// Sends the answer to the options.
    pub(super) fn send_options(&self, answer: &[u8]) -> io::Result<()> {
        lossy(self.packet(&[IoSlice::new(answer)], None))
    }

    /// Sends some blocks, which have these bytes. What the kernel has no room for is lost, as anything can be on its way.
    pub(super) fn send(
        &mut self,
        blocks: Range<u64>,
        transfer: &Transfer,
        bytes: &[u8],
    ) -> io::Result<()> {
        let start = transfer.span(&blocks).start;
        let length = transfer.block() + 4;
        let at_once = (MAX_BYTES / u64::from(length)).clamp(1, MAX_SEGMENTS);
        let mut next = blocks.start;
        while next < blocks.end {
            let mut end = next + 1;
            if self.cuts {
                end = (next + at_once).min(blocks.end);
            }
            let some = next..end;
            let span = transfer.span(&some);
            let some_bytes = bytes.get(span.start - start..span.end - start).unwrap_or_default();
            match self.blocks(some, length, transfer, some_bytes) {
                Err(error) if end > next + 1 && !is_passing(error) => {
                    // The interface or the kernel does not cut; one by one it goes.
                    tracing::debug!(%error, "tftp: blocks are sent one by one");
                    self.cuts = false;
                }
                result => {
                    lossy(result)?;
                    next = end;
                }
            }
        }
        Ok(())
    }

    fn blocks(
        &self,
        blocks: Range<u64>,
        length: u16,
        transfer: &Transfer,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let head = |block: u64| wire::data_head(transfer.number(block));
        if blocks.end == blocks.start + 1 {
            let head = head(blocks.start);
            return self.packet(&[IoSlice::new(&head), IoSlice::new(bytes)], None);
        }
        let mut bodies = bytes.chunks(transfer.block().into());
        let heads: Vec<[u8; 4]> = blocks.map(head).collect();
        let mut body = || bodies.next().unwrap_or_default();
        let parts: Vec<IoSlice<'_>> =
            heads.iter().flat_map(|head| [IoSlice::new(head), IoSlice::new(body())]).collect();
        self.packet(&parts, Some(length))
    }

    fn packet(&self, parts: &[IoSlice<'_>], cut: Option<u16>) -> Result<(), Errno> {
        let cut = cut.as_ref().map(ControlMessage::UdpGsoSegments);
        let control = cut.as_slice();
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(self.socket.as_raw_fd(), parts, control, flags, Some(&self.to)).map(drop)
    }
}

/// Returns whether an error says that there is no room at this moment.
fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR)
}

fn lossy(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(error) if !is_passing(error) => Err(error.into()),
        _ => Ok(()),
    }
}
