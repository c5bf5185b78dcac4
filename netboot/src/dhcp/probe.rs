//! Offers that wait until it is known that nobody uses their address.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Request;

/// How long a host has to answer: one on the same wire needs less than a tenth of it.
const PATIENCE: Duration = Duration::from_millis(20);
/// Offers that wait at a time. More are made without a look.
const MOST: usize = 2048;
/// How many addresses that are in use one request may come upon.
const TRIES: u8 = 4;

/// A request whose answer waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) from: SocketAddrV4,
    /// When it came.
    pub(super) since: Instant,
    tries: u8,
}

impl Waiting {
    pub(super) fn new(request: Request, from: SocketAddrV4) -> Self {
        Self { request, from, since: Instant::now(), tries: 0 }
    }

    /// Counts an address that was in use, and returns whether another one may be tried.
    pub(super) fn tries_again(&mut self) -> bool {
        self.tries += 1;
        self.tries < TRIES
    }
}

/// What became of a request that should wait.
#[derive(Debug)]
pub(super) enum Begun {
    /// The address is to be asked for.
    Ask,
    /// It is being asked for already, for the same client.
    Already,
    /// Too many wait; here it is again.
    Full(Waiting),
}

/// The requests that wait, by address.
#[derive(Debug, Default)]
pub(super) struct Probes {
    waiting: HashMap<Ipv4Addr, Waiting>,
    /// When each is over. All last equally long, so that the first begun is the first to end.
    ends: VecDeque<(Instant, Ipv4Addr)>,
}

impl Probes {
    /// Lets a request wait for what is heard about an address.
    pub(super) fn begin(&mut self, address: Ipv4Addr, waiting: Waiting, now: Instant) -> Begun {
        match self.waiting.get_mut(&address) {
            Some(other) if other.request.mac == waiting.request.mac => {
                // The same client asks again: it wants its answer under the newest number.
                other.request = waiting.request;
                other.from = waiting.from;
                Begun::Already
            }
            Some(_) => Begun::Full(waiting),
            None if self.ends.len() >= MOST => Begun::Full(waiting),
            None => {
                self.waiting.insert(address, waiting);
                self.ends.push_back((now + PATIENCE, address));
                Begun::Ask
            }
        }
    }

    /// Takes the request that waits for an address out, because someone has it.
    pub(super) fn in_use(&mut self, address: Ipv4Addr) -> Option<Waiting> {
        // Its end stays in the list and finds nothing.
        self.waiting.remove(&address)
    }

    /// Returns whether a request waits for an address.
    pub(super) fn waits_for(&self, address: Ipv4Addr) -> Option<&Waiting> {
        self.waiting.get(&address)
    }

    /// Returns when the next one has waited long enough.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Takes out one that has waited long enough, without an answer.
    pub(super) fn over(&mut self, now: Instant) -> Option<(Ipv4Addr, Waiting)> {
        while let Some((end, address)) = self.ends.front().copied() {
            if end > now {
                return None;
            }
            self.ends.pop_front();
            if let Some(waiting) = self.waiting.remove(&address) {
                return Some((address, waiting));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::wire::tests::packet;

    fn waiting(last: u8, xid: u8) -> Waiting {
        let mut bytes = packet(&[53, 1, 1]);
        bytes[33] = last;
        bytes[7] = xid;
        Waiting::new(Request::decode(&bytes).unwrap(), "0.0.0.0:68".parse().unwrap())
    }

    #[tokio::test]
    async fn an_offer_waits_once_and_not_long() {
        let mut probes = Probes::default();
        let (first, second) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let start = Instant::now();
        assert!(matches!(probes.begin(first, waiting(1, 1), start), Begun::Ask));
        assert!(matches!(probes.begin(first, waiting(1, 2), start), Begun::Already));
        assert!(matches!(probes.begin(first, waiting(2, 1), start), Begun::Full(_)));
        assert!(matches!(probes.begin(second, waiting(2, 1), start), Begun::Ask));
        assert!(probes.in_use(second).is_some() && probes.in_use(second).is_none());
        assert!(probes.over(start).is_none());
        assert_eq!(probes.next_end(), Some(start + PATIENCE));
        let (address, over) = probes.over(start + PATIENCE).unwrap();
        assert_eq!((address, over.request.xid & 0xff), (first, 2));
        assert!(probes.over(start + PATIENCE).is_none() && probes.next_end().is_none());
    }

    #[tokio::test]
    async fn not_too_many_wait() {
        let mut probes = Probes::default();
        let start = Instant::now();
        let asked = (0..5000_u32).filter(|number| {
            let begun = probes.begin(Ipv4Addr::from_bits(*number), waiting(1, 1), start);
            matches!(begun, Begun::Ask)
        });
        assert_eq!(asked.count(), MOST);
        let mut one = waiting(1, 1);
        assert_eq!((0..9).filter(|_| one.tries_again()).count(), 3);
    }
}
