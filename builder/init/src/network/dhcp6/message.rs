//! DHCPv6 messages of a client (RFC 8415).

#![warn(clippy::indexing_slicing)]

use std::net::Ipv6Addr;

use crate::network::names;

const MOST_ADDRESSES: usize = 8;
/// RFC 8415 §11.1.
const LONGEST_DUID: usize = 130;
const NO_SUCCESS: u16 = 1;

/// Numbers of the options.
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const NAME_SERVERS: u16 = 23;
const SEARCH: u16 = 24;
const TIME_SERVERS: u16 = 31;
const REFRESH: u16 = 32;

/// What the client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Solicit,
    Request,
    Renew,
    Rebind,
    /// Everything but an address.
    Information,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Advertise,
    Reply,
}

/// An answer from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    pub(crate) server: Vec<u8>,
    pub(crate) preference: u8,
    /// It is a lease although it was only solicited.
    pub(crate) is_rapid: bool,
    /// Not 0 when the server does not do what was asked.
    pub(crate) status: u16,
    /// With how many seconds they are preferred and valid; all ones is for ever.
    pub(crate) addresses: Vec<(Ipv6Addr, u32, u32)>,
    pub(crate) t1: u32,
    pub(crate) t2: u32,
    pub(crate) name_servers: Vec<Ipv6Addr>,
    pub(crate) time_servers: Vec<Ipv6Addr>,
    pub(crate) search: Vec<String>,
    /// When to ask for information again.
    pub(crate) refresh: Option<u32>,
}

/// Writes a client's message. The server and the addresses are those of the lease or offer that it is about.
pub(crate) fn write(
    ask: Ask,
    xid: u32,
    mac: [u8; 6],
    elapsed: u16,
    server: &[u8],
    addresses: &[Ipv6Addr],
) -> Vec<u8> {
    let (kind, names_server) = match ask {
        Ask::Solicit => (1, false),
        Ask::Request => (3, true),
        Ask::Renew => (5, true),
        Ask::Rebind => (6, false),
        Ask::Information => (11, false),
    };
    let [_, xid @ ..] = xid.to_be_bytes();
    let mut out = [[kind].as_slice(), &xid].concat();
    option(&mut out, CLIENT_ID, &duid(mac));
    if names_server {
        option(&mut out, SERVER_ID, server);
    }
    option(&mut out, ELAPSED, &elapsed.to_be_bytes());
    if ask != Ask::Information {
        let mut ia = [ia_id(mac).as_slice(), &[0; 8]].concat();
        for address in addresses {
            option(&mut ia, IA_ADDRESS, &[address.octets().as_slice(), &[0; 8]].concat());
        }
        option(&mut out, IA_NA, &ia);
    }
    let wanted = [NAME_SERVERS, SEARCH, TIME_SERVERS, REFRESH];
    // The time of the next question means nothing where a lease says when (RFC 8415 §21.23).
    let count = if ask == Ask::Information { 4 } else { 3 };
    let wanted: Vec<u8> = wanted.iter().take(count).flat_map(|code| code.to_be_bytes()).collect();
    option(&mut out, WANTED, &wanted);
    if ask == Ask::Solicit {
        option(&mut out, RAPID_COMMIT, &[]);
    }
    out
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    if let Ok(length) = u16::try_from(value.len()) {
        out.extend(code.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(value);
    }
}

/// DUID-LL of an Ethernet card (RFC 8415 §11.4): a machine without a disk has nothing else that stays.
fn duid(mac: [u8; 6]) -> Vec<u8> {
    [[0, 3, 0, 1].as_slice(), &mac].concat()
}

/// The end of a card's address tells the cards of a machine apart.
fn ia_id(mac: [u8; 6]) -> [u8; 4] {
    let [_, _, id @ ..] = mac;
    id
}

/// Reads an answer to us; `None` when it is anything else.
pub(crate) fn read(packet: &[u8], xid: u32, mac: [u8; 6]) -> Option<Answer> {
    let (&[kind, ref number @ ..], rest) = packet.split_first_chunk::<4>()?;
    let kind = match kind {
        2 => Kind::Advertise,
        7 => Kind::Reply,
        _ => return None,
    };
    let [_, ours @ ..] = xid.to_be_bytes();
    if *number != ours {
        return None;
    }
    let mut answer = Answer {
        kind,
        server: Vec::new(),
        preference: 0,
        is_rapid: false,
        status: 0,
        addresses: Vec::new(),
        t1: 0,
        t2: 0,
        name_servers: Vec::new(),
        time_servers: Vec::new(),
        search: Vec::new(),
        refresh: None,
    };
    let mut is_for_us = false;
    each(rest, |code, value| {
        match code {
            CLIENT_ID => is_for_us = value == duid(mac),
            SERVER_ID if (1..=LONGEST_DUID).contains(&value.len()) => {
                answer.server = value.to_vec();
            }
            IA_NA => take_ia(&mut answer, value, mac)?,
            PREFERENCE => answer.preference = *value.first()?,
            STATUS => answer.status = status(value)?,
            RAPID_COMMIT => answer.is_rapid = true,
            NAME_SERVERS => answer.name_servers = addresses(value),
            TIME_SERVERS => answer.time_servers = addresses(value),
            SEARCH => answer.search = names::read(value, false),
            REFRESH => answer.refresh = Some(number_at(value, 0)?),
            _ => {}
        }
        Some(())
    })?;
    (is_for_us && !answer.server.is_empty()).then_some(answer)
}

/// Identity, two times, and options: addresses, and whether it went well.
fn take_ia(answer: &mut Answer, value: &[u8], mac: [u8; 6]) -> Option<()> {
    let options = value.get(12..)?;
    if value.get(..4)? != ia_id(mac) {
        return Some(());
    }
    (answer.t1, answer.t2) = (number_at(value, 4)?, number_at(value, 8)?);
    // RFC 8415 §21.4: such times make no sense together.
    if answer.t1 > answer.t2 && answer.t2 > 0 {
        return Some(());
    }
    each(options, |code, value| {
        match code {
            IA_ADDRESS => {
                let octets: [u8; 16] = value.get(..16)?.try_into().ok()?;
                let (preferred, valid) = (number_at(value, 16)?, number_at(value, 20)?);
                let address = Ipv6Addr::from(octets);
                let good = !address.is_multicast()
                    && !address.is_unspecified()
                    && !address.is_loopback()
                    && preferred <= valid
                    && valid > 0;
                if good && answer.addresses.len() < MOST_ADDRESSES {
                    answer.addresses.push((address, preferred, valid));
                }
            }
            STATUS => answer.status = answer.status.max(status(value)?),
            _ => {}
        }
        Some(())
    })
}

/// Calls for each option until one is broken.
fn each(mut rest: &[u8], mut take: impl FnMut(u16, &[u8]) -> Option<()>) -> Option<()> {
    while !rest.is_empty() {
        let (&[a, b, c, d], more) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([c, d]));
        let (value, more) = more.split_at_checked(length)?;
        take(u16::from_be_bytes([a, b]), value)?;
        rest = more;
    }
    Some(())
}

