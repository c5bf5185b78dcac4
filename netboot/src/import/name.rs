//! Puts together what several lines and files say of the same machine, and gives each one a name that Kiln can use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use kiln_inventory::{NewMachine, Setting};
use kiln_types::Mac;

use super::{Found, Imported, Notes, Page, Shared, plain, profile_label, short};

/// Makes machines of what was found.
///
/// Two entries with the same name are one machine with several interfaces, unless they have different addresses; so are
/// two with a hardware address in common.
pub(super) fn settle(page: Page) -> Imported {
    let Page { found, shared, leases, leases6, mut notes } = page;
    missing(&found, &shared, &mut notes);
    let mut note = |one: &Found, what: String| notes.add(one.file, one.line, what);
    let mut merged: Vec<Found> = Vec::new();
    let mut by_mac: HashMap<Mac, usize> = HashMap::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for mut one in found {
        let (bad, good): (BTreeSet<Mac>, BTreeSet<Mac>) =
            one.macs.iter().partition(|mac| !mac.is_unicast());
        for mac in bad {
            note(&one, format!("{mac} is left out: it is no address of one network interface"));
        }
        one.macs = good;
        let name = one.name.as_deref().and_then(label);
        if let (Some(said), None) = (&one.name, &name) {
            let what = format!("`{}` is left out: it cannot be the name of a machine", short(said));
            note(&one, what);
        }
        one.name = name;
        let same_mac = one.macs.iter().find_map(|mac| by_mac.get(mac)).copied();
        let same_name = one.name.as_ref().and_then(|name| by_name.get(name)).copied();
        let same_name = same_name.filter(|at| {
            merged.get(*at).is_some_and(|other| {
                agree(other.address, one.address) && agree(other.address6, one.address6)
            })
        });
        let at = match same_mac.or(same_name) {
            Some(at) => {
                if let Some(into) = merged.get_mut(at) {
                    join(into, one, &mut note);
                }
                at
            }
            None => {
                merged.push(one);
                merged.len() - 1
            }
        };
        if let Some(machine) = merged.get(at) {
            by_mac.extend(machine.macs.iter().map(|mac| (*mac, at)));
            by_name.extend(machine.name.clone().map(|name| (name, at)));
        }
    }
    let mut taken = BTreeSet::new();
    let mut machines = Vec::new();
    for one in merged {
        let Some(first) = one.macs.first() else {
            let what = one.name.as_deref().unwrap_or("an entry without a name");
            let what = short(what);
            let what = format!(
                "{what} is left out: it has no hardware address, which Kiln knows machines by"
            );
            note(&one, what);
            continue;
        };
        let fallback = || format!("m-{}", first.dashed());
        let wanted = one.name.clone().unwrap_or_else(fallback);
        let name = free(&wanted, &taken);
        if name != wanted {
            note(&one, format!("the name {wanted} is taken, so this machine is called {name}"));
        }
        taken.insert(name.clone());
        machines.push(machine(name, one));
    }
    let (leases, leases6) = (leases.into_values().collect(), leases6.into_values().collect());
    Imported { machines, shared, leases, leases6, notes: notes.sorted() }
}

fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// Tells of profiles that machines have and nobody describes, each once.
fn missing(found: &[Found], shared: &[Shared], notes: &mut Notes) {
    let there: BTreeSet<&str> = shared.iter().map(|shared| shared.label.0.as_str()).collect();
    let mut told = BTreeSet::new();
    for one in found {
        for profile in &one.profiles {
            let (label, _) = profile_label(profile);
            if !there.contains(label.as_str()) && told.insert(label.clone()) {
                let what = format!(
                    "the profile `{}` is in none of the files; name its file too, or say what it gives: \
                     kiln group add {} --selector {label}=yes",
                    short(profile),
                    plain(profile)
                );
                notes.add(one.file, one.line, what);
            }
        }
    }
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
    keep("the name", into.name.clone(), from.name.clone());
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
    into.name = into.name.take().or(from.name);
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
    extend(&mut into.labels, from.labels);
    for (key, value) in from.metadata {
        into.metadata.entry(key).or_insert(value);
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

/// Returns a name that nobody has yet.
fn free(wanted: &str, taken: &BTreeSet<String>) -> String {
    let numbered = |n: usize| {
        let end = format!("-{n}");
        let room = wanted.len().min(63 - end.len());
        format!("{}{end}", wanted.get(..room).unwrap_or(wanted).trim_end_matches('-'))
    };
    std::iter::once(wanted.to_owned())
        .chain((2..).map(numbered))
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| wanted.to_owned())
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
        .take(63)
        .collect();
    let whole = plain.len() == first.chars().count().min(63);
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
