//! Boots whose system was heard of, or that ended with a failure.

use kiln_inventory::{BootEvent, Command, OrderState, Outcome};

use super::loading::{missing, panic, stage};
use super::seen::Seen;
use super::{Cause, SYSTEM, Story, Verdict, lasting};

/// Judges a boot that came up.
pub(super) fn healthy(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    let boot = story.boot;
    if let Some(verdict) = ended(story, "was healthy") {
        return verdict;
    }
    let since = boot.ended.unwrap_or(boot.started);
    let after: Vec<_> = seen.failures.iter().filter(|event| event.at > since).collect();
    // What came after a failure, such as the service again, says that it was made good.
    let lasting_failure = after.last().filter(|last| story.events.last() == Some(**last));
    if let Some(failure) = lasting_failure {
        let mut verdict = by_words(story, failure, seen);
        verdict.reason = format!("came up, but then: {}", verdict.reason);
        return verdict;
    }
    let before = seen.failures.iter().filter(|event| event.at <= since).count();
    let reason = match (before, after.len()) {
        (0, 0) => "everything is up".to_owned(),
        (n, 0) => format!("everything is up, after {}", times(n)),
        (_, n) => format!("everything is up; {} since, made good", times(n)),
    };
    Verdict::new(Cause::Healthy, reason, "")
}

fn times(count: usize) -> String {
    if count == 1 { "1 failure".to_owned() } else { format!("{count} failures") }
}

/// Judges a boot that failed.
pub(super) fn failed(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    // What ends a boot before its system starts comes first; of what the system says, the last is what it is at.
    let fatal = ["this machine is not whole", "no state: "];
    let by_system = |event: &&&BootEvent| event.millis.is_some();
    let failure = seen
        .failures
        .iter()
        .find(|event| fatal.iter().any(|words| event.detail.starts_with(words)))
        .or_else(|| seen.failures.iter().rev().find(by_system))
        .or_else(|| seen.failures.last());
    let Some(failure) = failure else {
        return Verdict::new(Cause::SystemFailed, "it failed, and did not say why", "");
    };
    let mut verdict = by_words(story, failure, seen);
    if let Some(end) = ended(story, "") {
        verdict.reason.push_str(&format!("; then it {}", end.reason.trim_start()));
    }
    verdict
}

/// Judges a boot whose system has reported, and which is neither healthy nor failed.
pub(super) fn unfinished(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    if let Some(end) = ended(story, "had not come up") {
        let mut end = end;
        end.reason.push_str(&format!("; the last was: {}", seen.last_words()));
        return end;
    }
    if let Some(waiting) = seen.waiting {
        return unhealthy(story, &format!("waits for {waiting}"), waiting);
    }
    if let Some(lack) = seen.no_network {
        let advice = "look at the cable and the port of the switch; the card's driver or firmware may be missing in the \
                      image (`kernel.modules`, `kernel.firmware`), or no DHCP server answers there";
        return Verdict::new(Cause::NoNetwork, format!("the system says: {lack}"), advice);
    }
    if story.boot.outcome == Outcome::Booting && seen.silence(story) < SYSTEM {
        let silence = lasting(seen.silence(story));
        return Verdict::new(
            Cause::UnderWay,
            format!("under way; {silence} ago: {}", seen.last_words()),
            "",
        );
    }
    let reason = format!(
        "nothing was heard for {}; the last was: {}",
        seen.silent(story),
        seen.last_words()
    );
    let advice = format!(
        "an `onboot` container may take its time or hang, or a service never be well: `kiln machine logs {} NAME`",
        story.boot.machine_name
    );
    Verdict::new(Cause::Stuck, reason, advice)
}

/// Says how a system came to its end, if it did.
fn ended(story: &Story<'_>, until_then: &str) -> Option<Verdict> {
    let order = story.orders.iter().find(|order| {
        order.boot == story.boot.id
            && order.command.ends_the_boot()
            && order.state == OrderState::Done
    });
    if let Some(order) = order {
        let what = match &order.command {
            Command::PowerOff => "was switched off",
            Command::Kexec { .. } => "changed its version",
            _ => "was started anew",
        };
        let by = &order.asked_by;
        let reason = join(until_then, &format!("{what} by order {} of {by}", order.id));
        return Some(Verdict::new(Cause::Ordered, reason, ""));
    }
    let next = story.next?;
    if let Some(words) = panic(story.console) {
        let reason = join(until_then, &format!("crashed: {words}"));
        return Some(Verdict::new(Cause::Crashed, reason, "`kiln boot log` has the lines before"));
    }
    let ran = lasting(next.started.saturating_sub(story.boot.started));
    let reason =
        join(until_then, &format!("began anew after {ran}, without an order and without a word"));
    let advice = "a power cut, the reset button, its watchdog, or a crash: with `[netconsole]` the server hears what the \
                  kernel says last";
    Some(Verdict::new(Cause::PowerLost, reason, advice))
}