/// Every status but success is a failure to us, whatever its number.
fn status(value: &[u8]) -> Option<u16> {
    let (&status, _) = value.split_first_chunk::<2>()?;
    Some(if status == [0, 0] { 0 } else { u16::from_be_bytes(status).max(NO_SUCCESS) })
}

fn number_at(value: &[u8], at: usize) -> Option<u32> {
    value.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn addresses(value: &[u8]) -> Vec<Ipv6Addr> {
    let (all, _) = value.as_chunks::<16>();
    all.iter().map(|&octets| octets.into()).take(MOST_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 9];

    fn reply(more: &[(u16, &[u8])]) -> Vec<u8> {
        let mut packet = vec![7, 0, 0, 7];
        option(&mut packet, CLIENT_ID, &duid(MAC));
        option(&mut packet, SERVER_ID, &SERVER);
        for (code, value) in more {
            option(&mut packet, *code, value);
        }
        packet
    }

    fn ia(t1: u8, t2: u8, preferred: u8, valid: u8, more: &[u8]) -> Vec<u8> {
        let mut ia = [ia_id(MAC).as_slice(), &[0, 0, 0, t1, 0, 0, 0, t2]].concat();
        let address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        let times = [0, 0, 0, preferred, 0, 0, 0, valid];
        option(&mut ia, IA_ADDRESS, &[address.as_slice(), &times].concat());
        ia.extend(more);
        ia
    }

    #[test]
    fn a_reply_is_read() {
        let servers = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let packet = reply(&[
            (IA_NA, &ia(10, 20, 30, 40, &[])),
            (NAME_SERVERS, &servers),
            (SEARCH, b"\x03lab\0"),
            (PREFERENCE, &[255]),
            (RAPID_COMMIT, &[]),
            (REFRESH, &[0, 0, 14, 16]),
        ]);
        let answer = read(&packet, 7, MAC).unwrap();
        assert_eq!((answer.kind, answer.preference, answer.status), (Kind::Reply, 255, 0));
        assert_eq!(answer.addresses, [("2001:db8::5".parse().unwrap(), 30, 40)]);
        assert_eq!((answer.t1, answer.t2, answer.refresh), (10, 20, Some(3600)));
        assert_eq!(answer.name_servers, ["fe80::1".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(answer.search, ["lab"]);
        assert!(answer.is_rapid);
    }

    #[test]
    fn what_is_not_for_us_is_passed_over() {
        let packet = reply(&[]);
        assert!(read(&packet, 7, MAC).is_some());
        assert!(read(&packet, 8, MAC).is_none());
        assert!(read(&packet, 7, [0; 6]).is_none());
        assert!(read(&packet[..18], 7, MAC).is_none(), "no server");
        let mut solicit = packet;
        solicit[0] = 1;
        assert!(read(&solicit, 7, MAC).is_none());
    }

    #[test]
    fn a_refusal_is_seen_wherever_it_stands() {
        let refusal = [0, 13, 0, 4, 0, 2, b'n', b'o'];
        let inside = read(&reply(&[(IA_NA, &ia(0, 0, 1, 1, &refusal))]), 7, MAC).unwrap();
        let outside = read(&reply(&[(STATUS, &[0, 5])]), 7, MAC).unwrap();
        assert_eq!((inside.status, outside.status), (2, 5));
    }

    #[test]
    fn addresses_and_times_that_make_no_sense_are_not_taken() {
        for (t1, t2, preferred, valid) in [(20, 10, 1, 1), (0, 0, 2, 1), (0, 0, 0, 0)] {
            let packet = reply(&[(IA_NA, &ia(t1, t2, preferred, valid, &[]))]);
            assert!(read(&packet, 7, MAC).unwrap().addresses.is_empty(), "{t1} {preferred}");
        }
        let mut other = ia(0, 0, 1, 1, &[]);
        other[0] = 0xff;
        assert!(read(&reply(&[(IA_NA, &other)]), 7, MAC).unwrap().addresses.is_empty());
    }

    #[test]
    fn no_cut_and_no_byte_makes_it_panic() {
        let whole = reply(&[(IA_NA, &ia(1, 2, 3, 4, &[0, 13, 0, 2, 0, 1])), (SEARCH, b"\x01a\0")]);
        for end in 0..whole.len() {
            let _ = read(&whole[..end], 7, MAC);
            for byte in [0, 1, 0x7f, 0xff] {
                let mut packet = whole.clone();
                packet[end] = byte;
                let _ = read(&packet, 7, MAC);
            }
        }
    }

    #[test]
    fn each_question_names_what_it_has_to() {
        let address = ["2001:db8::5".parse().unwrap()];
        let has = |packet: &[u8], code: u16| {
            let mut found = false;
            each(&packet[4..], |other, _| {
                found |= other == code;
                Some(())
            })
            .unwrap();
            found
        };
        for (ask, kind, server, ia) in [
            (Ask::Solicit, 1, false, true),
            (Ask::Request, 3, true, true),
            (Ask::Renew, 5, true, true),
            (Ask::Rebind, 6, false, true),
            (Ask::Information, 11, false, false),
        ] {
            let packet = write(ask, 0xff00_0007, MAC, 9, &SERVER, &address);
            assert_eq!(packet[..4], [kind, 0, 0, 7], "{ask:?}");
            assert_eq!(has(&packet, SERVER_ID), server, "{ask:?}");
            assert_eq!(has(&packet, IA_NA), ia, "{ask:?}");
            assert!(has(&packet, CLIENT_ID) && has(&packet, ELAPSED) && has(&packet, WANTED));
            assert_eq!(has(&packet, RAPID_COMMIT), ask == Ask::Solicit);
        }
    }

    #[test]
    fn fuzzed_answers_are_read_or_passed_over() {
        let whole =
            reply(&[(IA_NA, &ia(10, 20, 30, 40, &[])), (23, &[0xfe; 32]), (24, b"\x03lab\0")]);
        kiln_fuzz::check("init-dhcp6", &[&whole], |bytes| drop(read(bytes, 7, MAC)));
    }
}
