//! ISC's dhcpd: `host` declarations of dhcpd.conf and dhcpd.leases, and the leases, also those of dhcpd6.leases
//! (dhcpd.conf(5), dhcpd.leases(5)).

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use kiln_inventory::{Duid, Lease, Lease6};
use kiln_types::Mac;

use super::{FOR_EVER, Found, ImportError, Page, identifier, octets, short};

/// How deep declarations may lie in each other.
const MAX_DEPTH: usize = 32;

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let mut page = Page::default();
    let mut blocks: Vec<Block> = Vec::new();
    let mut statement: Vec<String> = Vec::new();
    let mut words = Words { rest: text, line: 1 };
    let mut order = Order::Little;
    while let Some(word) = words.next()? {
        let line = words.line;
        match word {
            Word::Open => {
                if blocks.len() == MAX_DEPTH {
                    return Err(ImportError::at(
                        line,
                        format!("declarations lie more than {MAX_DEPTH} deep in each other"),
                    ));
                }
                let block = Block::new(&statement, line, blocks.last(), order)?;
                blocks.push(block);
                statement.clear();
            }
            Word::Close => {
                let block =
                    blocks.pop().ok_or_else(|| ImportError::at(line, "a `}` without its `{`"))?;
                block.end(&mut page);
                statement.clear();
            }
            Word::End => {
                if let Some(block) = blocks.last_mut() {
                    block.say(&statement, line, &mut page)?;
                } else if statement.first().is_some_and(|word| word == "include") {
                    let file = statement.get(1).map_or_else(String::new, |file| short(file));
                    page.note(line, format!("{file} is included by this file; name it too"));
                } else if let [key, value] = statement.as_slice()
                    && key == "authoring-byte-order"
                {
                    order = if value == "big-endian" { Order::Big } else { Order::Little };
                }
                statement.clear();
            }
            Word::Text(text) => statement.push(text),
        }
    }
    match blocks.last() {
        Some(block) => Err(ImportError::at(block.line, "a `{` without its `}`")),
        None if !statement.is_empty() => {
            let what = format!("`{}` without a `;` behind it", short(&statement.join(" ")));
            Err(ImportError::at(words.line, what))
        }
        None => Ok(page),
    }
}

/// What stands between `{` and `}`.
#[derive(Debug)]
struct Block {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host(Box<Found>),
    Lease {
        address: Ipv4Addr,
        mac: Option<Mac>,
        expires: Option<i64>,
        name: Option<String>,
        active: bool,
    },
    /// An association of a client, in which addresses lie.
    Association(u32, Duid),
    Address6 {
        address: Ipv6Addr,
        iaid: u32,
        duid: Duid,
        expires: Option<i64>,
        active: bool,
    },
    Other,
}

/// In which order the server has written the bytes of numbers: that of its processor.
#[derive(Clone, Copy, Debug)]
enum Order {
    Little,
    Big,
}

impl Block {
    fn new(
        head: &[String],
        line: usize,
        outer: Option<&Self>,
        order: Order,
    ) -> Result<Self, ImportError> {
        let words: Vec<&str> = head.iter().map(String::as_str).collect();
        let kind = match words[..] {
            ["host", name] => Kind::Host(Box::new(Found {
                line: Some(line),
                name: Some(name.to_owned()),
                ..Found::default()
            })),
            ["lease", address] => address.parse().map_or(Kind::Other, |address| Kind::Lease {
                address,
                mac: None,
                expires: None,
                name: None,
                // The server of old versions writes no state, and only leases that are in use.
                active: true,
            }),
            ["ia-na", key] => {
                let what = || {
                    format!("`{}` is no IAID with a DUID behind it, as `ia-na` has it", short(key))
                };
                let (iaid, duid) =
                    association(key, order).ok_or_else(|| ImportError::at(line, what()))?;
                Kind::Association(iaid, duid)
            }
            ["iaaddr", text] => match outer.map(|outer| &outer.kind) {
                Some(Kind::Association(iaid, duid)) => Kind::Address6 {
                    address: text.parse().map_err(|_| {
                        ImportError::at(line, format!("`{}` is no address of IPv6", short(text)))
                    })?,
                    iaid: *iaid,
                    duid: duid.clone(),
                    expires: None,
                    active: false,
                },
                // Temporary ones, in `ia-ta`.
                _ => Kind::Other,
            },
            _ => Kind::Other,
        };
        Ok(Self { line, kind })
    }

