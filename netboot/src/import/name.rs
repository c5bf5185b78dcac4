//! Puts together what several lines and files say of the same machine, and gives each one a name that Kiln can use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kiln_inventory::{NewMachine, Setting, is_label, is_label_value};
use kiln_types::Mac;

use super::known::{Given, Known, has_domain};
use super::{Found, Imported, Page, groups, short};

/// The longest name of a machine.
const LONGEST: usize = 63;

/// Makes machines of what was found.
///
/// Two entries with the same name are one machine with several interfaces, unless they have different addresses or
/// domains; so are two with a hardware address in common.
pub(super) fn settle(page: Page) -> Imported {
    let Page { found, profiles, leases, leases6, mut notes } = page;
    let (shared, by_profile) = groups::settle(profiles, &found, &mut notes);
    let mut note = |one: &Found, what: String| notes.add(one.file, one.line, what);
    let mut known = Known::default();
    for mut one in found {
        let (bad, good): (BTreeSet<Mac>, BTreeSet<Mac>) =
            one.macs.iter().partition(|mac| !mac.is_unicast());
        for mac in bad {
            note(&one, format!("{mac} is left out: it is no address of one network interface"));
        }
        one.macs = good;
        let name = one.name.as_deref().and_then(host);
        if let (Some(said), None) = (&one.name, &name) {
            let what = format!("`{}` is left out: it cannot be the name of a machine", short(said));
            note(&one, what);
        }
        one.name = name;
        known.add(one, |into, one| join(into, one, &mut note));
    }
    let mut given = Given::default();
    let mut machines = Vec::new();
    for mut one in known.machines {
        for what in strip(&mut one.labels) {
            note(&one, what);
        }
        one.labels.extend(by_profile.labels(&one.profiles));
        let said = one.name.as_deref();
        let Some(first) = one.macs.first() else {
            let what = said.and_then(label);
            let what = what.as_deref().unwrap_or("an entry without a name");
            let what = format!(
                "{what} is left out: it has no hardware address, which Kiln knows machines by"
            );
            note(&one, what);
            continue;
        };
        let fallback = || format!("m-{}", first.dashed());
        let wanted = said.and_then(label).unwrap_or_else(fallback);
        let name = given.free(&wanted, LONGEST);
        if name != wanted {
            let who = match said.filter(|said| has_domain(said)) {
                Some(said) => format!("`{}`", short(said)),
                None => "this machine".to_owned(),
            };
            note(&one, format!("the name {wanted} is taken, so {who} is called {name}"));
        }
        machines.push(machine(name, one));
    }
    let (leases, leases6) = (leases.leases(), leases6.leases());
    Imported { machines, shared, leases, leases6, notes: notes.sorted() }
}

/// Takes away the labels that no machine can have, and returns what is to be told of each.
fn strip(labels: &mut BTreeMap<String, String>) -> Vec<String> {
    let bad = labels.extract_if(.., |key, value| {
        !is_label(key) || !is_label_value(key) || !is_label_value(value)
    });
    let what = |(key, _): (String, String)| {
        format!(
            "the label {} is left out: it is too long, or has a letter that none can have",
            short(&key)
        )
    };
    bad.map(what).collect()
}

fn join(into: &mut Found, from: Found, note: &mut impl FnMut(&Found, String)) {
    let mut keep = |what: &str, here: Option<String>, there: Option<String>| {
        if let (Some(here), Some(there)) = (here, there)
            && here != there
        {
            let what =
                format!("{what} {there} is left out: the machine has {here} by an earlier entry");
            note(&from, what);
        }
    };
    keep("the address", into.address.map(|a| a.to_string()), from.address.map(|a| a.to_string()));
    keep("the address", into.address6.map(|a| a.to_string()), from.address6.map(|a| a.to_string()));
    let name = |one: &Found| one.name.as_deref().and_then(label);
    keep("the name", name(into), name(&from));
    keep("the UUID", into.uuid.clone(), from.uuid.clone());
    keep("the serial number", into.serial.clone(), from.serial.clone());
    keep("the client identifier", text(into.client_id.as_ref()), text(from.client_id.as_ref()));
    keep("the circuit identifier", text(into.circuit_id.as_ref()), text(from.circuit_id.as_ref()));
    keep("the image", text(into.image.as_ref()), text(from.image.as_ref()));
    for (key, value) in &from.labels {
        keep(
            &format!("the label {}", short(key)),
            into.labels.get(key).cloned(),
            Some(value.clone()),
        );
    }
    for (key, value) in &from.metadata {
        if into.metadata.get(key).is_some_and(|there| there != value) {
            let what = format!(
                "`{}` of its metadata is left out: an earlier entry says another",
                short(key)
            );
            note(&from, what);
        }
    }
    into.macs.extend(from.macs);
    into.name = whole(into.name.take(), from.name);
    into.uuid = into.uuid.take().or(from.uuid);
    into.serial = into.serial.take().or(from.serial);
    into.address = into.address.or(from.address);
    into.address6 = into.address6.or(from.address6);
    into.client_id = into.client_id.take().or(from.client_id);
    into.circuit_id = into.circuit_id.take().or(from.circuit_id);
    into.image = into.image.take().or(from.image);
    for argument in from.cmdline {
        if !into.cmdline.contains(&argument) {
            into.cmdline.push(argument);
        }
    }
    into.profiles.extend(from.profiles);
    extend(&mut into.labels, from.labels);
    for (key, value) in from.metadata {
        into.metadata.entry(key).or_insert(value);
    }
}

