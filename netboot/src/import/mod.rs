//! Reads what other servers know of machines, so that nobody has to write it again.
//!
//! Every reader is pure: the text of a file in, what it says of machines out, and notes about what was left behind. What
//! is found becomes a document that `kiln apply` takes, so that an operator sees it before anything is changed.

mod dnsmasq;
#[cfg(test)]
mod fuzz_tests;
mod groups;
mod isc;
mod kea;
mod known;
mod matchbox;
mod name;
mod note;
mod told;
mod warewulf;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_inventory::{Duid, Identifier, Lease, Lease6, NewMachine};
use kiln_types::{ImageRef, Mac};
use serde_json::{Map, Value};

use self::groups::Profile;
use self::note::Notes;
pub use self::note::{ImportError, Note};
use self::told::Told;

/// The end of a lease that has none, in seconds since 1970.
const FOR_EVER: i64 = u32::MAX as i64;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Settings of dnsmasq (`dhcp-host=` lines), a file of `dhcp-hostsfile`, /etc/ethers, /etc/hosts, or its leases, also those
    /// of IPv6
    Dnsmasq,
    /// dhcpd.conf, dhcpd.leases or dhcpd6.leases of ISC's server
    Isc,
    /// kea-dhcp4.conf or kea-dhcp6.conf, or the leases in Kea's CSV
    Kea,
    /// nodes.conf
    Warewulf,
    /// A group or profile (JSON) of matchbox
    Matchbox,
}

/// What a file says of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Which of the files says it.
    file: usize,
    line: Option<usize>,
    name: Option<String>,
    macs: BTreeSet<Mac>,
    uuid: Option<String>,
    serial: Option<String>,
    address: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
    client_id: Option<Identifier>,
    circuit_id: Option<Identifier>,
    image: Option<ImageRef>,
    cmdline: Vec<String>,
    /// Whether its own kernel arguments stand in the place of those of its profiles.
    only_its_cmdline: bool,
    /// Profiles whose settings it gets.
    profiles: Vec<String>,
    labels: BTreeMap<String, String>,
    metadata: Map<String, Value>,
}

/// What a file holds for many machines at once: a profile of Warewulf or matchbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// Label that the machines have which it is for.
    pub label: (String, String),
    /// Image they run.
    pub image: Option<ImageRef>,
    /// Kernel arguments.
    pub cmdline: String,
    /// Whether these arguments stand in the place of those of weaker ones.
    pub only_its_cmdline: bool,
    /// What templates are filled with.
    pub metadata: Map<String, Value>,
    /// Which one wins where several say the same: the one with the highest number.
    pub priority: i32,
}

impl Shared {
    fn of(profile: &str) -> Self {
        let name = plain(profile);
        Self {
            label: profile_label(&name),
            name,
            image: None,
            cmdline: String::new(),
            only_its_cmdline: false,
            metadata: Map::new(),
            priority: 0,
        }
    }
}

/// The label of the machines that the profile is for whose group has a name.
fn profile_label(group: &str) -> (String, String) {
    (format!("profile-{group}"), "yes".to_owned())
}

/// Writes a name with letters that groups and labels have.
fn plain(name: &str) -> String {
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
        _ => '-',
    };
    let name: String = name.chars().map(letter).take(50).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "profile".to_owned() } else { name.to_owned() }
}

/// What the files of another server hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Machines, each with a name of its own.
    pub machines: Vec<NewMachine>,
    /// What counts for several of them.
    pub shared: Vec<Shared>,
    /// Addresses that are in use.
    pub leases: Vec<Lease>,
    /// Those of IPv6.
    pub leases6: Vec<Lease6>,
    /// What was left behind.
    pub notes: Vec<Note>,
}

/// What one file holds, before machines of several lines and files are put together.
#[derive(Debug, Default)]
struct Page {
    found: Vec<Found>,
    profiles: Vec<Profile>,
    leases: Told<Ipv4Addr, Lease>,
    leases6: Told<Ipv6Addr, Lease6>,
    notes: Notes,
}

impl Page {
    fn profile(&mut self, said: &str, shared: Shared) {
        self.profiles.push(Profile { file: 0, said: said.to_owned(), shared });
    }

    fn note(&mut self, line: impl Into<Option<usize>>, what: impl Into<String>) {
        self.notes.add(0, line.into(), what.into());
    }
}

/// Reads the text of one or more files of the same server.
///
/// # Errors
///
/// When a text is not of the kind that is named. The number says which one.
pub fn read(source: Source, texts: &[String]) -> Result<Imported, (usize, ImportError)> {
    let mut whole = Page::default();
    for (at, text) in texts.iter().enumerate() {
        let page = match source {
            Source::Dnsmasq => dnsmasq::read(text),
            Source::Isc => isc::read(text),
            Source::Kea => kea::read(text),
            Source::Warewulf => warewulf::read(text),
            Source::Matchbox => matchbox::read(text),
        };
        let page = page.map_err(|error| (at, error))?;
        whole.found.extend(page.found.into_iter().map(|found| Found { file: at, ..found }));
        let profiles = page.profiles.into_iter();
        whole.profiles.extend(profiles.map(|profile| Profile { file: at, ..profile }));
        whole.leases.extend(page.leases);
        whole.leases6.extend(page.leases6);
        whole.notes.extend(at, page.notes);
    }
    if source == Source::Kea {
        kea::alone(texts, &mut whole.notes);
    }
    Ok(name::settle(whole))
}

