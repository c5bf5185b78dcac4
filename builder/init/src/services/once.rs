//! Containers that run one by one, each to its end: `onboot` and `onshutdown`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::bundles;
use crate::clock::uptime;
use crate::config::OnFailure;
use crate::console::say;
use crate::container;
use crate::logs;
use crate::phone::{Phase, Phone};
use crate::power::Then;
use crate::process::{Children, End};

const ONBOOT: &str = "/containers/onboot";
const ONSHUTDOWN: &str = "/containers/onshutdown";
/// How long all `onshutdown` containers together may take: a machine that is asked to stop stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);
/// How long the last words of one that has failed may take to arrive.
const AFTERWORDS: Duration = Duration::from_millis(50);
/// How much of them is told to the server.
const LAST_LINES: usize = 3;
const MOST_WORDS: usize = 240;
/// How long one that took too long has to give up.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Runs the `onboot` containers, each to its end. One that fails does not hold the boot up unless the image says so:
/// then none follows, and what is to be done with the machine is returned.
pub(crate) fn run_onboot(
    settings: &BTreeMap<String, OnFailure>,
    children: &Children,
    phone: &Phone,
) -> Option<Then> {
    for bundle in bundles(ONBOOT) {
        let name = name_of(&bundle);
        say(&format!("onboot {name}"));
        let start = uptime();
        // One that never ends is told of, too.
        phone.tell(Phase::Start, format!("onboot {name}"));
        let (told, end) = channel();
        let bundle = format!("{ONBOOT}/{bundle}");
        let result = children.start(&bundle, name, told);
        let failure = match result.map(|_| end.recv()) {
            Ok(Ok(end)) if end.is_success() => None,
            Ok(Ok(end)) => Some(what_ended(&bundle, end)),
            Ok(Err(_)) => Some("was lost".to_owned()),
            Err(error) => Some(format!("cannot start: {error}")),
        };
        match failure {
            None => phone.tell_since(start, Phase::Onboot, name),
            Some(failure) => {
                say(&format!("onboot {name} {failure}"));
                let said = last_words(name);
                phone.tell_since(start, Phase::Failed, format!("onboot {name} {failure}{said}"));
                match settings.get(name) {
                    None | Some(OnFailure::Continue) => {}
                    Some(OnFailure::Halt) => return Some(Then::PowerOff),
                    Some(OnFailure::Reboot) => return Some(Then::Reboot),
                }
            }
        }
    }
    None
}

/// Runs the `onshutdown` containers, each to its end, while the services are still there.
pub(crate) fn run_onshutdown(children: &Children) {
    let start = uptime();
    for bundle in bundles(ONSHUTDOWN) {
        let name = name_of(&bundle);
        let left = SHUTDOWN_PATIENCE.saturating_sub(uptime().saturating_sub(start));
        if left.is_zero() {
            say(&format!("no time is left for onshutdown {name}"));
            continue;
        }
        say(&format!("onshutdown {name}"));
        let (told, end) = channel();
        let bundle = format!("{ONSHUTDOWN}/{bundle}");
        match children.start(&bundle, name, told) {
            Ok(pid) => match end.recv_timeout(left) {
                Ok(end) if end.is_success() => {}
                Ok(end) => say(&format!("onshutdown {name} {}", what_ended(&bundle, end))),
                Err(RecvTimeoutError::Disconnected) => say(&format!("onshutdown {name} was lost")),
                Err(RecvTimeoutError::Timeout) => {
                    say(&format!("onshutdown {name} takes too long"));
                    let _ = kill(pid, Signal::SIGTERM);
                    let _ = end.recv_timeout(LAST_CHANCE);
                }
            },
            Err(error) => say(&format!("onshutdown {name} cannot start: {error}")),
        }
    }
}

/// Says how a container ended, or why it did not run.
fn what_ended(bundle: &str, end: End) -> String {
    let bundle = Path::new(bundle);
    let directory = bundle.file_name().unwrap_or_default().to_string_lossy();
    container::take_reason(&container::id(bundle, name_of(&directory)))
        .unwrap_or_else(|| end.to_string())
}

/// Returns the last lines of a container that has ended, for whoever cannot look at the console.
fn last_words(name: &str) -> String {
    // Its output comes by another way than its end, and may be a moment later.
    sleep(AFTERWORDS);
    let Some((lines, _)) = logs::last(name, LAST_LINES) else { return String::new() };
    let lines: Vec<&str> = lines.iter().map(|line| line.text.trim()).collect();
    let text = lines.join(" | ");
    if text.is_empty() {
        return String::new();
    }
    // The end says most.
    let skip = text.chars().count().saturating_sub(MOST_WORDS);
    format!("; it said last: {}", text.chars().skip(skip).collect::<String>())
}

/// The number in front says the order.
fn name_of(bundle: &str) -> &str {
    bundle.split_once('-').map_or(bundle, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_bundle_is_without_the_number_of_its_turn() {
        assert_eq!(name_of("000-a-b"), "a-b");
        assert_eq!(name_of("plain"), "plain");
    }
}
