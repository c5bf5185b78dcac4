//! What a DHCPv6 client does next (RFC 8415 §18.2): events and the time go in, actions come out.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Answer, Ask, Kind};
use crate::network::random::Random;

/// RFC 8415 §7.6.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const FIRST_RENEWAL: Duration = Duration::from_secs(10);
const LONGEST_SOLICIT: Duration = Duration::from_secs(3600);
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
const LONGEST_RENEWAL: Duration = Duration::from_secs(600);
const TRIES_OF_REQUEST: u32 = 10;
/// RFC 8415 §21.23, and the least that is taken.
const REFRESH: u32 = 86_400;
const SOONEST_REFRESH: u32 = 600;
const SOONEST_RENEWAL: u32 = 5;
const FOR_EVER: u32 = u32::MAX;

/// What routers or the plan want us to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nothing,
    Information,
    Addresses,
}

#[derive(Debug)]
pub(crate) enum Event<'a> {
    Mode(Mode),
    /// Another network may be at the other end now.
    LinkUp,
    Answer(&'a Answer),
    Timer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Send(Ask),
    /// Addresses are ours, for the first time or again.
    Use(Box<Lease>),
    /// Name servers and the like.
    Learn(Box<Answer>),
    /// The addresses are no longer ours.
    Lose(Vec<Ipv6Addr>),
}

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) answer: Answer,
    /// When it is renewed with its server, and when with any; without, it is for ever.
    times: Option<(Duration, Duration)>,
    /// When the last address is no longer valid.
    end: Duration,
}

#[derive(Debug)]
enum State {
    Off,
    /// With the best offer so far.
    Soliciting(Option<Box<Answer>>),
    Requesting(Box<Answer>),
    Bound(Box<Lease>),
    Renewing(Box<Lease>),
    Rebinding(Box<Lease>),
    Asking,
    Informed,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    state: State,
    mode: Mode,
    timer: Option<Duration>,
    xid: u32,
    random: Random,
    began: Duration,
    /// The last wait; none before the first.
    wait: Option<Duration>,
    tries: u32,
}

impl Client {
    pub(crate) const fn new(random: Random) -> Self {
        Self {
            state: State::Off,
            mode: Mode::Nothing,
            timer: None,
            xid: 0,
            random,
            began: Duration::ZERO,
            wait: None,
            tries: 0,
        }
    }

    pub(crate) const fn timer(&self) -> Option<Duration> {
        self.timer
    }

    pub(crate) const fn xid(&self) -> u32 {
        self.xid
    }

    /// Whether there is a question that may be answered.
    pub(crate) const fn is_asking(&self) -> bool {
        !matches!(self.state, State::Off | State::Bound(_) | State::Informed)
    }

    /// Hundredths of a second since the question was asked first.
    pub(crate) fn elapsed(&self, now: Duration) -> u16 {
        u16::try_from(now.saturating_sub(self.began).as_millis() / 10).unwrap_or(u16::MAX)
    }

    /// Returns the server and the addresses that the question is about.
    pub(crate) fn subject(&self) -> (&[u8], Vec<Ipv6Addr>) {
        let of = |answer: &Answer| answer.addresses.iter().map(|(ip, ..)| *ip).collect();
        match &self.state {
            State::Requesting(answer) => (&answer.server, of(answer)),
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => {
                (&lease.answer.server, of(&lease.answer))
            }
            _ => (&[], Vec::new()),
        }
    }

    pub(crate) fn step(&mut self, now: Duration, event: &Event<'_>, out: &mut Vec<Action>) {
        match event {
            // Routers differ now and then; what was begun is not given up for less.
            Event::Mode(mode) => {
                let more = match (self.mode, mode) {
                    (Mode::Nothing, wanted) => *wanted != Mode::Nothing,
                    (Mode::Information, wanted) => *wanted == Mode::Addresses,
                    (Mode::Addresses, _) => false,
                };
                if more {
                    self.mode = *mode;
                    self.begin_anew(now, out);
                }
            }
            Event::LinkUp => match std::mem::replace(&mut self.state, State::Off) {
                State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => {
                    self.enter(now, State::Rebinding(lease), out);
                }
                _ => self.begin_anew(now, out),
            },
            Event::Answer(answer) => self.answer(now, answer, out),
            Event::Timer => {
                if self.timer.is_some_and(|timer| timer <= now) {
                    self.timer = None;
                    self.timer_rings(now, out);
                }
            }
        }
    }

    fn begin_anew(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.mode {
            Mode::Nothing => {
                self.state = State::Off;
                self.timer = None;
            }
            Mode::Information => self.enter(now, State::Asking, out),
            Mode::Addresses => self.enter(now, State::Soliciting(None), out),
        }
    }

    fn enter(&mut self, now: Duration, state: State, out: &mut Vec<Action>) {
        self.state = state;
        self.xid = self.random.next() & 0xff_ffff;
        self.began = now;
        self.wait = None;
        self.tries = 0;
        self.ask(now, out);
    }