/// Returns the name of two entries of one machine: the first, or the one that says its domain too.
fn whole(first: Option<String>, other: Option<String>) -> Option<String> {
    let more = |first: &str, other: &str| {
        !has_domain(first) && has_domain(other) && label(first) == label(other)
    };
    match (first, other) {
        (Some(first), Some(other)) if more(&first, &other) => Some(other),
        (first, other) => first.or(other),
    }
}

fn text(value: Option<&impl ToString>) -> Option<String> {
    value.map(ToString::to_string)
}

fn extend(into: &mut BTreeMap<String, String>, from: BTreeMap<String, String>) {
    for (key, value) in from {
        into.entry(key).or_insert(value);
    }
}

fn machine(name: String, found: Found) -> NewMachine {
    NewMachine {
        uuid: found.uuid,
        serial: found.serial,
        image: found.image,
        address: found.address,
        address6: found.address6,
        client_id: found.client_id,
        circuit_id: found.circuit_id,
        cmdline: found.cmdline.join(" "),
        labels: found.labels.into(),
        metadata: found.metadata,
        unset: found.only_its_cmdline.then_some(Setting::Cmdline).into_iter().collect(),
        ..NewMachine::new(name, found.macs)
    }
}

/// Returns a host name with its domain, where it says one, in small letters. None where its first label cannot be the name
/// of a machine.
fn host(name: &str) -> Option<String> {
    let first = label(name)?;
    let domain = name.split_once('.').map_or("", |(_, domain)| domain).trim_end_matches('.');
    Some(match domain {
        "" => first,
        domain => format!("{first}.{}", domain.to_ascii_lowercase()),
    })
}

