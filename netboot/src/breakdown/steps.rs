//! Lays steps one after the other, so that their shares add up.

use kiln_inventory::{Boot, BootEvent, Phase};

use super::chain::{Span, last_chain};
use super::{Clock, Step};

pub(super) struct Steps<'a> {
    clock: &'a Clock,
    /// Up to here every moment belongs to a step.
    done: u64,
    steps: Vec<Step>,
}

impl<'a> Steps<'a> {
    pub(super) const fn new(clock: &'a Clock) -> Self {
        Self { clock, done: 0, steps: Vec::new() }
    }

    /// Gives the time up to a moment to a name.
    pub(super) fn until(&mut self, name: &str, to: u64) {
        if to <= self.done {
            return;
        }
        match self.steps.last_mut() {
            Some(last) if last.name == name && last.to == self.done => {
                last.share += to - self.done;
                last.to = to;
            }
            _ => self.steps.push(Step { share: to - self.done, ..step(name, self.done, to) }),
        }
        self.done = to;
    }

    /// Adds a step. What it overlaps has its share already.
    fn add(&mut self, mut step: Step) {
        step.share = step.to.saturating_sub(self.done.max(step.from));
        self.done = self.done.max(step.to);
        self.steps.push(step);
    }

    /// The firmware and the loader: what the server sent them, and what lies between.
    pub(super) fn seen_by_server(&mut self, events: &[&BootEvent]) {
        let mut running = "firmware";
        // The transfer before, where another one follows it at once.
        let mut fetched = None;
        // The booted system asks for an address as well, much later.
        let is_seen = |event: &&&BootEvent| {
            event.phase < Phase::Init
                && !(event.phase == Phase::Dhcp && event.detail.starts_with("system"))
        };
        for event in events.iter().filter(is_seen) {
            let end = self.clock.end(event);
            match event.phase {
                Phase::Dhcp => {
                    if event.detail.starts_with("ipxe") {
                        running = "loader";
                    }
                    self.until(running, end);
                    // Only one whose packets are known is worth a row.
                    if event.detail.contains(", ") || event.detail.contains(": ") {
                        let detail = event.detail.clone();
                        self.add(Step { detail, ..step("dhcp", end, end) });
                    }
                }
                Phase::Script => {
                    running = "loader";
                    self.until(running, end);
                    self.add(Step { detail: event.detail.clone(), ..step("script", end, end) });
                }
                // A word about what may come, which takes no time.
                Phase::Warning => {
                    let detail = event.detail.clone();
                    self.steps.push(Step { detail, ..step("warning", end, end) });
                    continue;
                }
                // Asked in vain: the time is that of who asked.
                Phase::Absent => {
                    let waits = if running == "firmware" { running } else { "loader" };
                    self.until(waits, end);
                    let detail = event.detail.clone();
                    self.add(Step { detail, ..step("absent", end, end) });
                }
                phase => {
                    let took = event.millis.unwrap_or(0);
                    let from = end.saturating_sub(took).max(self.done.min(end));
                    match fetched {
                        Some(index) => self.extend(index, from),
                        None => self.until(running, from),
                    }
                    // What broke off is fetched again, most times; the firmware goes on as what it was.
                    let broken = phase == Phase::Broken;
                    let (name, detail) = match event.detail.split_once(": ") {
                        Some((name, why)) if broken => (name, why),
                        _ => (event.detail.as_str(), ""),
                    };
                    let name = format!("fetch {name}");
                    let detail = with_resent(detail, event.resent.unwrap_or(0));
                    let fetch = Step { bytes: event.bytes, detail, ..step(&name, from, end) };
                    self.add(Step { rate: rate(&fetch), ..fetch });
                    if !broken {
                        running = "loader";
                        fetched = (phase != Phase::Loader).then(|| self.steps.len() - 1);
                        continue;
                    }
                }
            }
            fetched = None;
        }
    }

    /// Lengthens a transfer up to a moment. The server sees only when it handed over the last byte; the loader fetches
    /// one file after the other, so that it had the last byte when it asks for the next file.
    fn extend(&mut self, index: usize, to: u64) {
        let Some(step) = self.steps.get_mut(index).filter(|_| to > self.done) else { return };
        step.share += to - self.done;
        step.to = to;
        step.rate = rate(step);
        self.done = to;
    }

