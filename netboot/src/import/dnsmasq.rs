//! dnsmasq: `dhcp-host` lines of its settings or of a `dhcp-hostsfile`, and its file of leases (dnsmasq(8)).

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_inventory::{Lease, Lease6};
use kiln_types::Mac;

use super::{FOR_EVER, Found, ImportError, Page, duid, identifier, octets, short};

/// Where a host's entry is told apart from the rest of a line.
const KEY: &str = "dhcp-host";

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let mut page = Page::default();
    // A file of settings has `key=value` or single keys, a file of hosts only entries, a file of leases starts with
    // a time or `duid`.
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if line.is_empty() || line.starts_with("duid ") {
            continue;
        }
        if let Some(lease) = lease(line) {
            match lease.map_err(|what| ImportError::at(line_number, what))? {
                Given::Four(lease) => drop(page.leases.insert(lease.address, lease)),
                Given::Six(lease) => drop(page.leases6.insert(lease.address, lease)),
                Given::Left(what) => page.note(line_number, what),
                Given::Nothing => {}
            }
            continue;
        }
        let entry = match line.split_once('=') {
            Some((key, value)) if key.trim() == KEY => value,
            None if is_entry(line) => line,
            // Any other setting of dnsmasq.
            Some((key, _)) if is_word(key.trim()) => continue,
            None if is_word(line) => continue,
            _ => {
                let what =
                    format!("`{}` is no setting of dnsmasq, no host and no lease", short(line));
                return Err(ImportError::at(line_number, what));
            }
        };
        host(&mut page, line_number, entry)?;
    }
    Ok(page)
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_entry(line: &str) -> bool {
    line.split(',')
        .next()
        .is_some_and(|first| first.trim().parse::<Mac>().is_ok() || first.starts_with("id:"))
}

fn host(page: &mut Page, line: usize, entry: &str) -> Result<(), ImportError> {
    let mut found = Found { line: Some(line), ..Found::default() };
    let mut ignore = false;
    for part in entry.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if let Some(id) = part.strip_prefix("id:") {
            if id == "*" {
                page.note(line, "`id:*` is left out: Kiln never goes by a client identifier that it was not told");
                continue;
            }
            found.client_id = match octets(id).filter(|_| id.contains(':')) {
                Some(bytes) => identifier(&bytes),
                None => id.parse().ok(),
            };
        } else if let Some(tag) = part.strip_prefix("set:").or_else(|| part.strip_prefix("net:")) {
            found.labels.insert(format!("dnsmasq-{}", label(tag)), "yes".to_owned());
        } else if part.starts_with("tag:") {
            page.note(
                line,
                format!(
                    "`{}` is left out: a machine's address does not depend on how it asks",
                    short(part)
                ),
            );
        } else if part == "ignore" {
            ignore = true;
        } else if let Ok(mac) = part.parse::<Mac>() {
            found.macs.insert(mac);
        } else if let Ok(address) = part.parse::<Ipv4Addr>() {
            found.address = Some(address);
        } else if let Some(inside) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']'))
        {
            match inside.parse::<Ipv6Addr>() {
                Ok(address) => found.address6 = Some(address),
                Err(_) => page.note(
                    line,
                    format!("`{}` is left out: it is no whole address of IPv6", short(part)),
                ),
            }
        } else if part.contains('*') && part.contains(':') {
            page.note(line, format!("`{}` is left out: it stands for many machines", short(part)));
        } else if is_time(part) {
            page.note(line, format!("the lease time {part} is left out: Kiln sets it by subnet"));
        } else if part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            found.name = Some(part.to_owned());
        } else {
            let what = format!("`{}` is no part of a `{KEY}` line", short(part));
            return Err(ImportError::at(line, what));
        }
    }
    if ignore {
        let who = found.macs.first().map_or_else(|| short(entry), Mac::to_string);
        page.note(
            line,
            format!(
                "{who} is left out: dnsmasq ignores it, and so does Kiln what it does not know"
            ),
        );
        return Ok(());
    }
    page.found.push(found);
    Ok(())
}

/// Labels have the letters of names.
fn label(tag: &str) -> String {
    tag.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(60)
        .collect()
}

