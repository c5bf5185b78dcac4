//! One transfer: what comes in, what goes out, and when. Pure: packets and the time are given to it.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::options::Terms;
use super::wire::{Code, Reply};

/// How often the same is sent.
const TRIES: u32 = 5;
/// How long a client may show no progress, whatever time it asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing until the next packet or the deadline.
    Wait,
    /// Send this.
    Send(Burst),
    /// It is over.
    End(End),
}

/// What goes out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burst {
    /// The answer to the options.
    Options,
    /// Blocks that follow one another, counted from 1 and without an end at 65535.
    Blocks { first: u64, count: u16 },
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has all of it. Some never acknowledge the last block.
    Done,
    /// The client wanted to know the size, or whether there is such a file.
    Probe,
    /// The client gave up, and said so.
    GaveUp {
        /// Its error code.
        code: u16,
        /// Its words, made printable.
        text: String,
    },
    /// The client is not heard of any more.
    Silent,
    /// The client asked anew from the same port.
    AskedAnew,
    /// Its place was needed for another client, and it had not acknowledged anything.
    Displaced,
    /// The server stops.
    Stopped,
    /// Nothing can be sent.
    Broken(String),
}

/// The state of one transfer.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    terms: Terms,
    size: u64,
    /// Number of the last block, which is shorter than the others, perhaps empty.
    last: u64,
    acked: u64,
    sent: u64,
    options: Options,
    heard: bool,
    /// Whether what follows `acked` was sent again already, so that more of the same acknowledgement changes nothing.
    repeated: bool,
    tries: u32,
    progress: Instant,
    deadline: Instant,
    resent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Options {
    /// Sent, and not acknowledged.
    Open,
    Settled,
}

impl Transfer {
    /// Begins one. `answers` is whether there are options to answer.
    pub(super) fn new(size: u64, terms: Terms, answers: bool, now: Instant) -> (Self, Burst) {
        let mut transfer = Self {
            terms,
            size,
            last: size / u64::from(terms.block) + 1,
            acked: 0,
            sent: 0,
            options: if answers { Options::Open } else { Options::Settled },
            heard: false,
            repeated: false,
            tries: 1,
            progress: now,
            deadline: now,
            resent: 0,
        };
        let burst = if answers { Burst::Options } else { transfer.window() };
        transfer.wait(now);
        (transfer, burst)
    }

    /// Takes a packet of the client.
    pub(super) fn hear(&mut self, reply: &Reply, now: Instant) -> Step {
        match reply {
            Reply::Ack(number) => self.acknowledged(*number, now),
            Reply::Error(code, text) => {
                let asked_only = [Code::OTHER.0, Code::OPTIONS.0].contains(code);
                Step::End(if self.acked == 0 && asked_only {
                    End::Probe
                } else {
                    End::GaveUp { code: *code, text: text.clone() }
                })
            }
            Reply::Other => Step::Wait,
        }
    }

    fn acknowledged(&mut self, number: u16, now: Instant) -> Step {
        if self.options == Options::Open {
            if number != 0 {
                return Step::Wait;
            }
            self.options = Options::Settled;
            return self.go_on(now);
        }
        // Only what was sent can be acknowledged; anything else is late.
        let Some(block) = (self.acked..=self.sent).find(|block| self.number(*block) == number)
        else {
            return Step::Wait;
        };
        if block == self.last {
            self.acked = block;
            return Step::End(End::Done);
        }
        if block == self.acked {
            // In lockstep the same acknowledgement again is a copy, and to answer it would double every block from here
            // on (RFC 1123 §4.2.3.1). In a window it says that the first block was lost (RFC 7440 §4).
            if self.terms.window == 1 || self.repeated {
                return Step::Wait;
            }
            self.repeated = true;
            self.wait(now);
            return Step::Send(self.window());
        }
        // What was sent after a gap is repeated, once.
        self.repeated = block < self.sent;
        self.acked = block;
        self.go_on(now)
    }

    /// Sends the next window after progress.
    fn go_on(&mut self, now: Instant) -> Step {
        self.heard = true;
        self.tries = 1;
        self.progress = now;
        self.wait(now);
        Step::Send(self.window())
    }

    /// Looks at the time.
    pub(super) fn tick(&mut self, now: Instant) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        if self.tries >= TRIES || now >= self.progress + PATIENCE {
            return Step::End(self.gone());
        }
        self.tries += 1;
        self.wait(now);
        if self.options == Options::Open {
            return Step::Send(Burst::Options);
        }
        self.repeated = false;
        Step::Send(self.window())
    }

    /// Returns how it ended with a client that is not there any more. Once it has everything it may leave without a word.
    pub(super) fn gone(&self) -> End {
        let all = self.options == Options::Settled && self.sent == self.last;
        if all && (self.heard || self.last > 1) { End::Done } else { End::Silent }
    }

    /// Returns what follows the last acknowledged block.
    fn window(&mut self) -> Burst {
        let first = self.acked + 1;
        let count = u64::from(self.terms.window).min(self.last - self.acked);
        let end = self.acked + count;
        self.resent += self.sent.min(end) - self.acked.min(self.sent);
        self.sent = end;
        Burst::Blocks { first, count: u16::try_from(count).unwrap_or(u16::MAX) }
    }

    fn wait(&mut self, now: Instant) {
        // 1, 1, 2, 2, 4 times as long.
        let time = self.terms.timeout * (1 << ((self.tries - 1) / 2));
        self.deadline = (now + time).min(self.progress + PATIENCE);
    }

    /// Returns when to look at the time.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the number of a block as its head has it.
    pub(super) fn number(&self, block: u64) -> u16 {
        let number = match self.terms.rollover {
            1 if block > 0 => (block - 1) % 65535 + 1,
            _ => block % 65536,
        };
        u16::try_from(number).unwrap_or(0)
    }

    /// Returns which bytes some blocks have.
    pub(super) fn span(&self, blocks: &Range<u64>) -> Range<usize> {
        let at = |block: u64| {
            let before = block.saturating_sub(1).saturating_mul(self.terms.block.into());
            usize::try_from(before.min(self.size)).unwrap_or(usize::MAX)
        };
        at(blocks.start)..at(blocks.end)
    }

    /// Returns the bytes of a full block.
    pub(super) const fn block(&self) -> u16 {
        self.terms.block
    }

    /// Returns how many bytes the client has acknowledged.
    pub(super) fn taken(&self) -> u64 {
        (self.acked * u64::from(self.terms.block)).min(self.size)
    }

    /// Returns whether the client has acknowledged anything.
    pub(super) const fn is_heard(&self) -> bool {
        self.heard
    }

    /// Returns how many blocks were sent more than once.
    pub(super) const fn resent(&self) -> u64 {
        self.resent
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
