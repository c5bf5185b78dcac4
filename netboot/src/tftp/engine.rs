//! Carries all transfers of one address, in a thread of its own that waits for all their ports at once.
//!
//! Each transfer has a port of its own, as RFC 1350 §4 has it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::content::Content;
use super::options::{Limits, Terms};
use super::send::Way;
use super::stats::{Stats, add};
use super::transfer::{Burst, End, Step, Transfer};
use super::wire::{self, Code};
use super::{Ended, Files};

/// Ports that are looked at in one go.
const EVENTS: usize = 64;
/// Larger than any acknowledgement or error.
const PACKET: usize = 600;
/// The mark of our own wake-up among those of transfers, which are places in a list.
const WAKE: u64 = u64::MAX;
/// A transfer that nothing was heard of for this long gives its place to another when there are too many.
const UNHEARD: Duration = Duration::from_secs(2);

/// A transfer to begin.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) peer: SocketAddr,
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) size: u64,
    pub(super) terms: Terms,
    pub(super) answer: Option<Vec<u8>>,
}

enum Order {
    Begin(Begin),
    /// More was read of the file that goes to this client.
    More(SocketAddr),
    Stop(Instant),
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Queue(Arc<(Mutex<Vec<Order>>, EventFd)>);

impl Queue {
    pub(super) fn begin(&self, begin: Begin) {
        self.order(Order::Begin(begin));
    }

    /// Tells that there may be bytes which a transfer waits for.
    pub(super) fn more(&self, peer: SocketAddr) {
        self.order(Order::More(peer));
    }

    fn order(&self, order: Order) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        // It fails only when 2^64 - 2 wake-ups wait already.
        let _ = self.0.1.write(1);
    }
}

pub(super) struct Engine {
    queue: Queue,
    ended: oneshot::Receiver<()>,
}

impl Engine {
    /// Starts the thread.
    pub(super) fn start<F: Files>(
        address: IpAddr,
        files: Arc<F>,
        limits: Limits,
        stats: &Arc<Stats>,
    ) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let queue = Queue(Arc::new((Mutex::default(), wake)));
        let (alive, ended) = oneshot::channel();
        let carrier = Carrier {
            address,
            files,
            limits,
            stats: stats.clone(),
            epoll,
            queue: queue.clone(),
            live: Vec::new(),
            free: Vec::new(),
            look: None,
            stop: None,
        };
        std::thread::Builder::new().name("tftp".to_owned()).spawn(move || {
            carrier.run();
            drop(alive);
        })?;
        Ok(Self { queue, ended })
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Takes no more, and gives transfers under way some time.
    pub(super) async fn stop(self, grace: Duration) {
        self.queue.order(Order::Stop(Instant::now() + grace));
        let _ = self.ended.await;
    }
}

struct Live {
    way: Way,
    name: String,
    content: Content,
    size: u64,
    answer: Vec<u8>,
    transfer: Transfer,
    first: Burst,
    /// What cannot be sent because it is not read yet.
    waits: Option<Burst>,
    started: Instant,
}

struct Carrier<F: Files> {
    address: IpAddr,
    files: Arc<F>,
    limits: Limits,
    stats: Arc<Stats>,
    epoll: Epoll,
    queue: Queue,
    live: Vec<Option<Live>>,
    free: Vec<usize>,
    /// No deadline is before this. Progress moves deadlines away, so it may be too early, and never too late.
    look: Option<Instant>,
    stop: Option<Instant>,
}

