//! The one socket by which all machines speak DHCP.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Way;
use super::chance::Chance;
use crate::dhcp::client::Answer;
use crate::dhcp::make_room;

/// When a question is asked again, as EDK2 does: after 4, 8, 16 and then every 32 seconds.
const AGAIN: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(32);
/// Answers that may wait for one machine.
const ANSWERS: usize = 8;
/// Longest packet that is read.
const MAX_PACKET: usize = 1500;

/// All that waits for an answer, by the number of the question.
type Waiting = HashMap<u32, mpsc::Sender<(Answer, Instant)>>;

#[derive(Debug)]
pub(super) struct Wire {
    socket: UdpSocket,
    to: SocketAddrV4,
    /// Our own address, when we stand for a relay.
    pub(super) relay: Option<Ipv4Addr>,
    loss: u8,
    waiting: Mutex<Waiting>,
    counts: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    sent: AtomicU64,
    again: AtomicU64,
    unreadable: AtomicU64,
}

/// What went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Questions.
    pub(super) sent: u64,
    /// Of these, those that were asked before.
    pub(super) again: u64,
    /// Answers that say nothing.
    pub(super) unreadable: u64,
}

impl Wire {
    pub(super) fn open(way: &Way, loss: u8) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // One socket hears for all, where each machine would have one of its own.
        make_room(&socket, 64 << 20)?;
        let (own, to, relay) = match way {
            Way::Wire { interface } => {
                socket.bind_device(Some(interface.as_bytes()))?;
                socket.set_broadcast(true)?;
                let own = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
                (own, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), None)
            }
            Way::Relay { own, server } => {
                (SocketAddrV4::new(*own, 67), SocketAddrV4::new(*server, 67), Some(*own))
            }
        };
        socket.bind(&own.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let (waiting, counts) = (Mutex::default(), Counted::default());
        Ok(Self { socket, to, relay, loss, waiting, counts })
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counted { sent, again, unreadable } = &self.counts;
        Counts { sent: read(sent), again: read(again), unreadable: read(unreadable) }
    }

    /// Hands answers to the machines that wait for them, for ever.
    pub(super) async fn listen(self: Arc<Self>) {
        let mut packet = [0; MAX_PACKET];
        loop {
            let Ok((length, SocketAddr::V4(_))) = self.socket.recv_from(&mut packet).await else {
                // An interface that is down for a moment.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let now = Instant::now();
            match Answer::decode(packet.get(..length).unwrap_or_default()) {
                Ok(answer) => {
                    let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    // Nobody waits any more, or a server repeats itself: no loss.
                    let _ = waiting.get(&answer.xid).map(|to| to.try_send((answer, now)));
                }
                Err(_) => {
                    self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Asks until an answer comes that will do, and returns it with the time from the first question to it.
    pub(super) async fn ask(
        &self,
        xid: u32,
        packet: &[u8],
        patience: Duration,
        chance: &mut Chance,
        will_do: impl Fn(&Answer) -> bool,
    ) -> Option<(Answer, Duration)> {
        let (to, mut answers) = mpsc::channel(ANSWERS);
        let _listed = Listed::new(self, xid, to);
        let begun = Instant::now();
        let (end, mut wait) = (begun + patience, AGAIN);
        let mut first = true;
        while Instant::now() < end {
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
            self.counts.again.fetch_add(u64::from(!first), Ordering::Relaxed);
            first = false;
            if !chance.percent(self.loss) {
                // What cannot be sent is lost, as on any wire.
                let _ = self.socket.send_to(packet, self.to).await;
            }
            let until = (Instant::now() + wait).min(end);
            wait = (wait * 2).min(LONGEST);
            while let Ok(Some((answer, at))) = timeout_at(until, answers.recv()).await {
                if will_do(&answer) && !chance.percent(self.loss) {
                    return Some((answer, at - begun));
                }
            }
        }
        None
    }
}

/// A machine that waits; no longer, once this is dropped.
struct Listed<'a> {
    wire: &'a Wire,
    xid: u32,
}

impl<'a> Listed<'a> {
    fn new(wire: &'a Wire, xid: u32, to: mpsc::Sender<(Answer, Instant)>) -> Self {
        wire.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(xid, to);
        Self { wire, xid }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.wire.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.xid);
    }
}
