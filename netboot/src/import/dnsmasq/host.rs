//! Entries of hosts: those of `dhcp-host` and `dhcp-hostsfile`, lines of /etc/ethers, and lines of /etc/hosts, which give
//! addresses to names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kiln_inventory::Identifier;
use kiln_types::Mac;

use super::super::name::label;
use super::super::{Found, ImportError, Page, client_id, plain, short};
use super::{HOST, hardware};

pub(super) fn is_entry(line: &str) -> bool {
    line.contains(',') || hardware(line).is_some() || line.starts_with("id:")
}

/// Reads `HARDWARE-ADDRESS NAME-OR-ADDRESS` of /etc/ethers, or `ADDRESS NAME…` of /etc/hosts. Returns whether it is one.
pub(super) fn named(page: &mut Page, line: usize, text: &str) -> bool {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut found = Found { line: Some(line), ..Found::default() };
    match words[..] {
        [who, what] if let Some(mac) = hardware(who) => {
            match mac {
                Ok(mac) => drop(found.macs.insert(mac)),
                Err(why) => page.note(line, format!("`{}` is left out: {why}", short(who))),
            }
            match what.parse() {
                Ok(address) => found.address = Some(address),
                Err(_) => found.name = Some(what.to_owned()),
            }
        }
        [address, first, ref others @ ..] if let Ok(address) = address.parse::<IpAddr>() => {
            if address.is_loopback() || address.is_multicast() {
                page.note(line, format!("{address} is left out: no machine is reached by it"));
                return true;
            }
            match address {
                IpAddr::V4(address) => found.address = Some(address),
                IpAddr::V6(address) => found.address6 = Some(address),
            }
            found.name = Some(first.to_owned());
            for other in others.iter().filter(|other| label(other) != label(first)) {
                page.note(
                    line,
                    format!("the name {} is left out: a machine has one", short(other)),
                );
            }
        }
        _ => return false,
    }
    page.found.push(found);
    true
}

/// Reads what stands behind `dhcp-host=`.
pub(super) fn read(page: &mut Page, line: usize, entry: &str) -> Result<(), ImportError> {
    let mut found = Found { line: Some(line), ..Found::default() };
    let mut ignore = false;
    for part in entry.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match Part::read(part) {
            Part::Mac(mac) => drop(found.macs.insert(mac)),
            Part::Tag(tag) => {
                found.labels.insert(format!("dnsmasq-{}", plain(tag)), "yes".to_owned());
            }
            Part::Ignore => ignore = true,
            Part::Id(id) => put(&mut found.client_id, id, part, page, line),
            Part::Address(address) => put(&mut found.address, address, part, page, line),
            Part::Address6(address) => put(&mut found.address6, address, part, page, line),
            Part::Name => put(&mut found.name, part.to_owned(), part, page, line),
            Part::Left(why) => page.note(line, format!("`{}` is left out: {why}", short(part))),
            Part::Unknown => {
                let what = format!("`{}` is no part of a `{HOST}` line", short(part));
                return Err(ImportError::at(line, what));
            }
        }
    }
    if ignore {
        let who = found.macs.first().map_or_else(|| short(entry), Mac::to_string);
        let what = format!(
            "{who} is left out: dnsmasq ignores it, and so does Kiln what it does not know"
        );
        page.note(line, what);
    } else {
        page.found.push(found);
    }
    Ok(())
}

fn put<T>(place: &mut Option<T>, value: T, part: &str, page: &mut Page, line: usize) {
    if place.is_some() {
        page.note(
            line,
            format!("`{}` is left out: a machine has only one of its kind", short(part)),
        );
    } else {
        *place = Some(value);
    }
}

/// What one part of an entry is.
enum Part<'a> {
    Mac(Mac),
    Id(Identifier),
    Tag(&'a str),
    Address(Ipv4Addr),
    Address6(Ipv6Addr),
    Name,
    Ignore,
    /// Something that there is no place for.
    Left(String),
    Unknown,
}

impl<'a> Part<'a> {
    fn read(part: &'a str) -> Self {
        let left = |why: &str| Self::Left(why.to_owned());
        if part == "id:*" {
            return left("Kiln never goes by a client identifier that it was not told");
        }
        if let Some(id) = part.strip_prefix("id:") {
            let id = client_id(id);
            return id.map_or_else(|| left("it is no client identifier"), Self::Id);
        }
        if let Some(tag) = part.strip_prefix("set:").or_else(|| part.strip_prefix("net:")) {
            return Self::Tag(tag);
        }
        if part.starts_with("tag:") {
            return left("a machine's address does not depend on how it asks");
        }
        if part == "ignore" {
            return Self::Ignore;
        }
        if let Some(inside) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) {
            return match inside.parse::<Ipv6Addr>() {
                Ok(address) if address.segments().starts_with(&[0; 4]) => {
                    left("it is the end of an address; set a whole one with --address6")
                }
                Ok(address) => Self::Address6(address),
                Err(_) => left("it is no whole address of IPv6; set one with --address6"),
            };
        }
        if let Some(mac) = hardware(part) {
            return mac.map_or_else(Self::Left, Self::Mac);
        }
        if let Ok(address) = part.parse() {
            return Self::Address(address);
        }
        if is_time(part) {
            return left("Kiln has a lease time for each subnet");
        }
        if part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Self::Name;
        }
        Self::Unknown
    }
}

