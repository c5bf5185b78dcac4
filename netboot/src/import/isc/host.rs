//! `host` declarations.

use std::net::Ipv6Addr;

use super::super::{Found, ImportError, Page, identifier, mac, octets, short};
use super::left;

/// Hears what a statement says of a host.
pub(super) fn say(
    found: &mut Found,
    words: &[&str],
    line: usize,
    page: &mut Page,
) -> Result<(), ImportError> {
    match *words {
        ["hardware", "ethernet", text] => {
            found.macs.insert(mac(text).map_err(|error| ImportError::at(line, error))?);
        }
        ["hardware", kind, _] => {
            let kind = short(kind);
            page.note(
                line,
                format!("an interface of the kind {kind} is left out: it is not Ethernet"),
            );
        }
        ["fixed-address", ref addresses @ ..] => {
            let mut all =
                addresses.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
            match all.next().map(str::parse) {
                Some(Ok(address)) => found.address = Some(address),
                _ => page.note(line, "the address is left out: it is given as a host name"),
            }
            if all.next().is_some() {
                page.note(
                    line,
                    "only the first address is kept: a machine has one for each version of IP",
                );
            }
        }
        ["fixed-address6", text] => match text.parse::<Ipv6Addr>() {
            Ok(address) => found.address6 = Some(address),
            Err(_) => page.note(line, "the address of IPv6 is left out: it is no single address"),
        },
        ["option", "host-name", name] => found.name = Some(name.to_owned()),
        ["option", "dhcp-client-identifier", id] | ["uid", id] => {
            let id = match octets(id).filter(|_| id.contains(':')) {
                Some(bytes) => identifier(&bytes),
                None => id.parse().ok(),
            };
            if id.is_none() {
                page.note(line, "the client identifier is left out: it is empty, or too long");
            }
            found.client_id = id;
        }
        ["deny" | "ignore", "booting"] => {
            page.note(line, "`deny booting` is left out: a machine without an image boots nothing");
        }
        // How it came into the file.
        ["dynamic"] => {}
        _ => left::statement(words, line, page),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::one;

    #[test]
    fn what_a_host_says_and_has_no_counterpart_is_told_of_with_its_line() {
        let all =
            one("host n1 { hardware ethernet 52:54:00:00:00:01;\n hardware infiniband 80:00;\n\
             fixed-address server.example.org;\n fixed-address6 fd00::/64;\n\
             option dhcp-client-identifier \"\";\n deny booting;\n ddns-hostname \"x\";\n\
             option routers 10.0.0.1;\n if known { filename \"geheim\"; }\n dynamic;\n}");
        assert_eq!(all.machines.len(), 1);
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let starts = [
            "line 2: an interface of the kind infiniband is left out",
            "line 3: the address is left out",
            "line 4: the address of IPv6 is left out",
            "line 5: the client identifier is left out",
            "line 6: `deny booting` is left out",
            "line 7: `ddns-hostname` is left out",
            "line 8: option routers is left out",
            "line 9: `if` is left out",
            "line 9: `filename geheim` is left out",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start), "{notes:?}");
        }
    }

    #[test]
    fn a_host_that_was_deleted_is_none() {
        let all = one("host n1 { dynamic; hardware ethernet 52:54:00:00:00:01; }\n\
             host n2 { dynamic; hardware ethernet 52:54:00:00:00:02; }\n\
             host n1 { dynamic; deleted; }\n");
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!((names.as_slice(), all.notes.len()), (["n2"].as_slice(), 0), "{:?}", all.notes);
    }
}