fn is_time(part: &str) -> bool {
    let digits = part.trim_end_matches(['s', 'm', 'h', 'd', 'w']);
    matches!(part, "infinite" | "deprecated")
        || (!digits.is_empty()
            && part.len() - digits.len() <= 1
            && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// What a line about a lease gives.
enum Given {
    Four(Lease),
    Six(Lease6),
    /// Something that there is no place for.
    Left(String),
    Nothing,
}

/// Reads `TIME MAC ADDRESS NAME CLIENT-ID`; the time is in seconds, 0 for ever. Behind the line with `duid` it is
/// `TIME IAID ADDRESS NAME DUID`, with a `T` before the IAID of a temporary address (lease.c of dnsmasq). Returns nothing
/// where it is no lease.
fn lease(line: &str) -> Option<Result<Given, String>> {
    let mut words = line.split_ascii_whitespace();
    let until: i64 = words.next()?.parse().ok()?;
    let (who, address, name) = (words.next()?, words.next()?, words.next()?);
    let expires = if until == 0 { FOR_EVER } else { until };
    if let Ok(address) = address.parse::<Ipv6Addr>() {
        return Some(lease6(who, address, words.next(), expires));
    }
    let Ok(address) = address.parse() else {
        return Some(Err(format!("`{}` is no address", short(address))));
    };
    // A hardware type other than Ethernet stands before the address.
    let Ok(mac) = who.parse::<Mac>() else {
        return Some(Ok(Given::Nothing));
    };
    let hostname = (name != "*").then(|| name.to_owned());
    Some(Ok(Given::Four(Lease { address, mac, expires, hostname })))
}

fn lease6(
    who: &str,
    address: Ipv6Addr,
    client: Option<&str>,
    expires: i64,
) -> Result<Given, String> {
    if who.starts_with('T') {
        let what = format!("{address} is left out: it is temporary, and Kiln gives no such ones");
        return Ok(Given::Left(what));
    }
    let iaid = who
        .parse()
        .map_err(|_| format!("`{}` is no IAID, which is a number of 32 bits", short(who)))?;
    let client = client.unwrap_or("*");
    if client == "*" {
        return Ok(Given::Left(format!("{address} is left out: it is not said whose it is")));
    }
    let duid = duid(client).ok_or_else(|| format!("`{}` is no DUID", short(client)))?;
    let mac = duid.mac();
    Ok(Given::Six(Lease6 { address, duid, iaid, mac, expires }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::lease6;
    use super::super::{FOR_EVER, Source, read};

    fn one(text: &str) -> super::super::Imported {
        read(Source::Dnsmasq, &[text.to_owned()]).unwrap()
    }

    #[test]
    fn hosts_of_the_settings_become_machines() {
        let all = one("# hosts\ninterface=eth0\nno-resolv\ndhcp-range=10.0.0.10,10.0.0.99,12h\n\
             dhcp-host=52:54:00:00:00:01,set:red,n1,10.0.0.1,infinite\n\
             dhcp-host=52-54-00-00-00-02,52:54:00:00:00:03,n2.example.org,[fd00::2]\n\
             dhcp-host=id:01:02:03,52:54:00:00:00:04,10.0.0.4 # by client\n\
             dhcp-host=52:54:00:00:00:05,ignore\n");
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "m-52-54-00-00-00-04"]);
        let [n1, n2, n3] = &all.machines[..] else { panic!("three machines") };
        assert_eq!(n1.address, "10.0.0.1".parse().ok());
        assert_eq!(n1.labels.get("dnsmasq-red").map(String::as_str), Some("yes"));
        assert_eq!((n2.macs.len(), n2.address6), (2, "fd00::2".parse().ok()));
        assert_eq!(n3.client_id, "hex:010203".parse().ok());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("line 5: the lease time infinite"), "{notes:?}");
    }

    #[test]
    fn a_file_of_hosts_needs_no_keys() {
        let all = one("52:54:00:00:00:01,n1\n\n52:54:00:00:00:02,10.0.0.2,n2,1h\n");
        assert_eq!(all.machines.len(), 2);
    }

    #[test]
    fn leases_are_read_with_their_end() {
        let all = one("1700000000 52:54:00:00:00:01 10.0.0.50 n1 01:52:54:00:00:00:01\n\
             0 52:54:00:00:00:02 10.0.0.51 * *\nduid 00:01\n1700000000 123 fd00::5 * 00:01:02\n");
        let seen: Vec<_> = all
            .leases
            .iter()
            .map(|l| (l.address.to_string(), l.expires, l.hostname.as_deref()))
            .collect();
        let expected = [
            ("10.0.0.50".to_owned(), 1_700_000_000, Some("n1")),
            ("10.0.0.51".to_owned(), FOR_EVER, None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn leases_of_ipv6_are_read_with_who_has_them() {
        let all = one(
            "1700000000 52:54:00:00:00:01 10.0.0.50 n1 *\nduid 00:01:00:01:2a:00:00:00:52:54:00:00:00:09\n\
             1700000001 16777216 fd00::5 n5 00:03:00:01:52:54:00:00:00:05\n\
             0 4294967295 fd00::6 * 00:04:aa:bb\n1700000003 T7 fd00::7 * 00:04:aa:bb\n1700000004 8 fd00::8 * *\n",
        );
        let expected = [
            lease6(
                "fd00::5",
                "00030001525400000005",
                0x0100_0000,
                "52:54:00:00:00:05",
                1_700_000_001,
            ),
            lease6("fd00::6", "0004aabb", u32::MAX, "", FOR_EVER),
        ];
        assert_eq!((all.leases.len(), all.leases6), (1, expected.into()));
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert!(
            notes.len() == 2 && notes[0].starts_with("line 5: fd00::7 is left out"),
            "{notes:?}"
        );
        for (line, part) in [
            ("1 x fd00::5 * 00:04:aa", "`x` is no IAID"),
            ("1 4294967296 fd00::5 * 00:04:aa", "`4294967296` is no IAID"),
            ("1 -1 fd00::5 * 00:04:aa", "`-1` is no IAID"),
            ("1 1 fd00::5 * 00:04", "`00:04` is no DUID"),
            ("1 1 fd00::5 * zz", "`zz` is no DUID"),
            (&*format!("1 1 fd00::5 * {}", "00:".repeat(200)), "is no DUID"),
        ] {
            let text = format!("duid 00:04:01\n{line}\n");
            let (_, error) = read(Source::Dnsmasq, &[text]).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("line 2: ") && error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_no_file_of_dnsmasq_is_refused_with_its_line() {
        let error = read(Source::Dnsmasq, &["port=0\nhost n1 {\n".to_owned()]).unwrap_err();
        assert_eq!(error.0, 0);
        assert!(error.1.to_string().starts_with("line 2: `host n1 {`"), "{}", error.1);
        let error =
            read(Source::Dnsmasq, &["dhcp-host=52:54:00:00:00:01,a b".to_owned()]).unwrap_err();
        assert!(error.1.to_string().contains("`a b`"), "{}", error.1);
    }
}
