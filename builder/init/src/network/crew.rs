//! Finds the interfaces of a plan as they appear, makes those that are to be made, and gives each a thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use super::interface::{self, Card};
use super::netlink::Netlink;
use super::plan::{Entry, Kind, Vlan};
use super::port::Port;
use super::resolver::Resolver;
use super::worker;
use crate::clock::uptime;
use crate::console::say;
use crate::phone::Phone;

/// How long the link of any card may take to come up, where nobody says over which one the machine booted.
const LINK_COMES_UP: Duration = Duration::from_secs(15);

/// What is known of the boot.
#[derive(Debug, Default)]
pub(super) struct Boot {
    /// The card over which the machine booted, and the address that it had there.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) address: Option<Ipv4Addr>,
    /// Whether the loader came by IPv6, so that the server is there.
    pub(super) by_ipv6: bool,
    pub(super) hostname: Option<String>,
    /// Whether the machine takes the name that a server gives.
    pub(super) takes_hostname: bool,
}

#[derive(Debug)]
pub(super) struct Crew {
    entries: Vec<Entry>,
    boot: Boot,
    /// The interface of the boot, once it is found.
    boot_name: Option<String>,
    /// What has its place already, with the index by which it is known again.
    taken: BTreeMap<String, u32>,
    /// Entries of which there is something.
    found: BTreeSet<usize>,
    /// Interfaces that the boot waits for.
    awaited: Vec<String>,
    complaints: BTreeSet<String>,
    ranks: usize,
    began: Duration,
    kernel: Netlink,
    resolver: Arc<Resolver>,
    phone: Phone,
    waiting: Sender<String>,
}

impl Crew {
    pub(super) fn new(
        entries: Vec<Entry>,
        boot: Boot,
        phone: Phone,
        waiting: Sender<String>,
    ) -> nix::Result<Self> {
        let resolver = Arc::new(Resolver::default());
        resolver.create();
        Ok(Self {
            entries,
            boot,
            boot_name: None,
            taken: BTreeMap::new(),
            found: BTreeSet::new(),
            awaited: Vec::new(),
            complaints: BTreeSet::new(),
            ranks: 0,
            began: uptime(),
            kernel: Netlink::open()?,
            resolver,
            phone,
            waiting,
        })
    }

    /// Returns the interfaces that the boot waits for.
    pub(super) fn awaited(&self) -> &[String] {
        &self.awaited
    }

