//! Name servers and the like of all interfaces, in the files where programs look for them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use crate::console::say;

const RESOLVER: &str = "/run/resolvconf/resolv.conf";
/// One server a line.
const TIME_SERVERS: &str = "/run/kiln/network/ntp";
/// C libraries read three servers, and 256 letters of names.
const MOST_SERVERS: usize = 6;
const MOST_LETTERS: usize = 256;

/// Who told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Plan,
    Dhcp4,
    Router,
    Dhcp6,
}

/// What one source says about one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) servers: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) time_servers: Vec<String>,
}

/// What all say, the most important interface first.
#[derive(Debug, Default)]
pub(super) struct Resolver(Mutex<BTreeMap<(usize, Source), Told>>);

impl Resolver {
    /// Makes the file before anybody looks for it: containers bind it when they start.
    pub(super) fn create(&self) {
        write_all(&BTreeMap::new());
    }

    /// Takes what a source says now in the place of what it said.
    pub(super) fn tell(&self, rank: usize, source: Source, told: Told) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.insert((rank, source), told.clone()).unwrap_or_default();
        if before != told {
            write_all(&all);
        }
    }

    /// Forgets an interface.
    pub(super) fn forget(&self, rank: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, _), _| *of != rank);
        write_all(&all);
    }
}

fn write_all(all: &BTreeMap<(usize, Source), Told>) {
    let times = unique(all.values().flat_map(|told| &told.time_servers));
    let times: String = times.iter().map(|server| format!("{server}\n")).collect();
    for (path, text) in [(RESOLVER, resolv_conf(all)), (TIME_SERVERS, times)] {
        if let Err(error) = rewrite(path, text) {
            say(&format!("cannot write {path}: {error}"));
        }
    }
}

fn resolv_conf(all: &BTreeMap<(usize, Source), Told>) -> String {
    let mut text = String::new();
    let mut letters = 0;
    for name in unique(all.values().flat_map(|told| &told.search)) {
        letters += name.len() + 1;
        if letters <= MOST_LETTERS {
            text.push_str(if text.is_empty() { "search " } else { " " });
            text.push_str(name);
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for server in unique(all.values().flat_map(|told| &told.servers)).iter().take(MOST_SERVERS) {
        text.push_str("nameserver ");
        text.push_str(server);
        text.push('\n');
    }
    text
}

fn unique<'a>(all: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut once: Vec<&str> = Vec::new();
    for text in all {
        if !once.contains(&text.as_str()) {
            once.push(text);
        }
    }
    once
}

/// Writes over a file in its place: a container that binds it has this very file. Who reads in between sees the new
/// text with empty lines after it, never half of the old one.
fn rewrite(path: &str, text: String) -> io::Result<()> {
    if let Some((folder, _)) = path.rsplit_once('/') {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let length = text.len();
    let before = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(1 << 16);
    let mut padded = text.into_bytes();
    padded.resize(length.max(before), b'\n');
    file.write_all_at(&padded, 0)?;
    file.set_len(length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(servers: &[&str], search: &[&str]) -> Told {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Told { servers: texts(servers), search: texts(search), time_servers: Vec::new() }
    }

    #[test]
    fn the_most_important_interface_comes_first_and_nothing_twice() {
        let all = BTreeMap::from([
            ((1, Source::Dhcp4), told(&["10.1.0.1"], &["other", "lab"])),
            ((0, Source::Router), told(&["fe80::1%eth0", "10.0.0.1"], &["six"])),
            ((0, Source::Dhcp4), told(&["10.0.0.1"], &["lab"])),
        ]);
        assert_eq!(
            resolv_conf(&all),
            "search lab six other\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n\
             nameserver 10.1.0.1\n"
        );
        assert_eq!(resolv_conf(&BTreeMap::new()), "");
    }

    #[test]
    fn no_more_is_written_than_programs_read() {
        let servers: Vec<String> = (0..20).map(|n| format!("10.0.0.{n}")).collect();
        let names: Vec<String> = (0..20).map(|n| format!("{n}.{}", "x".repeat(60))).collect();
        let told = Told { servers, search: names, ..Told::default() };
        let text = resolv_conf(&BTreeMap::from([((0, Source::Dhcp4), told)]));
        assert_eq!(text.matches("nameserver").count(), MOST_SERVERS);
        assert!(text.lines().next().unwrap().len() <= MOST_LETTERS + "search".len());
    }

    #[test]
    fn a_file_is_written_in_its_place() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("kiln-resolver-{}", std::process::id()));
        let text = path.display().to_string();
        rewrite(&text, "a long first text\n".to_owned()).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        rewrite(&text, "short\n".to_owned()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short\n");
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
        fs::remove_file(&path).unwrap();
    }
}