    fn say(
        &mut self,
        statement: &[String],
        line: usize,
        page: &mut Page,
    ) -> Result<(), ImportError> {
        let words: Vec<&str> = statement.iter().map(String::as_str).collect();
        match &mut self.kind {
            Kind::Host(found) => host(found, &words, line, page),
            Kind::Lease { mac, expires, name, active, .. } => {
                match words[..] {
                    ["hardware", "ethernet", text] => *mac = text.parse().ok(),
                    ["ends", ref when @ ..] => *expires = end_of(when),
                    ["client-hostname", text] => *name = Some(text.to_owned()),
                    ["binding", "state", state] => *active = state == "active",
                    _ => {}
                }
                Ok(())
            }
            Kind::Address6 { expires, active, .. } => {
                match words[..] {
                    ["ends", ref when @ ..] => *expires = end_of(when),
                    ["binding", "state", state] => *active = state == "active",
                    _ => {}
                }
                Ok(())
            }
            Kind::Association(..) | Kind::Other => Ok(()),
        }
    }

    fn end(self, page: &mut Page) {
        match self.kind {
            Kind::Host(found) => page.found.push(*found),
            Kind::Lease { address, mac: Some(mac), expires: Some(expires), name, active: true } => {
                // The file is a journal: the last entry of an address counts.
                page.leases.insert(address, Lease { address, mac, expires, hostname: name });
            }
            Kind::Lease { address, active: false, .. } => {
                page.leases.remove(&address);
            }
            Kind::Address6 { address, iaid, duid, expires: Some(expires), active: true } => {
                let mac = duid.mac();
                page.leases6.insert(address, Lease6 { address, duid, iaid, mac, expires });
            }
            Kind::Address6 { address, active: false, .. } => {
                page.leases6.remove(&address);
            }
            Kind::Lease { .. } | Kind::Address6 { .. } | Kind::Association(..) | Kind::Other => {}
        }
    }
}