    /// Returns what the boot wants and there is nothing of yet.
    pub(super) fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            if self.found.contains(&number) {
                continue;
            }
            let of_boot = wants_boot(entry);
            if entry.settings.required.unwrap_or(of_boot) {
                lacks.push(match &entry.kind {
                    Kind::Match(_) if of_boot => match self.boot.mac {
                        Some(mac) => format!("network card {}", text_of(mac)),
                        None => "network card".to_owned(),
                    },
                    Kind::Match(wanted) => format!("network card for {}", describe(wanted)),
                    _ => entry.name.clone(),
                });
            }
        }
        lacks
    }

    /// Looks at what is there, `waited` after the boot began to.
    pub(super) fn look(&mut self, waited: Duration) {
        // Whoever has gone leaves its place to who comes in its name.
        self.taken.retain(|name, index| if_nametoindex(name.as_str()) == Ok(*index));
        let cards = interface::cards();
        if self.boot_name.is_none() {
            self.boot_name = self.find_boot(&cards, waited);
        }
        // A card of a bond is not an interface of its own, whatever comes first in the plan.
        for number in 0..self.entries.len() {
            self.join(number, &cards);
        }
        for number in 0..self.entries.len() {
            self.fill(number, &cards);
        }
    }

    fn find_boot(&self, cards: &[Card], waited: Duration) -> Option<String> {
        if let Some(mac) = self.boot.mac {
            // Interfaces on top of a card have its address as well.
            let with_mac = |card: &&Card| card.mac == mac && is_hardware(card);
            return cards.iter().find(with_mac).map(|card| card.name.clone());
        }
        if !self.entries.iter().any(wants_boot) {
            return None;
        }
        let mut hardware = cards.iter().filter(|card| is_hardware(card));
        for card in hardware.clone() {
            // A card that is off does not tell whether it has a link.
            let _ = if_nametoindex(card.name.as_str())
                .and_then(|index| self.kernel.switch(index, true));
        }
        let linked = hardware.clone().find(|card| interface::has_carrier(&card.name));
        let found = linked.or_else(|| hardware.next().filter(|_| waited > LINK_COMES_UP));
        found.map(|card| card.name.clone())
    }

    /// Makes a bond or bridge of the cards that are there.
    fn join(&mut self, number: usize, cards: &[Card]) {
        let Some(entry) = self.entries.get(number).cloned() else { return };
        let boot = self.boot_name.clone();
        for card in cards {
            let fits = entry.ports().iter().any(|port| port.fits(card, boot.as_deref()));
            if !fits || self.taken.contains_key(&card.name) || card.name == entry.name {
                continue;
            }
            let joined = if exists(&entry.name) && self.found.contains(&number) {
                Ok(())
            } else {
                self.kernel.make_planned(&entry.name, &entry.kind)
            };
            match joined.and_then(|()| self.kernel.enslave(&card.name, &entry.name)) {
                Ok(()) => {
                    say(&format!("{} is part of {}", card.name, entry.name));
                    self.take(&card.name);
                    self.found.insert(number);
                    if boot.as_deref() == Some(card.name.as_str()) {
                        self.boot_name = Some(entry.name.clone());
                    }
                }
                Err(error) => {
                    self.complain(format!(
                        "{} cannot be part of {}: {error}",
                        card.name, entry.name
                    ));
                }
            }
        }
    }

    /// Gives the interfaces of one entry their threads.
    fn fill(&mut self, number: usize, cards: &[Card]) {
        let Some(entry) = self.entries.get(number).cloned() else { return };
        match &entry.kind {
            Kind::Match(wanted) => {
                for card in cards {
                    let taken = self.taken.contains_key(&card.name);
                    if !taken && wanted.fits(card, self.boot_name.as_deref()) {
                        self.start(number, &entry, &card.name);
                    }
                }
            }
            Kind::Vlan(vlan) if !self.taken.contains_key(&entry.name) => {
                let on = match (vlan.on.as_str(), &self.boot_name) {
                    ("boot", Some(boot)) => boot.clone(),
                    _ => vlan.on.clone(),
                };
                if !exists(&on) {
                    return;
                }
                let switched =
                    if_nametoindex(on.as_str()).and_then(|index| self.kernel.switch(index, true));
                let vlan = Kind::Vlan(Vlan { on, ..vlan.clone() });
                match switched.and_then(|()| self.kernel.make_planned(&entry.name, &vlan)) {
                    Ok(()) => self.start(number, &entry, &entry.name),
                    Err(error) => self.complain(format!("cannot make {}: {error}", entry.name)),
                }
            }
            Kind::Bond(_) | Kind::Bridge(_)
                if self.found.contains(&number) && !self.taken.contains_key(&entry.name) =>
            {
                self.start(number, &entry, &entry.name);
            }
            Kind::Vlan(_) | Kind::Bond(_) | Kind::Bridge(_) => {}
        }
    }

    fn start(&mut self, number: usize, entry: &Entry, name: &str) {
        self.take(name);
        self.found.insert(number);
        let is_boot = self.boot_name.as_deref() == Some(name);
        if !is_boot {
            self.ranks += 1;
        }
        match self.port(entry, name, is_boot).and_then(worker::start) {
            Ok(()) => {
                if entry.settings.required.unwrap_or(is_boot) {
                    self.awaited.push(name.to_owned());
                }
            }
            Err(error) => self.complain(format!("cannot set {name} up: {error}")),
        }
    }

    fn port(&self, entry: &Entry, name: &str, is_boot: bool) -> std::io::Result<Port> {
        Ok(Port {
            name: name.to_owned(),
            index: if_nametoindex(name)?,
            mac: interface::mac_of(name).unwrap_or_default(),
            rank: if is_boot { 0 } else { self.ranks },
            settings: entry.settings.clone(),
            hostname: self.boot.hostname.clone(),
            takes_hostname: is_boot && self.boot.takes_hostname,
            known: self.boot.address.filter(|_| is_boot),
            by_ipv6: is_boot && self.boot.by_ipv6,
            kernel: Netlink::open()?,
            resolver: Arc::clone(&self.resolver),
            phone: self.phone.clone(),
            since: self.began,
            waiting: self.waiting.clone(),
            complained: false,
            had_link: false,
            is_ready: false,
        })
    }

    fn take(&mut self, name: &str) {
        if let Ok(index) = if_nametoindex(name) {
            self.taken.insert(name.to_owned(), index);
        }
    }

    fn complain(&mut self, text: String) {
        if !self.complaints.contains(&text) {
            say(&text);
            self.complaints.insert(text);
        }
    }
}

/// Interfaces without hardware are there only because somebody made them.
fn is_hardware(card: &Card) -> bool {
    Path::new("/sys/class/net").join(&card.name).join("device").exists()
}

fn exists(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

fn wants_boot(entry: &Entry) -> bool {
    matches!(&entry.kind, Kind::Match(wanted) if wanted.boot)
        || entry.ports().iter().any(|port| port.boot)
}

fn describe(wanted: &super::plan::Match) -> &str {
    let words = [&wanted.name, &wanted.mac, &wanted.driver];
    words.into_iter().flatten().next().map_or("the boot", String::as_str)
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}