    /// The kernel and everything after it.
    pub(super) fn reported(&mut self, boot: &Boot, events: &[&BootEvent]) {
        let reported: Vec<&BootEvent> =
            events.iter().copied().filter(|event| event.phase >= Phase::Init).collect();
        // A failure before the system reported is the loader's.
        let of_system =
            |event: &&&BootEvent| event.phase != Phase::Failed || event.millis.is_some();
        let Some(first) = reported.iter().find(of_system) else {
            for event in reported {
                self.event(event, "loader");
            }
            return;
        };
        if let Some(start) = boot.kernel_start {
            self.until("handover", self.clock.since(start));
        }
        self.until("kernel", self.begin(first));
        let turn = |event: &&BootEvent| {
            let took = event.took.filter(|_| event.phase == Phase::Service)?;
            Some(self.clock.end(event).saturating_sub(took))
        };
        let services = reported.iter().filter_map(turn).min().unwrap_or(u64::MAX);
        for event in &reported {
            match event.phase {
                Phase::Init | Phase::Start | Phase::Waiting | Phase::Service | Phase::Healthy => {}
                // A moment beside the others.
                Phase::Restart => {
                    let (at, detail) = (self.clock.end(event), event.detail.clone());
                    self.steps.push(Step { detail, ..step("restart", at, at) });
                }
                // Such as the address of another network card: no service waited for it.
                _ if event.took.is_some() && self.clock.end(event) > services => {
                    let (from, to) = (self.begin(event), self.clock.end(event));
                    let detail = event.detail.clone();
                    self.steps.push(Step { detail, ..step(event.phase.as_str(), from, to) });
                }
                // Of a service: it is a moment beside the others.
                Phase::Failed if event.took.is_none() => {
                    let at = self.clock.end(event);
                    let detail = event.detail.clone();
                    self.steps.push(Step { detail, ..step("failed", at, at) });
                }
                _ => self.event(event, "init"),
            }
        }
        let is_service = |event: &&&BootEvent| event.phase == Phase::Service;
        let spans: Vec<Span> = reported.iter().filter(is_service).map(|e| self.span(e)).collect();
        let chain = last_chain(&spans);
        for index in &chain {
            if let Some(Span { name, from, to }) = spans.get(*index) {
                self.until("init", *from);
                let detail = self.set_up(&reported, name, *from, *to);
                self.add(Step { detail, ..step(&format!("service {name}"), *from, *to) });
            }
        }
        for (index, Span { name, from, to }) in spans.iter().enumerate() {
            if !chain.contains(&index) {
                let detail = self.set_up(&reported, name, *from, *to);
                self.steps.push(Step { detail, ..step(&format!("service {name}"), *from, *to) });
            }
        }
        self.unfinished(&reported);
    }

    /// Says when in the time of a service its program began.
    fn set_up(&self, reported: &[&BootEvent], name: &str, from: u64, to: u64) -> String {
        let began = started(reported).find(|(kind, of, _)| *kind == "service" && *of == name);
        let began = began.map(|(.., event)| self.clock.end(event));
        let Some(began) = began.filter(|began| (from..=to).contains(began)) else {
            return String::new();
        };
        let after = began - from;
        format!("its program began after {}.{:03} s", after / 1000, after % 1000)
    }

    /// Names what has begun and is not over: it is what a boot that hangs waits for.
    fn unfinished(&mut self, reported: &[&BootEvent]) {
        for (kind, name, event) in started(reported) {
            let over = reported.iter().any(|other| match (kind, other.phase) {
                ("onboot", Phase::Onboot) | ("service", Phase::Service) => other.detail == name,
                ("onboot", Phase::Failed) => {
                    other.detail.strip_prefix("onboot ").is_some_and(|rest| rest.starts_with(name))
                }
                _ => false,
            });
            if !over {
                let at = self.clock.end(event);
                let detail = "has begun and is not over".to_owned();
                self.steps.push(Step { detail, ..step(&format!("{kind} {name}"), at, at) });
            }
        }
    }

    /// Adds what one event tells of; what lies before it belongs to `before`.
    fn event(&mut self, event: &BootEvent, before: &str) {
        let (from, to) = (self.begin(event), self.clock.end(event));
        self.until(before, from);
        let (name, detail) = match event.phase {
            Phase::Onboot => (format!("onboot {}", event.detail), String::new()),
            phase => (phase.to_string(), event.detail.clone()),
        };
        self.add(Step { detail, ..step(&name, from, to) });
    }

    fn span(&self, event: &BootEvent) -> Span {
        Span { name: event.detail.clone(), from: self.begin(event), to: self.clock.end(event) }
    }

    /// Returns when what an event tells of began. Where it does not say, it was when the one before ended.
    fn begin(&self, event: &BootEvent) -> u64 {
        let end = self.clock.end(event);
        match (event.took, event.phase) {
            (Some(took), _) => end.saturating_sub(took),
            (None, Phase::Init | Phase::Failed) => end,
            (None, _) => self.done.min(end),
        }
    }

    /// Gives the time up to the end to silence, which a warning may explain.
    pub(super) fn silence(&mut self, total: u64) {
        self.until("silence", total);
        let warning = self.steps.iter().find(|step| step.name == "warning");
        let warning = warning.map(|step| step.detail.clone());
        if let (Some(detail), Some(last)) = (warning, self.steps.last_mut())
            && last.name == "silence"
        {
            last.detail = detail;
        }
    }

    pub(super) fn in_order(mut self) -> Vec<Step> {
        self.steps.sort_by_key(|step| step.from);
        self.steps
    }
}

/// Returns the containers whose programs began: their kind, their name and the event.
fn started<'a>(
    reported: &'a [&BootEvent],
) -> impl Iterator<Item = (&'a str, &'a str, &'a BootEvent)> {
    reported.iter().filter(|event| event.phase == Phase::Start).filter_map(|event| {
        let (kind, name) = event.detail.split_once(' ')?;
        Some((kind, name, *event))
    })
}

/// Adds to what is told of a transfer how many blocks were sent again.
fn with_resent(detail: &str, resent: u64) -> String {
    let again = match resent {
        0 => return detail.to_owned(),
        1 => "1 block was sent again".to_owned(),
        many => format!("{many} blocks were sent again"),
    };
    if detail.is_empty() { again } else { format!("{detail}; {again}") }
}

/// Returns bytes a second. Faster than the clock can tell is no rate.
fn rate(step: &Step) -> Option<u64> {
    let bytes = step.bytes.filter(|_| step.took() >= 10)?;
    Some(bytes.saturating_mul(1000) / step.took())
}

pub(super) fn step(name: &str, from: u64, to: u64) -> Step {
    Step {
        name: name.to_owned(),
        from,
        to,
        share: 0,
        detail: String::new(),
        bytes: None,
        rate: None,
        usual: None,
    }
}
