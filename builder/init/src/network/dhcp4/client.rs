//! What a DHCPv4 client does next (RFC 2131 §4.4): events and the time go in, actions come out.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Answer, Ask, Kind};
use crate::network::random::Random;

/// The first wait for an answer, doubled up to the longest. The standard's 4 s are for networks of its time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// How often one thing is asked before another is tried.
const TRIES_OF_KNOWN: u32 = 2;
const TRIES_OF_OFFER: u32 = 4;
/// After as many questions without an answer a person is told.
const TRIES_UNTIL_TOLD: u32 = 4;
/// A neighbour answers within a millisecond, or within some when it sleeps.
const PROBE: Duration = Duration::from_millis(150);
/// RFC 2131 §3.1: at least this long before the next try.
const AFTER_CONFLICT: Duration = Duration::from_secs(10);
/// A lease is never taken for shorter, nor renewed sooner, so that no server can keep us busy.
const SHORTEST_LEASE: u32 = 10;
const SOONEST_RENEWAL: u32 = 5;
const FOR_EVER: u32 = u32::MAX;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// There is somebody at the other end of the cable.
    LinkUp,
    LinkDown,
    Answer(&'a Answer),
    /// Somebody else uses the address.
    Conflict,
    /// The time that [`Client::timer`] says has come.
    Timer,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// To this server, or else to everyone.
    Send(Ask, Option<Ipv4Addr>),
    /// Ask whether somebody has this address.
    Probe(Ipv4Addr),
    /// The address is ours, for the first time or again.
    Use(Box<Lease>),
    /// The address is no longer ours.
    Lose(Ipv4Addr, Why),
    /// Nobody has answered for a while.
    Silence,
}

/// Why an address is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    Refused(Option<String>),
    Over,
    Conflict,
}

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) answer: Answer,
    /// When it is renewed with its server, when with any, and when it is over; without, it is for ever.
    pub(crate) times: Option<Times>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) renew: Duration,
    pub(crate) rebind: Duration,
    pub(crate) end: Duration,
}

#[derive(Debug)]
enum State {
    Off,
    /// Asking for an address that we had; it may still be in use.
    Rebooting(Ipv4Addr, Option<Box<Lease>>),
    Selecting,
    Requesting(Box<Answer>),
    Probing(Box<Lease>),
    /// An address was refused or taken; after a pause it begins anew.
    Pausing,
    Bound(Box<Lease>),
    Renewing(Box<Lease>),
    Rebinding(Box<Lease>),
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    state: State,
    timer: Option<Duration>,
    xid: u32,
    random: Random,
    began: Duration,
    /// When the question was asked that is open: a lease begins there.
    asked: Duration,
    tries: u32,
    /// Refusals and conflicts since there was an address.
    setbacks: u32,
    known: Option<Ipv4Addr>,
}

impl Client {
    /// `known` is the address that firmware had.
    pub(crate) fn new(known: Option<Ipv4Addr>, random: Random) -> Self {
        Self {
            state: State::Off,
            timer: None,
            xid: 0,
            random,
            began: Duration::ZERO,
            asked: Duration::ZERO,
            tries: 0,
            setbacks: 0,
            known,
        }
    }

    /// When it wants to hear from us again.
    pub(crate) const fn timer(&self) -> Option<Duration> {
        self.timer
    }

    /// The number of the question that is open.
    pub(crate) const fn xid(&self) -> u32 {
        self.xid
    }

    /// Whether there is a question that may be answered.
    pub(crate) const fn is_asking(&self) -> bool {
        !matches!(self.state, State::Off | State::Probing(_) | State::Pausing | State::Bound(_))
    }