    /// Asks, and waits twice as long as the last time, up to the longest (RFC 8415 §15).
    fn ask(&mut self, now: Duration, out: &mut Vec<Action>) {
        let (ask, first, longest, until) = match &self.state {
            State::Soliciting(_) => (Ask::Solicit, FIRST_WAIT, LONGEST_SOLICIT, None),
            State::Requesting(_) => (Ask::Request, FIRST_WAIT, LONGEST_REQUEST, None),
            State::Asking => (Ask::Information, FIRST_WAIT, LONGEST_SOLICIT, None),
            State::Renewing(lease) => {
                let until = lease.times.map(|(_, rebind)| rebind);
                (Ask::Renew, FIRST_RENEWAL, LONGEST_RENEWAL, until)
            }
            State::Rebinding(lease) => {
                (Ask::Rebind, FIRST_RENEWAL, LONGEST_RENEWAL, Some(lease.end))
            }
            State::Off | State::Bound(_) | State::Informed => return,
        };
        out.push(Action::Send(ask));
        self.tries = self.tries.saturating_add(1);
        let wait = self.wait.map_or(first, |last| last.saturating_mul(2).min(longest));
        let wait = self.random.about(wait);
        self.wait = Some(wait);
        let next = now + wait;
        self.timer = Some(until.map_or(next, |until| next.min(until.max(now))));
    }

    fn answer(&mut self, now: Duration, answer: &Answer, out: &mut Vec<Action>) {
        let gives = answer.status == 0 && !answer.addresses.is_empty();
        match std::mem::replace(&mut self.state, State::Off) {
            State::Soliciting(_) if answer.kind == Kind::Reply && answer.is_rapid && gives => {
                self.take(now, answer, out);
            }
            State::Soliciting(best) if answer.kind == Kind::Advertise && gives => {
                // Before the first wait is over a better one may come (RFC 8415 §18.2.9).
                if answer.preference == u8::MAX || self.tries > 1 {
                    self.enter(now, State::Requesting(Box::new(answer.clone())), out);
                } else {
                    let better = best
                        .filter(|best| best.preference >= answer.preference)
                        .unwrap_or_else(|| Box::new(answer.clone()));
                    self.state = State::Soliciting(Some(better));
                }
            }
            State::Requesting(offer) if answer.kind == Kind::Reply => {
                if gives {
                    self.take(now, answer, out);
                } else {
                    self.state = State::Requesting(offer);
                }
            }
            State::Renewing(lease) | State::Rebinding(lease) if answer.kind == Kind::Reply => {
                let had = lease.answer.addresses.iter().map(|(ip, ..)| *ip);
                let gone: Vec<Ipv6Addr> = had
                    .filter(|ip| !gives || !answer.addresses.iter().any(|(now, ..)| now == ip))
                    .collect();
                if !gone.is_empty() {
                    out.push(Action::Lose(gone));
                }
                if gives {
                    self.take(now, answer, out);
                } else {
                    self.begin_anew(now, out);
                }
            }
            State::Asking if answer.kind == Kind::Reply => {
                out.push(Action::Learn(Box::new(answer.clone())));
                self.state = State::Informed;
                let refresh = answer.refresh.unwrap_or(REFRESH);
                self.timer = (refresh != FOR_EVER)
                    .then(|| now + Duration::from_secs(refresh.max(SOONEST_REFRESH).into()));
            }
            other => self.state = other,
        }
    }

    fn take(&mut self, now: Duration, answer: &Answer, out: &mut Vec<Action>) {
        let lease = Box::new(lease(answer, now));
        out.push(Action::Use(lease.clone()));
        out.push(Action::Learn(Box::new(answer.clone())));
        self.timer = lease.times.map(|(renew, _)| renew);
        self.state = State::Bound(lease);
    }

    fn timer_rings(&mut self, now: Duration, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Off) {
            State::Soliciting(Some(best)) => self.enter(now, State::Requesting(best), out),
            State::Requesting(_) if self.tries >= TRIES_OF_REQUEST => self.begin_anew(now, out),
            State::Bound(lease) => self.enter(now, State::Renewing(lease), out),
            State::Renewing(lease) if lease.times.is_some_and(|(_, rebind)| now >= rebind) => {
                self.enter(now, State::Rebinding(lease), out);
            }
            State::Rebinding(lease) if now >= lease.end => {
                let addresses = lease.answer.addresses.iter().map(|(ip, ..)| *ip).collect();
                out.push(Action::Lose(addresses));
                self.begin_anew(now, out);
            }
            State::Informed => self.enter(now, State::Asking, out),
            same => {
                self.state = same;
                self.ask(now, out);
            }
        }
    }
}

/// Without times from the server: half and four fifths of the shortest preferred time (RFC 8415 §21.4).
fn lease(answer: &Answer, now: Duration) -> Lease {
    let shortest = answer.addresses.iter().map(|(_, preferred, _)| *preferred).min().unwrap_or(0);
    let longest = answer.addresses.iter().map(|(.., valid)| *valid).max().unwrap_or(0);
    let at = |seconds: u32| match seconds {
        FOR_EVER => Duration::MAX,
        seconds => now + Duration::from_secs(seconds.into()),
    };
    let t1 = if answer.t1 > 0 { answer.t1 } else { shortest / 2 };
    let t2 = if answer.t2 > 0 { answer.t2 } else { shortest / 5 * 4 };
    let for_ever = t1 == FOR_EVER || (answer.t1 == 0 && shortest == FOR_EVER);
    let t1 = t1.max(SOONEST_RENEWAL);
    let times = (!for_ever).then(|| (at(t1), at(t2.max(t1))));
    Lease { answer: answer.clone(), times, end: at(longest.max(SOONEST_RENEWAL)) }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