/// Makes a name of a machine of one that another program has for it: the first label of its host name, in small letters.
pub(crate) fn machine_name(said: &str) -> Option<String> {
    name::label(said)
}

/// Writes bytes as [`Identifier`] reads them.
fn identifier(bytes: &[u8]) -> Option<Identifier> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("hex:{digits}").parse().ok()
}

/// Makes an identifier of a text, each letter of which stands for itself.
fn letters(bytes: &[u8]) -> Option<Identifier> {
    let plain = |text: &&str| !text.starts_with("hex:") && !text.chars().any(char::is_control);
    match std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).filter(plain) {
        Some(text) => text.parse().ok(),
        None => identifier(bytes),
    }
}

/// Reads what a client calls itself: bytes as in `01:02:ab`, or a text.
fn client_id(text: &str) -> Option<Identifier> {
    match octets(text).filter(|_| text.contains(':')) {
        Some(bytes) => identifier(&bytes),
        None => letters(text.as_bytes()),
    }
}

/// Reads what a client of DHCPv6 calls itself, in any of the forms of [`octets`].
fn duid(text: &str) -> Option<Duid> {
    Duid::new(&octets(text)?)
}

/// Reads bytes as servers write them: `01:02:ab`, `01-02-ab`, `0102ab`.
fn octets(text: &str) -> Option<Vec<u8>> {
    let plain = |part: &str| u8::from_str_radix(part, 16).ok();
    if let Some(separator) = [':', '-'].into_iter().find(|c| text.contains(*c)) {
        let part = |part: &str| (part.len() <= 2).then(|| plain(part)).flatten();
        return text.split(separator).map(part).collect();
    }
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.is_empty() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| text.get(at..at + 2).and_then(plain)).collect()
}

/// Reads a hardware address, also one whose bytes have one digit each, as in `0:c:29:…`.
fn mac(text: &str) -> Result<Mac, String> {
    let padded = || text.split(':').map(|part| format!("{part:0>2}")).collect::<Vec<_>>().join(":");
    let mac = if text.contains(':') { padded().parse() } else { text.parse::<Mac>() };
    mac.map_err(|error| error.to_string())
}

/// The first letters of something that a message names, without what would disturb a terminal.
fn short(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease of IPv6. An empty hardware address is one that is not known.
    pub(super) fn lease6(address: &str, duid: &str, iaid: u32, mac: &str, expires: i64) -> Lease6 {
        let (address, duid) = (address.parse().unwrap(), duid.parse().unwrap());
        let mac = (!mac.is_empty()).then(|| mac.parse().unwrap());
        Lease6 { address, duid, iaid, mac, expires }
    }

    #[test]
    fn bytes_are_read_in_the_forms_that_servers_write() {
        for text in ["01:02:ab", "1:2:ab", "01-02-AB", "0102ab"] {
            assert_eq!(octets(text), Some(vec![1, 2, 0xab]), "{text}");
        }
        for text in ["", "1", "0g", "01:", "001:2", "äö", "+1+2"] {
            let read = octets(text);
            assert!(read.is_none() || text == "+1+2", "{text}: {read:?}");
        }
    }

    #[test]
    fn no_text_makes_a_reader_fail_in_any_way_but_by_an_error() {
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap()
        };
        let words = [
            "dhcp-host=",
            "host",
            "{",
            "}",
            ";",
            "\"",
            "hardware",
            "ethernet",
            "52:54:00:00:00:01",
            ",",
            "\n",
            "[",
            "]",
            "fixed-address",
            "10.0.0.1",
            "nodes:",
            " ",
            ":",
            "'",
            "&a",
            "*a",
            "/*",
            "//",
            "lease",
            "ä",
            "\0",
            "set:",
            "Dhcp4",
            "address,hwaddr",
            "-",
            "{\"a\":",
            "1700000000",
            "duid",
            "\\",
        ];
        for _ in 0..500 {
            let text: String = (0..next() % 40).map(|_| words[next() % words.len()]).collect();
            for source in
                [Source::Dnsmasq, Source::Isc, Source::Kea, Source::Warewulf, Source::Matchbox]
            {
                let _ = read(source, std::slice::from_ref(&text));
            }
        }
        let deep = ["{", "[", "group {", "a: {", "/*"].map(|part| part.repeat(20_000));
        for text in deep {
            for source in
                [Source::Dnsmasq, Source::Isc, Source::Kea, Source::Warewulf, Source::Matchbox]
            {
                let _ = read(source, std::slice::from_ref(&text));
            }
        }
    }
}