fn is_time(part: &str) -> bool {
    let digits = part.trim_end_matches(['s', 'm', 'h', 'd', 'w', 'S', 'M', 'H', 'D', 'W']);
    matches!(part, "infinite" | "deprecated")
        || (!digits.is_empty()
            && part.len() - digits.len() <= 1
            && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::one;

    #[test]
    fn hosts_of_the_settings_become_machines() {
        let all = one("# hosts\n\
             dhcp-host=52:54:00:00:00:01,set:red,n1,10.0.0.1,infinite\n\
             dhcp-host=52-54-00-00-00-02,52:54:00:00:00:03,n2.example.org,[fd00::2]\n\
             dhcp-host=id:01:02:03,52:54:00:00:00:04,10.0.0.4 # by client\n\
             dhcp-host=52:54:00:00:00:05,ignore\n\
             dhcp-host=52:54:0:0:0:6,id:a#b,n6\n");
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "m-52-54-00-00-00-04", "n6"]);
        let [n1, n2, n3, n6] = &all.machines[..] else { panic!("four machines") };
        assert_eq!(n1.address, "10.0.0.1".parse().ok());
        assert_eq!(n1.labels.get("dnsmasq-red").map(String::as_str), Some("yes"));
        assert_eq!((n2.macs.len(), n2.address6), (2, "fd00::2".parse().ok()));
        assert_eq!(n3.client_id, "hex:010203".parse().ok());
        assert_eq!(n6.client_id, "a#b".parse().ok());
        assert_eq!(n6.macs.first(), "52:54:00:00:00:06".parse().ok().as_ref());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("line 2: `infinite` is left out"), "{notes:?}");
        assert!(notes[1].starts_with("line 5: 52:54:00:00:00:05 is left out"), "{notes:?}");
    }

    #[test]
    fn a_type_of_hardware_may_stand_before_an_address_and_only_ethernet_is_taken() {
        let all = one("dhcp-host=1-52:54:00:00:00:01,n1\ndhcp-host=01-52:54:00:00:00:02,n2\n\
             dhcp-host=06-00:11:22:33:44:55,52:54:00:00:00:03,n3\n\
             dhcp-host=20-80:00:02:08:fe:80,n4\n");
        let seen: Vec<_> = all.machines.iter().map(|m| (m.name.as_str(), m.macs.len())).collect();
        assert_eq!(seen, [("n1", 1), ("n2", 1), ("n3", 1)]);
        assert_eq!(all.machines[0].macs.first(), "52:54:00:00:00:01".parse().ok().as_ref());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let expected = [
            "line 3: `06-00:11:22:33:44:55` is left out: it is not of Ethernet but of hardware type 6",
            "line 4: `20-80:00:02:08:fe:80` is left out: it is not of Ethernet but of hardware type 32",
            "line 4: n4 is left out: it has no hardware address, which Kiln knows machines by",
        ];
        assert_eq!(notes, expected);
    }

    #[test]
    fn parts_of_a_host_that_have_no_counterpart_are_told_of() {
        for (part, why) in [
            ("52:54:00:*:*:*", "it stands for many machines"),
            ("52-54-00-*-*-*", "it stands for many machines"),
            ("80:00:02:08:fe:80:00:00", "it is no address of Ethernet"),
            ("id:*", "Kiln never goes by"),
            ("id:", "it is no client identifier"),
            ("tag:blue", "a machine's address does not depend"),
            ("[::5]", "it is the end of an address"),
            ("[fd00::2/120]", "it is no whole address of IPv6"),
            ("12h", "Kiln has a lease time"),
            ("12H", "Kiln has a lease time"),
            ("10.0.0.9", "a machine has only one"),
            ("other", "a machine has only one"),
        ] {
            let all = one(&format!("\ndhcp-host=52:54:00:00:00:01,n1,10.0.0.1,{part}\n"));
            assert_eq!((all.machines.len(), all.machines[0].macs.len()), (1, 1), "{part}");
            assert_eq!(all.machines[0].address, "10.0.0.1".parse().ok(), "{part}");
            assert_eq!(all.notes.len(), 1, "{part}: {:?}", all.notes);
            let note = all.notes[0].to_string();
            assert!(note.starts_with(&format!("line 2: `{part}` is left out: {why}")), "{note}");
        }
    }

    #[test]
    fn a_file_of_hosts_needs_no_keys() {
        let all =
            one("52:54:00:00:00:01,n1\n\nset:red,52:54:00:00:00:02,10.0.0.2,n2,1h\n525400000003\n");
        assert_eq!(all.machines.len(), 3);
    }

    #[test]
    fn etc_ethers_and_etc_hosts_complete_what_the_settings_say() {
        let all =
            one("52:54:00:00:00:01 n1\n52:54:00:00:00:02 10.0.0.2\n06-00:11:22:33:44:55 n3\n\
             10.0.0.1 n1.example.org n1 www\nfd00::1 n1\n127.0.0.1 localhost\n10.0.0.9 printer\n");
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "m-52-54-00-00-00-02"]);
        let [n1, n2] = &all.machines[..] else { panic!("two machines") };
        assert_eq!((n1.address, n1.address6), ("10.0.0.1".parse().ok(), "fd00::1".parse().ok()));
        assert_eq!(n2.address, "10.0.0.2".parse().ok());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        for (note, start) in notes.iter().zip([
            "line 3: `06-00:11:22:33:44:55` is left out",
            "line 3: n3 is left out",
            "line 4: the name www is left out",
            "line 6: 127.0.0.1 is left out",
            "line 7: printer is left out",
        ]) {
            assert!(note.starts_with(start), "{notes:?}");
        }
        assert_eq!(notes.len(), 5, "{notes:?}");
    }
}
