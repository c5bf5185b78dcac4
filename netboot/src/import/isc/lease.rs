//! Leases: `lease` declarations, and `iaaddr` in the associations of clients.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use kiln_inventory::{Duid, Lease, Lease6};
use kiln_types::Mac;

use super::super::told::Since;
use super::super::{FOR_EVER, ImportError, Page, mac, short};

/// In which order the server has written the bytes of numbers: that of its processor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Little,
    Big,
}

/// An association of a client, in which addresses lie: its number and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Association {
    iaid: u32,
    duid: Duid,
}

/// Whose lease it is.
#[derive(Debug)]
enum Who {
    Four(Ipv4Addr, Option<Mac>),
    Six(Ipv6Addr, Association),
}

/// A lease, as far as it was read.
#[derive(Debug)]
pub(super) struct Open {
    who: Who,
    expires: Option<i64>,
    name: Option<String>,
    active: bool,
}

impl Open {
    pub(super) const fn four(address: Ipv4Addr) -> Self {
        // The server of old versions writes no state, and only leases that are in use.
        Self { who: Who::Four(address, None), expires: None, name: None, active: true }
    }

    pub(super) fn six(address: &str, of: &Association, line: usize) -> Result<Self, ImportError> {
        let address = address.parse().map_err(|_| {
            ImportError::at(line, format!("`{}` is no address of IPv6", short(address)))
        })?;
        let who = Who::Six(address, of.clone());
        Ok(Self { who, expires: None, name: None, active: false })
    }

    /// Hears what a statement says of it. Most of them are how the server came to it.
    pub(super) fn say(&mut self, words: &[&str]) {
        match (words, &mut self.who) {
            (["hardware", "ethernet", text], Who::Four(_, place)) => *place = mac(text).ok(),
            (["client-hostname", text], _) => self.name = Some((*text).to_owned()),
            (["ends", when @ ..], _) => self.expires = end_of(when),
            (["binding", "state", state], _) => self.active = *state == "active",
            _ => {}
        }
    }

    /// Puts it where it belongs. The file is a journal: the last entry of an address counts.
    pub(super) fn end(self, line: usize, page: &mut Page) {
        let Self { who, expires, name: hostname, active } = self;
        let since = Since::default();
        match who {
            Who::Four(address, mac) => {
                let lease = mac.zip(expires).filter(|_| active);
                if active && lease.is_none() {
                    let what = if mac.is_none() { "its hardware address" } else { "when it ends" };
                    page.note(line, format!("{address} is left out: {what} is not said"));
                }
                let lease = lease.map(|(mac, expires)| Lease { address, mac, expires, hostname });
                page.leases.say(address, lease, since);
            }
            Who::Six(address, Association { iaid, duid }) => {
                if active && expires.is_none() {
                    page.note(line, format!("{address} is left out: when it ends is not said"));
                }
                let mac = duid.mac();
                let lease = expires.filter(|_| active);
                let lease = lease.map(|expires| Lease6 { address, duid, iaid, mac, expires });
                page.leases6.say(address, lease, since);
            }
        }
    }
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
pub(super) fn association(key: &str, order: Order) -> Option<Association> {
    let bytes: Vec<u8> =
        key.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect::<Option<_>>()?;
    let (iaid, duid) = bytes.split_first_chunk()?;
    let iaid = match order {
        Order::Little => u32::from_le_bytes(*iaid),
        Order::Big => u32::from_be_bytes(*iaid),
    };
    Some(Association { iaid, duid: Duid::new(duid)? })
}

/// Reads `2026/11/21` and `15:04:05`.
fn seconds(date: &str, time: &str) -> Option<i64> {
    let moment: DateTime = format!("{}T{time}", date.replace('/', "-")).parse().ok()?;
    Some(moment.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::lease6;
    use super::super::super::{FOR_EVER, Source, read};
    use super::super::tests::one;

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
    fn a_lease_that_a_later_file_ends_does_not_come_back() {
        let all = |texts: [&str; 2]| read(Source::Isc, &texts.map(str::to_owned)).unwrap();
        let active = "lease 10.0.0.1 { binding state active; ends never; hardware ethernet 52:54:00:00:00:01; }\n\
                      ia-na \"abcdefgh\" { iaaddr fd00::1 { binding state active; ends never; } }";
        let free = "lease 10.0.0.1 { binding state free; ends never; hardware ethernet 52:54:00:00:00:01; }\n\
                    ia-na \"abcdefgh\" { iaaddr fd00::1 { binding state released; ends never; } }";
        let leases = |texts| {
            let all = all(texts);
            (all.leases.len(), all.leases6.len())
        };
        assert_eq!(leases([active, free]), (0, 0));
        assert_eq!(leases([free, active]), (1, 1));
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
    fn leases_that_cannot_be_taken_are_told_of_with_their_line() {
        let all = one(
            "lease 10.0.0.1 { ends never; }\nlease 10.0.0.2 { hardware ethernet 0:c:29:1:2:3; }\n\
             lease 10.0.0.3 { binding state free; }\nlease { interface \"eth0\"; }\n\
             server-duid \"\\000\";\nia-na \"abcdefgh\" { iaaddr fd00::1 { binding state active; } }\n\
             ia-pd \"abcdefgh\" { iaprefix fd01::/64 { binding state active; ends never; } }\n",
        );
        assert!(all.leases.is_empty() && all.leases6.is_empty());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let starts = [
            "line 1: 10.0.0.1 is left out: its hardware address is not said",
            "line 2: 10.0.0.2 is left out: when it ends is not said",
            "line 4: a lease without an address is left out",
            "line 5: the server's own DUID is left out",
            "line 6: fd00::1 is left out: when it ends is not said",
            "line 7: `ia-pd` is left out",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start), "{notes:?}");
        }
    }
}