fn join(first: &str, then: &str) -> String {
    if first.is_empty() { then.to_owned() } else { format!("{first}, and then {then}") }
}

/// Judges a failure by what was said of it.
fn by_words(story: &Story<'_>, failure: &BootEvent, seen: &Seen<'_>) -> Verdict {
    let text = failure.detail.as_str();
    let (name, id) = (&story.boot.machine_name, story.boot.id);
    if failure.millis.is_none() {
        return by_loader(text, story, seen);
    }
    if text.starts_with("this machine is not whole") {
        let damaged = ["junk", "compressed", "truncated", "decompress", "corrupt", "uncompression"]
            .iter()
            .any(|word| text.contains(word));
        let advice = if damaged {
            "a segment is damaged, on its way or in the artifact store: `kiln image verify` says whether it is there"
        } else if text.contains("Memory was too small") {
            "give the machine more memory, or the image fewer parts"
        } else {
            "start it again; `kiln image verify` looks at what the server has"
        };
        return Verdict::new(Cause::NotWhole, text, advice);
    }
    if text.starts_with("no state: ") || text.starts_with("cannot record the schema") {
        let advice =
            format!("`kiln machine set {name} --state-disk` names the disk (docs/state.md)");
        return Verdict::new(Cause::NoState, text, advice);
    }
    if let Some(rest) = text.strip_prefix("onboot ") {
        let container = rest.split(' ').next().unwrap_or_default();
        let advice = format!(
            "`kiln machine logs {name} {container}` while the machine is up, `kiln boot log {id}` has what its kernel \
             wrote"
        );
        return Verdict::new(Cause::OnbootFailed, text, advice);
    }
    let service = text.split([' ', ':']).next().unwrap_or_default();
    let advice = format!("`kiln machine logs {name} {service}` has what it printed");
    if text.contains("times in a row") {
        return Verdict::new(Cause::ServiceRestarts, format!("service {text}"), advice);
    }
    if text.contains("was not well") || text.split_once(": ").is_some_and(|(it, _)| it == service) {
        return unhealthy(story, &format!("service {text}"), service);
    }
    let of_service =
        [" ended", " was ended", " was killed", " cannot ", " is not started", " was lost"];
    if of_service.iter().any(|words| text.starts_with(&format!("{service}{words}"))) {
        return Verdict::new(Cause::ServiceFailed, format!("service {text}"), advice);
    }
    let advice = format!("`kiln boot log {id}` has what its kernel wrote");
    Verdict::new(Cause::SystemFailed, format!("the system says: {text}"), advice)
}

fn unhealthy(story: &Story<'_>, reason: &str, service: &str) -> Verdict {
    let service = service.split(':').next().unwrap_or(service);
    let advice = format!(
        "`kiln machine logs {} {service}` has what it printed; `health` of the image says how it is checked",
        story.boot.machine_name
    );
    Verdict::new(Cause::ServiceUnhealthy, reason, advice)
}

/// Judges what the server saw, or what a loader said.
fn by_loader(text: &str, story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    if text.starts_with("refused: ") {
        let advice =
            format!("`kiln machine explain {}` says by which rule", story.boot.machine_name);
        return Verdict::new(Cause::Refused, text, advice);
    }
    if text.contains("does not trust the certificate") {
        let advice = "enrol `kiln ca export` in its firmware, or set `[https] urls = \"http\"`";
        return Verdict::new(Cause::Untrusted, text, advice);
    }
    if text.starts_with("the loader cannot fetch") {
        if let Some(absent) = seen.absent {
            let mut verdict = missing(absent);
            verdict.reason = format!("{text}; {absent}");
            return verdict;
        }
        let found = stage(story, seen);
        let reason = match seen.broken {
            Some(broken) => format!("{text}; {broken}"),
            None => text.to_owned(),
        };
        return Verdict::new(Cause::TransferBroken, reason, found.advice);
    }
    let advice = "look at its screen; the number is explained at the address that it names";
    Verdict::new(Cause::LoaderGaveUp, text, advice)
}