/// Makes the first label of a host name a name of a machine: small letters, digits and dashes.
pub(super) fn label(name: &str) -> Option<String> {
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let first = name.split('.').next()?;
    let plain: String = first
        .chars()
        .map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() })
        .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .take(LONGEST)
        .collect();
    let whole = plain.len() == first.chars().count().min(LONGEST);
    let plain = plain.trim_matches('-');
    (whole && !plain.is_empty()).then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, mac: &str, address: Option<&str>) -> Found {
        Found {
            name: (!name.is_empty()).then(|| name.to_owned()),
            macs: mac.parse().into_iter().collect(),
            address: address.map(|address| address.parse().unwrap()),
            ..Found::default()
        }
    }

    fn settled(found: Vec<Found>) -> Imported {
        settle(Page { found, ..Page::default() })
    }

    #[test]
    fn names_become_labels() {
        for (said, name) in [
            ("Web-1.example.org", Some("web-1")),
            ("rack_1", Some("rack-1")),
            ("-x-", Some("x")),
            ("büro", None),
            ("a b", None),
            ("", None),
            (".x", None),
            ("10.0.0.1", None),
            ("10.example.org", Some("10")),
        ] {
            assert_eq!(label(said).as_deref(), name, "{said}");
        }
        assert_eq!(label(&"x".repeat(80)).map(|name| name.len()), Some(63));
    }

    #[test]
    fn entries_of_one_name_are_one_machine_and_those_of_two_addresses_are_two() {
        let all = settled(vec![
            found("n1", "52:54:00:00:00:01", Some("10.0.0.1")),
            found("n1", "52:54:00:00:00:02", None),
            found("n1", "52:54:00:00:00:03", Some("10.0.0.3")),
        ]);
        let seen: Vec<_> = all.machines.iter().map(|m| (m.name.as_str(), m.macs.len())).collect();
        assert_eq!(seen, [("n1", 2), ("n1-2", 1)]);
        assert_eq!(all.notes.len(), 1, "{:?}", all.notes);
    }

    #[test]
    fn names_of_different_domains_are_different_machines() {
        let names = |said: &[&str]| {
            let entry = |(number, said): (usize, &&str)| {
                found(said, &format!("52:54:00:00:00:{:02x}", number + 1), None)
            };
            let all = settled(said.iter().enumerate().map(entry).collect());
            let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
            let seen = all.machines.into_iter().map(|m| (m.name, m.macs.len())).collect::<Vec<_>>();
            (seen, notes)
        };
        let (seen, notes) = names(&["web.a.example", "Web.B.example.", "web.b.example"]);
        assert_eq!(seen, [("web".to_owned(), 1), ("web-2".to_owned(), 2)]);
        let expected = ["the name web is taken, so `web.b.example` is called web-2"];
        assert_eq!(notes, expected);
        // A name without a domain leaves it open, until another entry says it.
        let (seen, notes) = names(&["web", "web.a.example", "web", "web.b.example"]);
        assert_eq!(seen, [("web".to_owned(), 3), ("web-2".to_owned(), 1)]);
        assert_eq!(notes, expected);
    }

    #[test]
    fn an_entry_is_of_the_earlier_one_that_has_its_address() {
        let all = settled(vec![
            found("n1", "52:54:00:00:00:01", Some("10.0.0.1")),
            found("n1", "52:54:00:00:00:02", Some("10.0.0.2")),
            found("n1", "52:54:00:00:00:03", Some("10.0.0.1")),
        ]);
        let seen: Vec<_> = all.machines.iter().map(|m| (m.name.as_str(), m.macs.len())).collect();
        assert_eq!(seen, [("n1", 2), ("n1-2", 1)]);
    }

    #[test]
    fn a_hundred_thousand_entries_of_one_name_are_read_in_a_moment() {
        let began = tokio::time::Instant::now();
        let mac = |number: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
        };
        let entries = |name: &dyn Fn(u32) -> String, address: bool| {
            let one = |number: u32| {
                let address =
                    address.then(|| std::net::Ipv4Addr::from(number + (10 << 24)).to_string());
                found(&name(number), &mac(number), address.as_deref())
            };
            settled((0..100_000).map(one).collect()).machines.len()
        };
        assert_eq!(entries(&|_| "n".to_owned(), false), 1);
        assert_eq!(entries(&|_| "n".to_owned(), true), 100_000);
        assert_eq!(entries(&|number| format!("n.d{number}"), false), 100_000);
        // It takes seconds where nothing is optimised, and hours where each entry is compared with all before it.
        assert!(began.elapsed().as_secs() < 120, "{:?}", began.elapsed());
    }

    #[test]
    fn labels_that_no_machine_can_have_are_left_out_and_told_of() {
        let mut one = found("n1", "52:54:00:00:00:01", None);
        let long = "x".repeat(300);
        for (key, value) in [
            ("comment", "two\nlines"),
            ("cluster", &long),
            ("a b", "x"),
            (&long, "x"),
            ("os", "ok"),
        ] {
            one.labels.insert(key.to_owned(), value.to_owned());
        }
        let all = settled(vec![one]);
        let labels: Vec<_> = all.machines[0].labels.keys().map(String::as_str).collect();
        assert_eq!(labels, ["os"]);
        assert_eq!(all.notes.len(), 4, "{:?}", all.notes);
        assert!(all.notes.iter().all(|note| note.to_string().starts_with("the label ")));
    }

    #[test]
    fn entries_with_the_same_hardware_address_are_one_machine() {
        let all = settled(vec![
            found("", "52:54:00:00:00:01", None),
            found("n1", "52:54:00:00:00:01", Some("10.0.0.1")),
            found("other", "52:54:00:00:00:01", Some("10.0.0.2")),
        ]);
        assert_eq!(all.machines.len(), 1);
        assert_eq!(all.machines[0].name, "n1");
        assert_eq!(all.machines[0].address, "10.0.0.1".parse().ok());
        assert_eq!(all.notes.len(), 2, "{:?}", all.notes);
    }

    #[test]
    fn a_machine_without_a_name_is_called_by_its_interface_and_one_without_an_interface_is_left_out()
     {
        let all = settled(vec![
            found("", "52:54:00:00:00:01", None),
            found("ghost", "", Some("10.0.0.9")),
            found("group", "01:00:5e:00:00:01", None),
        ]);
        assert_eq!(all.machines.len(), 1);
        assert_eq!(all.machines[0].name, "m-52-54-00-00-00-01");
        assert_eq!(all.notes.len(), 3, "{:?}", all.notes);
    }
}
