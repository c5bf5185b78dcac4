//! Does what the server orders: asks for orders by long poll, carries them out one by one, and says what became of each.
//!
//! An order that was begun is never begun again: the next question names it as known. It is for this boot only, so that
//! no machine reboots for ever.

mod run;

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::uptime;
use crate::config::Machine;
use crate::console::say;
use crate::error::BootError;
use crate::http::{self, Backoff, Limits, Request, Server};
use crate::kexec::{self, Target};
use crate::logs;
use crate::power::{self, Then};
use crate::process::Children;

/// How long the server may let us wait for an order, in seconds.
const WAIT: u32 = 50;
/// The server answers after `WAIT`, or is not there.
const PATIENCE: Limits = Limits {
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(70),
    total: Duration::from_secs(80),
};
/// An answer that comes sooner was not waited for.
const QUICK: Duration = Duration::from_secs(1);
/// The largest list of orders that is read.
const LARGEST_LIST: usize = 256 << 10;
/// The most that an answer has; of a longer one the end is sent.
const LARGEST_ANSWER: usize = 200 << 10;
/// How often the end of an order is told before one that stops the machine is carried out all the same.
const TRIES_BEFORE_STOP: u32 = 4;

/// One order, of whatever kind: what a kind does not need is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Order {
    id: i64,
    kind: String,
    name: String,
    lines: usize,
    service: Option<String>,
    program: Vec<String>,
    #[serde(flatten)]
    target: Target,
}

/// What became of an order.
#[derive(Debug, Serialize)]
struct Ended {
    state: &'static str,
    answer: String,
}

/// What an order comes to.
enum Outcome {
    Done(String),
    Failed(String),
    /// The machine goes down once the server knows.
    Stop(Then, String),
}

/// Starts the thread that asks for orders, where a server told the machine who it is.
pub(crate) fn start(
    server: Option<&Server>,
    machine: Option<&Machine>,
    children: &Arc<Children>,
) -> Result<(), BootError> {
    let (Some(server), Some(machine)) = (server, machine) else { return Ok(()) };
    let agent =
        Agent { server: server.clone(), machine: machine.clone(), children: Arc::clone(children) };
    std::thread::Builder::new()
        .name("orders".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || agent.run())
        .map_err(|source| BootError::StartThread("orders", source))?;
    Ok(())
}

struct Agent {
    server: Server,
    machine: Machine,
    children: Arc<Children>,
}

impl Agent {
    fn run(&self) -> ! {
        let mut known = 0;
        let mut backoff = Backoff::default();
        loop {
            let start = uptime();
            match self.poll(known) {
                Some(orders) => {
                    // A server that says at once that there is nothing is asked as seldom as one that is away.
                    let quick = uptime().saturating_sub(start) < QUICK;
                    if !quick || !orders.is_empty() {
                        backoff = Backoff::default();
                    }
                    let new = orders.iter().any(|order| order.id > known);
                    for order in orders {
                        if order.id > known {
                            known = order.id;
                            self.carry_out(&order);
                        }
                    }
                    if quick && !new {
                        sleep(backoff.next());
                    }
                }
                None => sleep(backoff.next()),
            }
        }
    }

    /// Returns the orders after the last known one; nothing when the server cannot be asked or does not answer well.
    fn poll(&self, known: i64) -> Option<Vec<Order>> {
        let path = format!("/agent/{}/orders?after={known}&wait={WAIT}", self.machine.boot);
        let request = Request { token: Some(&self.machine.token), ..Request::get(&path) };
        let answer = http::ask(&self.server, &request, PATIENCE, LARGEST_LIST).ok()?;
        match answer.status {
            204 => Some(Vec::new()),
            200 => serde_json::from_slice(&answer.body)
                .inspect_err(|error| say(&format!("orders that make no sense: {error}")))
                .ok(),
            _ => None,
        }
    }

    fn carry_out(&self, order: &Order) {
        say(&format!("order {}: {}", order.id, order.kind));
        match self.outcome(order) {
            Outcome::Done(answer) => self.tell(order.id, "done", answer, u32::MAX),
            Outcome::Failed(why) => {
                say(&format!("order {}: {why}", order.id));
                self.tell(order.id, "failed", why, u32::MAX);
            }
            Outcome::Stop(then, answer) => {
                self.tell(order.id, "done", answer, TRIES_BEFORE_STOP);
                power::ask(then);
                // Whatever is ordered now, the machine goes down.
                loop {
                    std::thread::park();
                }
            }
        }
    }

    fn outcome(&self, order: &Order) -> Outcome {
        match order.kind.as_str() {
            "reboot" => Outcome::Stop(Then::Reboot, "stops and starts anew".to_owned()),
            "power-off" => Outcome::Stop(Then::PowerOff, "stops and switches off".to_owned()),
            "kexec" => match kexec::load(&self.server, &self.machine, &order.target) {
                Ok(()) => Outcome::Stop(Then::Kexec, "stops and starts the version".to_owned()),
                Err(error) => Outcome::Failed(crate::error::chain(&error)),
            },
            "logs" => match logs::tail(&order.name, order.lines) {
                Some(text) => Outcome::Done(end_of(text)),
                None => Outcome::Failed(format!("no `{}` has printed anything", order.name)),
            },
            "run" => run::run(&self.children, order.service.as_deref(), &order.program),
            other => Outcome::Failed(format!("this image is too old for an order to {other}")),
        }
    }

    /// Says what became of an order, until the server has heard it or does not want to.
    fn tell(&self, id: i64, state: &'static str, answer: String, tries: u32) {
        let path = format!("/agent/{}/orders/{id}", self.machine.boot);
        let Ok(body) = serde_json::to_vec(&Ended { state, answer }) else { return };
        let request = Request::post(&path, &self.machine.token, &body);
        let mut backoff = Backoff::default();
        for _ in 0..tries {
            match http::ask(&self.server, &request, Limits::SHORT, 4096).map(|a| a.status) {
                Ok(status) if (200..500).contains(&status) && !matches!(status, 408 | 429) => {
                    return;
                }
                Ok(_) | Err(_) => sleep(backoff.next()),
            }
        }
    }
}

/// Returns the end of a text that is too long, from the beginning of a line on.
fn end_of(text: String) -> String {
    let from = text.len().saturating_sub(LARGEST_ANSWER);
    if from == 0 {
        return text;
    }
    let end = text.as_bytes().get(from..).unwrap_or_default();
    let line = end.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    String::from_utf8_lossy(end.get(line..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_every_kind_are_read_and_unknown_words_do_no_harm() {
        let orders: Vec<Order> = serde_json::from_str(
            r#"[{"id":1,"kind":"reboot"},{"id":2,"kind":"logs","name":"web","lines":9,"new":[]},
                {"id":3,"kind":"run","program":["/bin/x","y"]},
                {"id":4,"kind":"kexec","image":"web","version":"sha256:00","boot":7,"segment":"/m",
                 "manifest_size":9,"signature":null,"cmdline":"quiet"}]"#,
        )
        .unwrap();
        assert_eq!((orders[0].id, orders[1].lines), (1, 9));
        assert_eq!(orders[2].program, ["/bin/x", "y"]);
        assert_eq!(orders[3].target.boot, 7);
    }

    #[test]
    fn of_a_long_answer_the_last_whole_lines_are_sent() {
        let text = "line\n".repeat(100_000);
        let end = end_of(text);
        assert!(end.len() <= LARGEST_ANSWER && end.starts_with("line\n"));
        assert_eq!(end_of("short".to_owned()), "short");
    }
}
