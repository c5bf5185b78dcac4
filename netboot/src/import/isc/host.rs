//! `host` declarations.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use super::super::{Found, ImportError, Page, client_id, letters, mac, short};
use super::left;

/// A host, as far as it was read.
#[derive(Debug)]
pub(super) struct Host {
    /// The name of the declaration. The machine has another where an option says one.
    declared: String,
    found: Found,
    life: Life,
}

/// How a host came into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// By an operator.
    Written,
    /// By the server, which was told of it while it ran.
    Dynamic,
    /// The same, to say that it is no more.
    Deleted,
}

/// The hosts of a file, in their order.
#[derive(Default)]
pub(super) struct Hosts {
    all: Vec<Option<Found>>,
    by_name: HashMap<String, Vec<usize>>,
}

impl Hosts {
    /// Adds one. The file of leases is a journal: what the server writes there of a host stands in the place of what was
    /// there before.
    pub(super) fn add(&mut self, host: Host) {
        let Host { declared, found, life } = host;
        let same = self.by_name.entry(declared).or_default();
        if life != Life::Written {
            for at in same.drain(..) {
                self.all.get_mut(at).and_then(Option::take);
            }
        }
        if life != Life::Deleted {
            same.push(self.all.len());
            self.all.push(Some(found));
        }
    }

    pub(super) fn found(self) -> Vec<Found> {
        self.all.into_iter().flatten().collect()
    }
}

impl Host {
    pub(super) fn new(declared: &str, line: usize) -> Self {
        let name = Some(declared.to_owned());
        let found = Found { line: Some(line), name, ..Found::default() };
        Self { declared: declared.to_owned(), found, life: Life::Written }
    }

    /// Hears what a statement says of it. The bytes are those of its last word, where that is in quotes.
    pub(super) fn say(
        &mut self,
        words: &[&str],
        bytes: Option<&[u8]>,
        line: usize,
        page: &mut Page,
    ) -> Result<(), ImportError> {
        let found = &mut self.found;
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
                let mut all = addresses
                    .iter()
                    .flat_map(|text| text.split(','))
                    .filter(|text| !text.is_empty());
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
                Err(_) => {
                    page.note(line, "the address of IPv6 is left out: it is no single address")
                }
            },
            ["option", "host-name", name] => found.name = Some(name.to_owned()),
            ["option", "dhcp-client-identifier", id] | ["uid", id] => {
                let id = bytes.map_or_else(|| client_id(id), letters);
                if id.is_none() {
                    page.note(line, "the client identifier is left out: it is empty, or too long");
                }
                found.client_id = id;
            }
            ["deny" | "ignore", "booting"] => {
                page.note(
                    line,
                    "`deny booting` is left out: a machine without an image boots nothing",
                );
            }
            ["dynamic"] if self.life == Life::Written => self.life = Life::Dynamic,
            ["dynamic"] => {}
            ["deleted"] => self.life = Life::Deleted,
            _ => left::statement(words, line, page),
        }
        Ok(())
    }
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
    fn a_client_identifier_is_bytes_or_the_letters_in_quotes() {
        for (said, id) in [
            ("01:02:ff", "hex:0102ff"),
            ("\"01:02:ff\"", "01:02:ff"),
            ("\"\\001RT\\000\\377\"", "hex:01525400ff"),
            ("\"\u{e4}\"", "hex:c3a4"),
            ("\"hex:01\"", "hex:6865783a3031"),
            ("foo", "foo"),
        ] {
            for key in ["option dhcp-client-identifier", "uid"] {
                let all = one(&format!(
                    "host n1 {{ hardware ethernet 52:54:00:00:00:01; {key} {said}; }}"
                ));
                assert_eq!(all.machines[0].client_id, id.parse().ok(), "{key} {said}");
            }
        }
    }

    #[test]
    fn what_the_server_wrote_of_a_host_last_counts() {
        let host = |name: &str, mac: u8, more: &str| {
            format!("host {name} {{ {more} hardware ethernet 52:54:00:00:00:0{mac}; }}\n")
        };
        let said = "dynamic; option host-name \"web\";";
        let all = one(&(host("a", 1, said) + &host("a", 2, "dynamic;")));
        let seen: Vec<_> = all.machines.iter().map(|m| (m.name.as_str(), m.macs.len())).collect();
        assert_eq!(seen, [("a", 1)]);
        assert_eq!(all.machines[0].macs.first(), "52:54:00:00:00:02".parse().ok().as_ref());
        assert!(one(&(host("a", 1, said) + "host a { dynamic; deleted; }")).machines.is_empty());
        // What an operator writes twice is one machine with two interfaces.
        assert_eq!(one(&(host("a", 1, "") + &host("a", 2, ""))).machines[0].macs.len(), 2);
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