    /// Seconds since it began, for relays that give way to others at first.
    pub(crate) fn seconds(&self, now: Duration) -> u16 {
        u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX)
    }

    pub(crate) fn step(&mut self, now: Duration, event: &Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::LinkUp => self.link_up(now, out),
            Event::LinkDown => self.link_down(),
            Event::Answer(answer) => self.answer(now, answer, out),
            Event::Conflict => self.conflict(now, out),
            Event::Timer => {
                if self.timer.is_some_and(|timer| timer <= now) {
                    self.timer = None;
                    self.timer_rings(now, out);
                }
            }
        }
    }

    /// Another network may be at the other end now, so the address is checked.
    fn link_up(&mut self, now: Duration, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Off) {
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => {
                let address = lease.answer.address;
                self.begin(now);
                self.state = State::Rebooting(address, Some(lease));
                self.ask(now, out);
            }
            State::Rebooting(address, held) => {
                self.state = State::Rebooting(address, held);
                self.tries = 0;
                self.ask(now, out);
            }
            State::Probing(_) | State::Pausing => self.discover(now, out),
            State::Off | State::Selecting | State::Requesting(_) => {
                self.begin(now);
                match self.known.take() {
                    Some(address) => {
                        self.state = State::Rebooting(address, None);
                        self.ask(now, out);
                    }
                    None => self.discover(now, out),
                }
            }
        }
    }

    /// An address is kept until its lease is over: cables are plugged in again.
    fn link_down(&mut self) {
        match self.state {
            State::Bound(_) | State::Renewing(_) | State::Rebinding(_) => {}
            State::Rebooting(_, Some(_)) => {
                if let State::Rebooting(_, Some(lease)) =
                    std::mem::replace(&mut self.state, State::Off)
                {
                    self.bind(lease);
                }
            }
            _ => {
                self.state = State::Off;
                self.timer = None;
            }
        }
    }

    fn begin(&mut self, now: Duration) {
        self.xid = self.random.next();
        self.began = now;
        self.tries = 0;
    }

    fn discover(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.begin(now);
        self.state = State::Selecting;
        self.ask(now, out);
    }

    /// Asks what the state wants to know, and sets the time for the next try.
    fn ask(&mut self, now: Duration, out: &mut Vec<Action>) {
        let wish = self.known;
        let (ask, server) = match &self.state {
            State::Selecting => (Ask::Discover { wish }, None),
            State::Rebooting(address, _) => (Ask::Reboot { address: *address }, None),
            State::Requesting(offer) => {
                (Ask::Select { address: offer.address, server: offer.server }, None)
            }
            State::Renewing(lease) => {
                (Ask::Renew { address: lease.answer.address }, Some(lease.answer.server))
            }
            State::Rebinding(lease) => (Ask::Renew { address: lease.answer.address }, None),
            State::Off | State::Probing(_) | State::Pausing | State::Bound(_) => return,
        };
        out.push(Action::Send(ask, server));
        self.asked = now;
        let wait = FIRST_WAIT.saturating_mul(1 << self.tries.min(6)).min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        self.timer = Some(now + self.random.about(wait));
    }

    fn answer(&mut self, now: Duration, answer: &Answer, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Off) {
            State::Selecting if answer.kind == Kind::Offer && !answer.server.is_unspecified() => {
                self.state = State::Requesting(Box::new(answer.clone()));
                self.tries = 0;
                self.ask(now, out);
            }
            State::Requesting(offer) if answer.server == offer.server => match answer.kind {
                Kind::Offer => self.state = State::Requesting(offer),
                Kind::Nak => self.set_back(now, Duration::ZERO, out),
                Kind::Ack => {
                    out.push(Action::Probe(answer.address));
                    self.state = State::Probing(Box::new(lease(answer, self.asked)));
                    self.timer = Some(now + PROBE);
                }
            },
            State::Rebooting(address, held) => match answer.kind {
                Kind::Offer => self.state = State::Rebooting(address, held),
                // Firmware used this address a moment ago, so nobody else has it.
                Kind::Ack => self.take(lease(answer, self.asked), out),
                Kind::Nak => {
                    let lost = |lease: Box<Lease>| {
                        let why = Why::Refused(answer.message.clone());
                        Action::Lose(lease.answer.address, why)
                    };
                    out.extend(held.map(lost));
                    self.set_back(now, Duration::ZERO, out);
                }
            },
            State::Renewing(mut old) | State::Rebinding(mut old) if answer.kind != Kind::Offer => {
                let address = old.answer.address;
                if answer.kind == Kind::Nak {
                    out.push(Action::Lose(address, Why::Refused(answer.message.clone())));
                    self.set_back(now, Duration::ZERO, out);
                    return;
                }
                let server = old.answer.server;
                *old = lease(answer, self.asked);
                if old.answer.server.is_unspecified() {
                    old.answer.server = server;
                }
                self.take(*old, out);
            }
            other => self.state = other,
        }
    }

    fn conflict(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let State::Probing(lease) = &self.state {
            let (address, server) = (lease.answer.address, lease.answer.server);
            out.push(Action::Send(Ask::Decline { address, server }, None));
            out.push(Action::Lose(address, Why::Conflict));
            self.set_back(now, AFTER_CONFLICT, out);
        }
    }

    /// Begins anew, at once for the first time, and later and later when that does not help.
    fn set_back(&mut self, now: Duration, least: Duration, out: &mut Vec<Action>) {
        self.known = None;
        let pause = match self.setbacks {
            0 => least,
            times => least.max(FIRST_WAIT.saturating_mul(1 << times.min(6))),
        };
        self.setbacks = self.setbacks.saturating_add(1);
        if pause.is_zero() {
            self.discover(now, out);
        } else {
            self.state = State::Pausing;
            self.timer = Some(now + self.random.about(pause));
        }
    }

    fn take(&mut self, lease: Lease, out: &mut Vec<Action>) {
        out.push(Action::Use(Box::new(lease.clone())));
        self.setbacks = 0;
        self.bind(Box::new(lease));
    }

    fn bind(&mut self, lease: Box<Lease>) {
        self.tries = 0;
        self.timer = lease.times.map(|times| times.renew);
        self.state = State::Bound(lease);
    }

    fn timer_rings(&mut self, now: Duration, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Off) {
            State::Off => {}
            State::Pausing => self.discover(now, out),
            State::Probing(lease) => self.take(*lease, out),
            State::Selecting => {
                self.state = State::Selecting;
                if self.tries == TRIES_UNTIL_TOLD {
                    out.push(Action::Silence);
                }
                self.ask(now, out);
            }
            State::Requesting(_) if self.tries >= TRIES_OF_OFFER => self.discover(now, out),
            State::Rebooting(address, held) if self.tries >= TRIES_OF_KNOWN => match held {
                // The server may be away for a while; until its end the lease is good.
                Some(lease) => self.bind(lease),
                None => {
                    self.known = Some(address);
                    self.discover(now, out);
                }
            },
            state @ (State::Requesting(_) | State::Rebooting(..)) => {
                self.state = state;
                self.ask(now, out);
            }
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => {
                self.renew(now, lease, out);
            }
        }
    }

    fn renew(&mut self, now: Duration, lease: Box<Lease>, out: &mut Vec<Action>) {
        let Some(times) = lease.times else {
            self.state = State::Bound(lease);
            return;
        };
        if now >= times.end {
            let address = lease.answer.address;
            out.push(Action::Lose(address, Why::Over));
            self.known = Some(address);
            return self.discover(now, out);
        }
        if self.tries == 0 {
            self.begin(now);
        }
        let (state, until) = if now >= times.rebind {
            (State::Rebinding(lease), times.end)
        } else {
            (State::Renewing(lease), times.rebind)
        };
        self.state = state;
        self.ask(now, out);
        // RFC 2131 §4.4.5: half of what is left, a minute at least where the lease is long enough for that.
        let left = until.saturating_sub(now);
        let least = (times.end.saturating_sub(times.renew) / 8).min(Duration::from_secs(60));
        let wait = self.random.about(left / 2).max(least).min(left);
        self.timer = Some(now + wait.max(Duration::from_millis(100)));
    }
}

/// A lease counts from when it was asked for (RFC 2131 §4.4.1).
fn lease(answer: &Answer, asked: Duration) -> Lease {
    let answer = answer.clone();
    if answer.lease == FOR_EVER {
        return Lease { answer, times: None };
    }
    let whole = answer.lease.max(SHORTEST_LEASE);
    let t1 = answer.t1.filter(|t1| (SOONEST_RENEWAL..whole).contains(t1)).unwrap_or(whole / 2);
    // Seven eighths, without an overflow.
    let usual = (whole - whole / 8).max(t1);
    let t2 = answer.t2.filter(|t2| (t1..whole).contains(t2)).unwrap_or(usual);
    let at = |seconds: u32| asked + Duration::from_secs(seconds.into());
    Lease { answer, times: Some(Times { renew: at(t1), rebind: at(t2), end: at(whole) }) }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
