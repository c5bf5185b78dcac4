//! Containers in their order: first `onboot` one by one, then the services side by side.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::uptime;
use crate::config::Service;
use crate::console::say;
use crate::error::BootError;
use crate::phone::{Phase, Phone};
use crate::process::{Children, End};
use crate::restart::Backoff;

const ONBOOT: &str = "/containers/onboot";
const SERVICES: &str = "/containers/services";
/// Who has run this long counts as up.
const UP_AFTER: Duration = Duration::from_secs(1);

/// Runs the `onboot` containers, each to its end. One that fails does not hold the boot up.
pub(crate) fn run_onboot(children: &Children, phone: &Phone) {
    for bundle in bundles(ONBOOT) {
        // The number in front says the order.
        let name = bundle.split_once('-').map_or(bundle.as_str(), |(_, name)| name);
        say(&format!("onboot {name}"));
        let (told, end) = channel();
        let id = format!("onboot-{bundle}");
        let result = children.start(&format!("{ONBOOT}/{bundle}"), &id, told);
        let failure = match result.map(|_| end.recv()) {
            Ok(Ok(end)) if end.is_success() => None,
            Ok(Ok(end)) => Some(end.to_string()),
            Ok(Err(_)) => Some("was lost".to_owned()),
            Err(error) => Some(format!("cannot start: {error}")),
        };
        match failure {
            None => phone.tell(Phase::Onboot, name),
            Some(failure) => {
                say(&format!("onboot {name} {failure}"));
                phone.tell(Phase::Failed, format!("onboot {name} {failure}"));
            }
        }
    }
}

/// Starts every service and a thread for each that keeps it. Returns when all of them are started;
/// the receiver gets one message when all are up.
pub(crate) fn start(
    settings: &BTreeMap<String, Service>,
    children: &Arc<Children>,
    phone: &Phone,
) -> Result<Receiver<()>, BootError> {
    let (healthy, receiver) = channel();
    let names = in_order(bundles(SERVICES), settings);
    let waiting = Arc::new(Waiting { left: Mutex::new(names.len()), healthy });
    if names.is_empty() {
        let _ = waiting.healthy.send(());
    }
    let (up, ups) = channel::<String>();
    let mut are_up: Vec<String> = Vec::new();
    for name in &names {
        let service = settings.get(name).cloned().unwrap_or_default();
        for earlier in service.after.iter().filter(|earlier| names.contains(earlier)) {
            while !are_up.contains(earlier) {
                match ups.recv_timeout(Duration::from_secs(30)) {
                    Ok(other) => are_up.push(other),
                    Err(_) => {
                        say(&format!("{name} no longer waits for {earlier}"));
                        break;
                    }
                }
            }
        }
        let keeper = Keeper {
            name: name.clone(),
            service,
            children: Arc::clone(children),
            phone: phone.clone(),
            waiting: Arc::clone(&waiting),
            up: up.clone(),
        };
        std::thread::Builder::new()
            .name(format!("keep {name}"))
            .stack_size(128 * 1024)
            .spawn(move || keeper.run())
            .map_err(|source| BootError::StartThread("service", source))?;
    }
    Ok(receiver)
}

/// Counts the services that are not up yet.
struct Waiting {
    left: Mutex<usize>,
    healthy: Sender<()>,
}

impl Waiting {
    fn one_is_up(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(1);
        if *left == 0 {
            let _ = self.healthy.send(());
        }
    }
}

struct Keeper {
    name: String,
    service: Service,
    children: Arc<Children>,
    phone: Phone,
    waiting: Arc<Waiting>,
    up: Sender<String>,
}

impl Keeper {
    fn run(&self) {
        let mut backoff = Backoff::default();
        let mut was_up = false;
        loop {
            let start = uptime();
            let end = self.run_once(&mut was_up);
            let success = matches!(end, Ok(end) if end.is_success());
            let what = match end {
                Ok(end) => end.to_string(),
                Err(error) => format!("cannot start: {error}"),
            };
            if success && !was_up && self.service.restart != crate::config::Restart::Always {
                // It had one thing to do, and did it.
                self.tell_up(&mut was_up);
            }
            if !success {
                self.phone.tell(Phase::Failed, format!("{} {what}", self.name));
            }
            let ran_for = uptime().saturating_sub(start);
            let Some(wait) = backoff.after(self.service.restart, success, ran_for) else {
                say(&format!("{} {what}", self.name));
                return;
            };
            say(&format!("{} {what}; again in {} ms", self.name, wait.as_millis()));
            std::thread::sleep(wait);
        }
    }

    fn run_once(&self, was_up: &mut bool) -> std::io::Result<End> {
        let (told, end) = channel();
        self.children.start(&format!("{SERVICES}/{}", self.name), &self.name, told)?;
        if !*was_up {
            match end.recv_timeout(UP_AFTER) {
                Ok(end) => return Ok(end),
                Err(RecvTimeoutError::Timeout) => self.tell_up(was_up),
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
        end.recv().map_err(|_| lost())
    }

    fn tell_up(&self, was_up: &mut bool) {
        *was_up = true;
        say(&format!("service {}", self.name));
        self.phone.tell(Phase::Service, self.name.as_str());
        let _ = self.up.send(self.name.clone());
        self.waiting.one_is_up();
    }
}

fn lost() -> std::io::Error {
    std::io::Error::other("nobody knows how it ended")
}

fn bundles(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(directory)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Puts every service behind those it comes after. Of a circle, the rest is in order of name.
fn in_order(names: Vec<String>, settings: &BTreeMap<String, Service>) -> Vec<String> {
    let mut left = names;
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready = left.iter().position(|name| {
            let after = settings.get(name).map(|service| service.after.as_slice());
            !after.unwrap_or_default().iter().any(|earlier| left.contains(earlier))
        });
        if ready.is_none() {
            say(&format!("services wait for each other in a circle: {}", left.join(", ")));
        }
        order.push(left.remove(ready.unwrap_or(0)));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Service> {
        pairs
            .iter()
            .map(|(name, after)| {
                let after = after.iter().map(ToString::to_string).collect();
                ((*name).to_owned(), Service { after, ..Service::default() })
            })
            .collect()
    }

    fn ordered(pairs: &[(&str, &[&str])]) -> Vec<String> {
        let names = pairs.iter().map(|(name, _)| (*name).to_owned()).collect();
        in_order(names, &settings(pairs))
    }

    #[test]
    fn a_service_comes_behind_those_it_names() {
        assert_eq!(ordered(&[("a", &["c"]), ("b", &[]), ("c", &["b"])]), ["b", "c", "a"]);
    }

    #[test]
    fn a_circle_and_an_unknown_name_do_not_hold_anything_up() {
        assert_eq!(ordered(&[("a", &["b"]), ("b", &["a"]), ("c", &["x"])]), ["c", "a", "b"]);
    }
}