impl<F: Files> Carrier<F> {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            if self.stop.is_some() && self.free.len() == self.live.len() {
                return;
            }
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(%error, "tftp cannot go on");
                    return;
                }
            };
            let now = Instant::now();
            for event in events.get(..count).unwrap_or_default() {
                if event.data() == WAKE {
                    self.obey(now);
                } else if let Ok(place) = usize::try_from(event.data()) {
                    self.receive(place, now);
                }
            }
            self.tick(now);
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let until = [self.look, self.stop].into_iter().flatten().min();
        let Some(until) = until else { return EpollTimeout::NONE };
        // Rounded up, so that it is time when it wakes.
        let wait = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn obey(&mut self, now: Instant) {
        let _ = self.queue.0.1.read();
        let orders = {
            let mut waiting = self.queue.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        for order in orders {
            match order {
                Order::Begin(begin) => self.begin(begin, now),
                Order::More(peer) => {
                    let Some(place) = self.find(|live| live.way.peer == peer) else { continue };
                    let waits = self.live.get_mut(place).and_then(Option::as_mut);
                    if let Some(burst) = waits.and_then(|live| live.waits.take()) {
                        self.act(place, Step::Send(burst));
                    }
                }
                Order::Stop(until) => self.stop = Some(until),
            }
        }
    }

    fn begin(&mut self, begin: Begin, now: Instant) {
        let peer = begin.peer;
        let same = |live: &Live| live.way.peer == peer;
        if let Some(place) = self.find(same) {
            let again = self.at(place).is_some_and(|live| {
                !live.transfer.is_heard()
                    && live.name == begin.name
                    && live.answer == begin.answer.as_deref().unwrap_or_default()
            });
            if again {
                // Its request came twice, or our answer was lost.
                let burst = self.at(place).map(|live| live.first);
                self.act(place, burst.map_or(Step::Wait, Step::Send));
                return;
            }
            self.end(place, End::AskedAnew);
        }
        let of_client = self.each().filter(|live| live.way.peer.ip() == peer.ip()).count();
        let full = self.live.len() - self.free.len() >= self.limits.transfers;
        if of_client >= self.limits.per_client || (full && !self.displace(now)) {
            add(&self.stats.refused, 1);
            tracing::warn!(%peer, "tftp: too many transfers at a time, a request is not answered");
            return;
        }
        if let Err(error) = self.open(begin, now) {
            add(&self.stats.refused, 1);
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%peer, error, "tftp: no port for a transfer");
        }
    }

    fn open(&mut self, begin: Begin, now: Instant) -> io::Result<()> {
        let Begin { peer, name, content, size, terms, answer } = begin;
        let socket = UdpSocket::bind((self.address, 0))?;
        socket.set_nonblocking(true)?;
        // So that a client whose port is closed is known to be gone.
        if self.address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        let place = self.free.pop().unwrap_or(self.live.len());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        if let Err(error) = self.epoll.add(&socket, event) {
            self.free.extend((place < self.live.len()).then_some(place));
            return Err(error.into());
        }
        if place == self.live.len() {
            self.live.push(None);
        }
        let (transfer, first) = Transfer::new(size, terms, answer.is_some(), now);
        let answer = answer.unwrap_or_default();
        let way = Way::new(socket, peer);
        let waits = None;
        let live = Live { way, name, content, size, answer, transfer, first, waits, started: now };
        if let Some(free) = self.live.get_mut(place) {
            *free = Some(live);
        }
        self.stats.active.fetch_add(1, Ordering::Relaxed);
        self.act(place, Step::Send(first));
        Ok(())
    }

    /// Ends the oldest transfer that nobody has acknowledged, and returns whether there was one.
    fn displace(&mut self, now: Instant) -> bool {
        let unheard = |live: &Live| !live.transfer.is_heard() && now >= live.started + UNHEARD;
        let mut oldest: Option<(usize, Instant)> = None;
        for (place, live) in self.live.iter().enumerate() {
            let Some(live) = live.as_ref().filter(|live| unheard(live)) else { continue };
            if oldest.is_none_or(|(_, started)| live.started < started) {
                oldest = Some((place, live.started));
            }
        }
        let Some((place, _)) = oldest else { return false };
        self.end(place, End::Displaced);
        true
    }

    fn receive(&mut self, place: usize, now: Instant) {
        let Some(live) = self.live.get_mut(place).and_then(Option::as_mut) else { return };
        let mut packet = [0; PACKET];
        match live.way.socket.recv_from(&mut packet) {
            Ok((length, from)) if from == live.way.peer => {
                let reply = wire::parse_reply(packet.get(..length).unwrap_or_default());
                let step = live.transfer.hear(&reply, now);
                self.act(place, step);
            }
            Ok((_, from)) => {
                // RFC 1350 §4: the other one is told, and this transfer goes on.
                let error = wire::error(Code::UNKNOWN_TID, "unknown transfer");
                let _ = live.way.socket.send_to(&error, from);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionRefused => {
                    let end = live.transfer.gone();
                    self.end(place, end);
                }
                _ => self.end(place, End::Broken(error.to_string())),
            },
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.stop.is_some_and(|stop| now >= stop) {
            for place in 0..self.live.len() {
                self.end(place, End::Stopped);
            }
        }
        if self.look.is_none_or(|look| now < look) {
            return;
        }
        self.look = None;
        for place in 0..self.live.len() {
            let Some(live) = self.live.get_mut(place).and_then(Option::as_mut) else { continue };
            match live.transfer.tick(now) {
                Step::Wait => self.look_at(place),
                step => self.act(place, step),
            }
        }
    }

    fn act(&mut self, place: usize, step: Step) {
        match step {
            Step::Wait => {}
            Step::End(end) => self.end(place, end),
            Step::Send(burst) => {
                let Some(live) = self.live.get_mut(place).and_then(Option::as_mut) else { return };
                let Live { way, transfer, answer, content, waits, .. } = live;
                content.taken(transfer.taken());
                let sent = match burst {
                    Burst::Options => way.send_options(answer),
                    Burst::Blocks { first, count } => {
                        let blocks = first..first + u64::from(count);
                        content.get(transfer.span(&blocks)).and_then(|bytes| match bytes {
                            Some(bytes) => way.send(blocks, transfer, &bytes),
                            None => {
                                *waits = Some(burst);
                                Ok(())
                            }
                        })
                    }
                };
                if let Err(error) = sent {
                    let end = match error.kind() {
                        io::ErrorKind::ConnectionRefused => transfer.gone(),
                        _ => End::Broken(error.to_string()),
                    };
                    self.end(place, end);
                } else {
                    self.look_at(place);
                }
            }
        }
    }

    /// Makes sure that the transfer's deadline is not missed.
    fn look_at(&mut self, place: usize) {
        if let Some(deadline) = self.at(place).map(|live| live.transfer.deadline()) {
            self.look = Some(self.look.map_or(deadline, |look| look.min(deadline)));
        }
    }

    fn end(&mut self, place: usize, end: End) {
        let Some(live) = self.live.get_mut(place).and_then(Option::take) else { return };
        self.free.push(place);
        let _ = self.epoll.delete(&live.way.socket);
        self.stats.active.fetch_sub(1, Ordering::Relaxed);
        let (taken, size) = (live.transfer.taken(), live.size);
        // The last acknowledgement is often never sent.
        let taken = if end == End::Done { size } else { taken };
        if matches!(end, End::Stopped | End::Displaced | End::Broken(_)) {
            let error = wire::error(Code::OTHER, "broken off by the server; ask again");
            let _ = live.way.socket.send_to(&error, live.way.peer);
        }
        let resent = live.transfer.resent();
        self.stats.ended(&end, taken, resent);
        let (peer, took) = (live.way.peer.ip(), live.started.elapsed());
        self.files.ended(&Ended { peer, name: live.name, end, size, taken, took, resent });
    }

    fn each(&self) -> impl Iterator<Item = &Live> {
        self.live.iter().flatten()
    }

    fn at(&self, place: usize) -> Option<&Live> {
        self.live.get(place)?.as_ref()
    }

    fn find(&self, is: impl Fn(&Live) -> bool) -> Option<usize> {
        self.live.iter().position(|live| live.as_ref().is_some_and(&is))
    }
}