fn host(
    found: &mut Found,
    words: &[&str],
    line: usize,
    page: &mut Page,
) -> Result<(), ImportError> {
    match *words {
        ["hardware", "ethernet", text] => {
            let mac =
                pad(text).parse().map_err(|error| ImportError::at(line, format!("{error}")))?;
            found.macs.insert(mac);
        }
        ["hardware", kind, _] => {
            page.note(
                line,
                format!("an interface of the kind {} is left out: it is not Ethernet", short(kind)),
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
        ["fixed-address6", text] => found.address6 = text.parse::<Ipv6Addr>().ok(),
        ["option", "host-name", name] => found.name = Some(name.to_owned()),
        ["option", "dhcp-client-identifier", id] | ["uid", id] => {
            found.client_id = match octets(id).filter(|_| id.contains(':')) {
                Some(bytes) => identifier(&bytes),
                None => id.parse().ok(),
            };
        }
        ["deny", "booting"] | ["ignore", "booting"] => {
            page.note(line, "`deny booting` is left out: a machine without an image boots nothing");
        }
        ["filename" | "next-server" | "server-name", ..] => {
            page.note(
                line,
                format!(
                    "`{}` is left out: Kiln finds the loader by the firmware",
                    short(&words.join(" "))
                ),
            );
        }
        ["option", name, ..] => {
            page.note(
                line,
                format!("option {} is left out; set it with --dhcp-option", short(name)),
            );
        }
        _ => {}
    }
    Ok(())
}

/// Writes `0:c:29:…`, which this server allows, with two digits for each byte.
fn pad(text: &str) -> String {
    if !text.contains(':') {
        return text.to_owned();
    }
    text.split(':').map(|part| format!("{part:0>2}")).collect::<Vec<_>>().join(":")
}

/// Reads when a lease ends: a day of the week, a date and a time, all in UTC, or another form that stands for it.
fn end_of(words: &[&str]) -> Option<i64> {
    match *words {
        ["never"] => Some(FOR_EVER),
        ["epoch", seconds, ..] => seconds.parse().ok(),
        [_, date, time] => seconds(date, time),
        _ => None,
    }
}

/// Reads four bytes of an IAID and the DUID behind them, of which each letter is one byte.
fn association(key: &str, order: Order) -> Option<(u32, Duid)> {
    let bytes: Vec<u8> =
        key.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect::<Option<_>>()?;
    let (iaid, duid) = bytes.split_first_chunk()?;
    let iaid = match order {
        Order::Little => u32::from_le_bytes(*iaid),
        Order::Big => u32::from_be_bytes(*iaid),
    };
    Some((iaid, Duid::new(duid)?))
}

/// Reads `2026/11/21` and `15:04:05`.
fn seconds(date: &str, time: &str) -> Option<i64> {
    let moment: DateTime = format!("{}T{time}", date.replace('/', "-")).parse().ok()?;
    Some(moment.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

enum Word {
    Open,
    Close,
    End,
    Text(String),
}

/// Reads the three digits by which a byte is written that cannot be printed.
fn octal(text: &str) -> Option<u8> {
    let digits = text.get(..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    u8::from_str_radix(digits, 8).ok()
}

/// The words of a file; comments run from `#` to the end of the line.
struct Words<'a> {
    rest: &'a str,
    line: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<Option<Word>, ImportError> {
        loop {
            let Some(c) = self.rest.chars().next() else { return Ok(None) };
            match c {
                '#' => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
                '{' | '}' | ';' => {
                    self.skip(1);
                    return Ok(Some(match c {
                        '{' => Word::Open,
                        '}' => Word::Close,
                        _ => Word::End,
                    }));
                }
                '"' => return self.quoted().map(Some),
                c if c.is_whitespace() => self.skip(c.len_utf8()),
                _ => {
                    let stop =
                        |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '#' | '"');
                    let end = self.rest.find(stop).unwrap_or(self.rest.len());
                    let word = self.rest.get(..end).unwrap_or_default().to_owned();
                    self.skip(end);
                    return Ok(Some(Word::Text(word)));
                }
            }
        }
    }

    fn quoted(&mut self) -> Result<Word, ImportError> {
        let start = self.line;
        let mut text = String::new();
        let quoted = self.rest;
        let mut letters = quoted.char_indices().skip(1);
        while let Some((at, c)) = letters.next() {
            match c {
                '"' => {
                    self.skip(at + 1);
                    return Ok(Word::Text(text));
                }
                '\\' => match octal(quoted.get(at + 1..).unwrap_or_default()) {
                    Some(byte) => {
                        text.push(char::from(byte));
                        letters.nth(2);
                    }
                    None => text.extend(letters.next().map(|(_, c)| c)),
                },
                c => text.push(c),
            }
        }
        Err(ImportError::at(start, "a `\"` without its partner"))
    }

    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += gone.bytes().filter(|b| *b == b'\n').count();
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::lease6;
    use super::super::{FOR_EVER, Imported, Source, read};

    fn one(text: &str) -> Imported {
        read(Source::Isc, &[text.to_owned()]).unwrap()
    }

    #[test]
    fn hosts_in_any_declaration_become_machines() {
        let all = one(r#"
            option domain-name "example.org"; # { not a brace
            subnet 10.0.0.0 netmask 255.255.255.0 { range 10.0.0.10 10.0.0.99;
              pool { allow unknown-clients; }
              host n1 { hardware ethernet 0:c:29:1:2:3; fixed-address 10.0.0.1, 10.0.1.1; }
            }
            group { filename "pxelinux.0";
              host odd-name { hardware ethernet 52:54:00:00:00:02; option host-name "n2";
                option dhcp-client-identifier 01:02:ff; next-server 10.0.0.9; }
            }
            host n3 { hardware infiniband 80:00; }
            if option architecture = 00:07 { filename "x.efi"; } else { filename "y.0"; }
        "#);
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2"]);
        let mac = all.machines[0].macs.first().map(ToString::to_string);
        assert_eq!(mac.as_deref(), Some("00:0c:29:01:02:03"));
        assert_eq!(all.machines[0].address, "10.0.0.1".parse().ok());
        assert_eq!(all.machines[1].client_id, "hex:0102ff".parse().ok());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 4, "{notes:?}");
        assert!(notes[0].starts_with("line 5: only the first address"), "{notes:?}");
    }

    #[test]
    fn the_last_entry_of_an_address_is_its_lease() {
        let all = one(r#"
            authoring-byte-order little-endian;
            lease 10.0.0.50 { starts 6 2026/11/21 15:00:00; ends 6 2026/11/21 15:10:00; binding state active;
              hardware ethernet 52:54:00:00:00:01; client-hostname "n1"; }
            lease 10.0.0.51 { ends never; hardware ethernet 52:54:00:00:00:02; }
            lease 10.0.0.50 { ends epoch 1700000000; binding state active; hardware ethernet 52:54:00:00:00:03; }
            lease 10.0.0.52 { ends 6 2026/11/21 15:10:00; binding state active; hardware ethernet 52:54:00:00:00:04; }
            lease 10.0.0.52 { ends 6 2026/11/21 15:05:00; binding state free; hardware ethernet 52:54:00:00:00:04; }
        "#);
        let seen: Vec<_> = all.leases.iter().map(|l| (l.address.to_string(), l.expires)).collect();
        let expected =
            [("10.0.0.50".to_owned(), 1_700_000_000), ("10.0.0.51".to_owned(), FOR_EVER)];
        assert_eq!(seen, expected);
        let first = one(
            "lease 10.0.0.1 { ends 6 2026/11/21 15:10:00; hardware ethernet 52:54:00:00:00:01; }",
        );
        assert_eq!(first.leases[0].expires, 1_795_273_800);
    }

    #[test]
    fn leases_of_ipv6_are_read_with_who_has_them() {
        let all = one(r#"
            # a file of dhcpd -6
            authoring-byte-order little-endian;
            server-duid "\000\001\000\001,\360\\";
            ia-na "\001\000\000\002\000\003\000\001RT\000\000\000\005" {
              cltt 6 2026/11/21 15:00:00;
              iaaddr fd00::5 { binding state active; preferred-life 375; max-life 600; ends 6 2026/11/21 15:10:00; }
              iaaddr fd00::6 { binding state expired; ends 6 2026/11/21 15:10:00; }
            }
            ia-na "\"\\\000\000\000\004\377a" { iaaddr fd00::7 { binding state active; ends never; } }
            ia-na "\001\000\000\002\000\004\252\273" { iaaddr fd00::8 { binding state active; ends epoch 1700000000; } }
            ia-na "\001\000\000\002\000\004\252\273" { iaaddr fd00::8 { binding state released; ends epoch 1700000000; } }
            ia-ta "\001\000\000\002\000\004\252\273" { iaaddr fd00::9 { binding state active; ends never; } }
            ia-pd "\001\000\000\002\000\004\252\273" { iaprefix fd01::/64 { binding state active; ends never; } }
        "#);
        let expected = [
            lease6(
                "fd00::5",
                "00030001525400000005",
                0x0200_0001,
                "52:54:00:00:00:05",
                1_795_273_800,
            ),
            lease6("fd00::7", "0004ff61", 0x5c22, "", FOR_EVER),
        ];
        assert_eq!(all.leases6, expected);
        let big = one(r#"authoring-byte-order big-endian;
            ia-na "\001\000\000\002\000\004\252" { iaaddr fd00::5 { binding state active; ends never; } }"#);
        assert_eq!(big.leases6[0].iaid, 0x0100_0002);
        for (text, start) in [
            ("\nia-na \"\" {}", "line 2: `` is no IAID"),
            (r#"ia-na "\001\000\000\002\000\004" {}"#, "line 1: `"),
            (&*format!("ia-na \"{}\" {{}}", "a".repeat(200)), "line 1: `aaaa"),
            ("ia-na \"ab\u{431}cdefg\" {}", "line 1: `ab"),
            ("ia-na \"abcdefgh\" {\n iaaddr 10.0.0.1 {}}", "line 2: `10.0.0.1` is no address"),
            ("ia-na \"abcdefgh\" {\n iaaddr fd00::1 {", "line 2: a `{`"),
        ] {
            let (_, error) = read(Source::Isc, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
        let outside = one("iaaddr fd00::1 { binding state active; ends never; }");
        assert!(outside.leases6.is_empty());
    }

    #[test]
    fn what_is_torn_is_refused_with_its_line() {
        for (text, start) in [
            ("host a {\n hardware ethernet 52:54:00:00:00:01;\n", "line 1: a `{`"),
            ("\n}", "line 2: a `}`"),
            ("host a { hardware ethernet 52:54; }", "line 1: `52:54` is not a MAC"),
            ("\n\noption x \"y", "line 3: a `\"`"),
            ("port 67", "line 1: `port 67` without a `;`"),
        ] {
            let (_, error) = read(Source::Isc, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
        let deep = "group { ".repeat(50);
        assert!(read(Source::Isc, &[deep]).unwrap_err().1.to_string().contains("deep"));
    }
}
